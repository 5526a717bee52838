"""Fit the simulator's ranges of framing, head pose, lids and angle kappa to real images, without a label of them.

What a refiner cannot mend the simulator must have right: where the eye lies in the frame, how far lids and heads move.
`domain_gap.ask` says what a network sees in renders and in real images. On renders we also know the truth, so that the
network's answers are described by a linear map of it plus an error. Ranges are then wanted whose landmarks, seen
through that map, have the mean and the covariance that the network saw in the real images (indirect inference:
Gourieroux, Monfort and Renault 1993). Only landmarks are computed on the way, no image is rendered.

Legend: T targets, N images, V settings. Positions in pixels of the image, angles in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.store import Store
from simgan_core.evaluation.camera_fit import EVALUATIONS, CameraFit, fit_camera
from simgan_core.evaluation.domain_gap import ANGLES, HELD_OUT, LIDS, Answers, ask
from simgan_core.evaluation.light_fit import LightFit, fit_light
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.ranges import NOT_IN_FILES, EyeRanges, parse_ranges
from simgan_core.simulators.simulate import load_assets, one_thread

Floats = NDArray[np.float64]

DRAWS = 1500
"""Eyes whose landmarks stand for a setting; always the same random numbers, so that the distance is smooth."""
PX_PER_DEG = 0.25
"""Weight of an angle: the network sees head pose and gaze less well than positions."""
STIFFNESS = 0.01
"""Penalty on a setting that moves by its `step`, in px²: what the images do not decide stays as it was."""
PHOTOGRAPHS = 4000
"""Real images, evenly spread over their store, that light and camera are fitted to."""
PER_TARGET = 3
"""Held-out renders for each unknown of the linear map from the truth to a network's answers, at least."""
LID_POINTS = 20  # of our simulator's lid margins
FEWEST_RENDERS = math.ceil(PER_TARGET * (len(ANGLES) + 2 + 2 * len(LIDS[LID_POINTS]) + 1) / HELD_OUT)
"""Of which so many are held out, for all targets of the simulator's own renders."""
FIRST_DRAW = 1_000_000  # of the stream: far from the images of any store


@dataclass(frozen=True)
class Setting:
    """One number of `EyeRanges` that is fitted: `part` of a pair, or both parts alike, or the number itself."""

    field: str
    part: int | None
    step: float

    def read(self, ranges: EyeRanges) -> float:
        """The number in `ranges`; the middle of a pair that moves as a whole."""
        value = getattr(ranges, self.field)
        if isinstance(value, tuple):
            return float(sum(value) / 2 if self.part is None else value[self.part])
        return float(value)

    def write(self, ranges: EyeRanges, value: float) -> EyeRanges:
        """`ranges` with another number; spreads stay positive."""
        old: Any = getattr(ranges, self.field)
        if self.part == 1 or self.field == "shape_scale":
            value = abs(value)
        new: Any = value
        if isinstance(old, tuple) and self.part is None:
            moved = value - self.read(ranges)
            new = (old[0] + moved, old[1] + moved)
        elif isinstance(old, tuple):
            new = (value, old[1]) if self.part == 0 else (old[0], value)
        return replace(ranges, **{self.field: new})


SETTINGS: tuple[Setting, ...] = (
    Setting("field_width_normal_mm", 0, 1.0),
    Setting("field_width_normal_mm", 1, 0.4),
    Setting("shift_x_normal_mm", 0, 0.3),
    Setting("shift_x_normal_mm", 1, 0.2),
    Setting("shift_y_normal_mm", 0, 0.3),
    Setting("shift_y_normal_mm", 1, 0.2),
    Setting("head_pitch_normal_deg", 0, 2.0),
    Setting("head_pitch_normal_deg", 1, 1.0),
    Setting("head_yaw_normal_deg", 0, 2.0),
    Setting("head_yaw_normal_deg", 1, 1.0),
    Setting("head_roll_normal_deg", 1, 0.5),
    Setting("head_follow", None, 0.1),
    Setting("lid_open_normal_deg", 0, 1.0),
    Setting("lid_open_normal_deg", 1, 0.5),
    Setting("lid_gain", None, 0.2),
    Setting("shape_scale", None, 0.15),
    Setting("kappa_pitch_normal_deg", 0, 1.5),
    Setting("kappa_yaw_normal_deg", 0, 1.5),
)


@dataclass(frozen=True)
class SimulatorFit:
    """The fitted ranges, and the mean square distance (px²) between what is seen in renders and in real images."""

    start: EyeRanges
    ranges: EyeRanges
    distance_before: float
    distance_after: float
    light: LightFit | None = None
    camera: CameraFit | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: the distances, and each setting before and after."""
        distances = {"distance_before_px2": self.distance_before, "distance_after_px2": self.distance_after}
        settings = {_named(s): [s.read(self.start), round(s.read(self.ranges), 4)] for s in SETTINGS}
        further = [stage.to_dict() for stage in (self.light, self.camera) if stage is not None]
        return reduce(or_, further, distances | settings)


def fit_simulator(
    simulator: EyeSimulator, answers: Sequence[Answers], size: tuple[int, int], *, evaluations: int = 2500
) -> SimulatorFit:
    """Fit `SETTINGS` of the simulator's ranges to what one or more networks saw.

    Args:
        simulator: with the ranges to start from, those of the renders that the networks trained on.
        answers: of `domain_gap.ask`, one per network; several cost time and take their errors out.
        size: (height, width) of the stores' images, in whose pixels positions are given.
        evaluations: of the distance, 20 ms each.

    Raises:
        ValueError: no answers, networks that were asked different things, or too few held-out renders to say how they
            see.

    """
    if not answers or len({answer.names for answer in answers}) != 1:
        raise ValueError(f"answers about {[answer.names for answer in answers]} found; the same targets expected")
    told, needed = min(len(answer.truth) for answer in answers), PER_TARGET * (len(answers[0].names) + 1)
    if told < needed:
        raise ValueError(
            f"{told} held-out renders found; at least {needed} expected, {PER_TARGET} for each of the numbers that say "
            f"how a network sees. Render at least {math.ceil(needed / HELD_OUT)}, better some thousands."
        )
    views = [_View.of(answer) for answer in answers]
    start, names = simulator.ranges, answers[0].names

    def ranges_of(moves: Floats) -> EyeRanges:
        ranges = start
        for setting, move in zip(SETTINGS, moves, strict=True):
            ranges = setting.write(ranges, setting.read(start) + setting.step * float(move))
        return ranges

    def distance(moves: Floats) -> float:
        truth = landmarks(simulator, ranges_of(moves), names, size)
        return float(np.mean([view.distance(truth) for view in views]))

    def loss(moves: Floats) -> float:
        return distance(moves) + STIFFNESS * float((moves**2).sum())

    nothing = np.zeros(len(SETTINGS))
    options = {"maxfev": evaluations, "xtol": 1e-2, "ftol": 1e-4}
    minimise: Any = minimize  # its stubs know every option of every method, and not this call
    best = minimise(loss, nothing, method="Powell", options=options).x
    return SimulatorFit(start, ranges_of(best), distance(nothing), distance(best))


def landmarks(simulator: EyeSimulator, ranges: EyeRanges, names: Sequence[str], size: tuple[int, int]) -> Floats:
    """The targets `names` [DRAWS, T] of eyes drawn within `ranges`."""
    drawn = simulator.sample(0, range(FIRST_DRAW, FIRST_DRAW + DRAWS), ranges)
    labels = simulator.label(drawn)
    scale = torch.tensor([size[1] / simulator.frame[1], size[0] / simulator.frame[0]])
    angles = torch.rad2deg(torch.cat([labels.gaze, labels.head], 1))
    known = dict(zip(ANGLES, angles.T, strict=True))
    known |= dict(zip(("pupil_x", "pupil_y"), (labels.pupil * scale).T, strict=True))
    for name, place in LIDS[LID_POINTS].items():
        known |= dict(zip((f"{name}_x", f"{name}_y"), (labels.lid_landmarks[:, place] * scale).T, strict=True))
    return torch.stack([known[name] for name in names], 1).double().numpy()


def fit_stores(
    synthetic: Path,
    real: Path,
    assets: Path | None,
    *,
    networks: int = 2,
    steps: int = 2500,
    evaluations: int = 2500,
    light_evaluations: int = 260,
    camera: bool = False,
    camera_evaluations: int = EVALUATIONS,
    progress: bool = True,
) -> SimulatorFit:
    """Fit the ranges that the renders of the store `synthetic` were drawn within; gaze stays distributed as in it.

    Landmarks first, the light across the face then, and last, if `camera` says so, the camera. `assets` are those of
    the renders; `networks` are trained for `steps` each, about two minutes on a core.

    Raises DataError for stores that cannot be compared, ValueError for renders of another simulator.
    """
    renders, photographs = Store.open(synthetic), Store.open(real)
    made = renders.provenance
    if "ranges" not in made or "frame" not in made:
        raise ValueError(f"{synthetic}: made by {made.get('made_by')!r}; expected a store of 'simgan simulate eyes'")
    if len(renders) < FEWEST_RENDERS:
        raise DataError(
            renders.path, found=f"{len(renders)} renders", expected=f"at least {FEWEST_RENDERS}",
            remedy="render more: some thousands tell well how the networks see",
        )  # fmt: skip
    numbers = {name: value for name, value in made["ranges"].items() if name not in NOT_IN_FILES}
    start = parse_ranges(numbers, str(synthetic)).with_prior(renders.pitch_yaw())
    height, width = made["frame"]
    with one_thread():
        shown = load_assets(assets)
        if made.get("assets", shown.name) != shown.name:
            raise ValueError(
                f"{synthetic}: renders of {made['assets']!r} assets, but {shown.name!r} ones are to be fitted; "
                "expected those of the renders. Name their folder with --assets, or leave it out for procedural eyes."
            )
        simulator = EyeSimulator(shown, replace(start, gaze_jitter_deg=0.0), frame=(height, width))
    answers = [
        ask(renders, photographs, seed=seed, steps=steps, limit=12_000, progress=progress) for seed in range(networks)
    ]
    found = fit_simulator(simulator, answers, renders.size, evaluations=evaluations)
    images, equalised = photographs.images(photographs.spread(PHOTOGRAPHS)), bool(made.get("equalised", True))
    seen = None
    with one_thread():
        simulator = EyeSimulator(simulator.assets, found.ranges, frame=(height, width))
        light = fit_light(simulator, images, equalise=equalised, evaluations=light_evaluations)
        if camera:
            simulator = EyeSimulator(simulator.assets, light.ranges, frame=(height, width))
            seen = fit_camera(simulator, images, equalise=equalised, evaluations=camera_evaluations)
    kept = {name: getattr(start, name) for name in ("gaze_prior", "gaze_jitter_deg")}
    return replace(found, ranges=replace(light.ranges, **kept), light=light, camera=seen)


def _named(setting: Setting) -> str:
    return setting.field if setting.part is None else f"{setting.field}[{setting.part}]"


@dataclass(frozen=True)
class _View:
    """How one network sees: answers = truth · slope + offset, plus errors of a covariance; and what it saw."""

    slope: Floats  # [T,T]
    offset: Floats  # [T]
    errors: Floats  # [T,T]
    real_mean: Floats  # [T]
    real_spread: Floats  # [T,T]
    weight: Floats  # [T] px per unit

    @staticmethod
    def of(answers: Answers) -> _View:
        known = np.column_stack([answers.truth, np.ones(len(answers.truth))])
        line = np.linalg.lstsq(known, answers.synthetic, rcond=None)[0]
        errors = np.cov((answers.synthetic - known @ line).T)
        weight = np.array([PX_PER_DEG if name in ANGLES else 1.0 for name in answers.names])
        real_mean, real_spread = answers.real.mean(axis=0), np.asarray(np.cov(answers.real.T), np.float64)
        return _View(
            np.asarray(line[:-1], np.float64), line[-1], np.asarray(errors, np.float64), real_mean, real_spread, weight
        )

    def distance(self, truth: Floats) -> float:
        """Squared 2-Wasserstein distance, px², of Gaussians: what it would see in eyes of `truth` [N, T], and saw."""
        mean = truth.mean(axis=0) @ self.slope + self.offset
        spread = self.slope.T @ np.cov(truth.T) @ self.slope + self.errors
        seen, real = (matrix * np.outer(self.weight, self.weight) for matrix in (spread, self.real_spread))
        # the trace of the root of (real^1/2 seen real^1/2), whose eigenvalues are those of the product
        roots = np.sqrt(np.linalg.eigvals(seen @ real).real.clip(min=0))
        between_spreads = float(np.trace(seen) + np.trace(real) - 2 * roots.sum())
        return float(((self.weight * (mean - self.real_mean)) ** 2).sum()) + max(0.0, between_spreads)
