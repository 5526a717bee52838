"""What self-regularisation does (section 2.1): label, realism and gaze error of refiners that differ in lambda or psi.

For every refiner: how far the fitted iris centres move (the label), how well a discriminator trained from scratch tells
its images from the target's (AUC; 0.5 = not at all), and the error of the gaze CNN that learnt from them. The first two
read no label of the target and are what `simgan_core.selection` chooses by; the third is the oracle's choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core.ablations import RAW, Ablation, Variant
from simgan_core.claims import ClaimResult, judge
from simgan_core.datasets.store import Store
from simgan_core.evaluation.annotation import (
    ContourShift,
    NoIrisError,
    NothingToFollowError,
    PupilShift,
    iris_shift,
    lid_shift,
    pupil_shift,
)
from simgan_core.evaluation.fresh_discriminator import STEPS, fresh_discriminator
from simgan_core.evaluation.iris_fit import GROSS_PX, IrisFit, fit_iris
from simgan_core.evaluation.statistics import Estimate
from simgan_core.run_folder import Metric, RunFolder
from simgan_core.selection import MAX_LOST_PERCENT, Candidate, Selection, select
from simgan_core.workers import side_by_side

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]

LIMIT = 1500
"""Images of each kind that a refiner is measured on, as `selection.measure_candidate` does."""
CRITIC_STEPS: Mapping[str, int] = {"smoke": 4}
"""Steps of the fresh discriminator by profile, elsewhere those of `fresh_discriminator`: AUCs compare at one budget."""
NO_SHIFT = Estimate(0.0, 0.0, 0.0, 1, 0)


@dataclass(frozen=True)
class Measured:
    """One refiner (or, as `raw`, none): what was measured. `shift` is None where no iris is left to be found."""

    name: str
    title: str
    lambda_sum: float
    error_deg: Estimate
    auc: Estimate
    shift: PupilShift | None
    change: float  # mean |R(x) - x| in grey levels of 255

    @property
    def lost_percent(self) -> float:
        """Irises found before and not after."""
        return 100.0 if self.shift is None else self.shift.lost_percent


@dataclass(frozen=True)
class _Task:
    refined: Path | None
    synthetic: Path
    real: Path
    count: int
    steps: int


def measure(
    run: RunFolder,
    ablation: Ablation,
    variants: Sequence[Variant],
    *,
    workers: int | None = None,
    progress: bool = True,
) -> list[Measured]:
    """Raw renders first, then every variant of `ablation`, by its first seed; errors are over all of its seeds."""
    count = min(LIMIT, ablation.count)
    steps = CRITIC_STEPS.get(run.config.profile, STEPS)
    real = run.stores / "real"
    names = [RAW, *(variant.name for variant in variants)]
    files = [None, *(ablation.folders[name][0] / "refined.npy" for name in names[1:])]
    tasks = [_Task(file, ablation.synthetic.path, real, count, steps) for file in files]
    found = side_by_side(_measure, tasks, title="label and realism", workers=workers, progress=progress)
    lambdas = [0.0, *(_lambda(run, variant) for variant in variants)]
    return [
        Measured(name, ablation.title(name), lambda_sum, ablation.mean_error_deg(name), *of_images)
        for name, lambda_sum, of_images in zip(names, lambdas, found, strict=True)
    ]


def _lambda(run: RunFolder, variant: Variant) -> float:
    return float(str(variant.overrides.get("loss.lambda_sum", run.config.loss.lambda_sum)))


def _measure(task: _Task) -> tuple[Estimate, PupilShift | None, float]:
    before = Store.open(task.synthetic).images(slice(0, task.count))
    after = before if task.refined is None else np.load(task.refined, mmap_mode="c")[: task.count]
    target = Store.open(task.real)
    real = target.images(target.spread(task.count))
    auc = fresh_discriminator(after, real, steps=task.steps).auc
    change = float(np.abs(after.astype(np.float32) - before).mean())
    return auc, shift_of(before, after), change


def shift_of(before: Images, after: Images | Sequence[Images]) -> PupilShift | None:
    """`pupil_shift`, or None where the refiner left no iris: a label that is lost is a result and no error."""
    try:
        return pupil_shift(before, after)
    except (NoIrisError, NothingToFollowError):
        return None


def choose(measured: Sequence[Measured], step: int) -> tuple[Selection, Measured]:
    """The rule's choice without labels among the refiners of `measure`, and the oracle's: the least gaze error."""
    raw, refiners = measured[0], measured[1:]
    candidates = [
        Candidate(m.lambda_sum, step, m.auc, NO_SHIFT if m.shift is None else m.shift.mean_px, m.lost_percent)
        for m in refiners
    ]
    return select(candidates, raw.auc), min(refiners, key=lambda m: m.error_deg.value)


def table(measured: Sequence[Measured], verdicts: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per refiner: label, realism, error; `verdicts` of the rule for all but the first, raw renders."""
    rows: list[dict[str, Any]] = []
    for m in measured:
        shift = None if m.shift is None else m.shift.mean_px.value
        deviation = None if m.shift is None else m.shift.sd_px
        rows.append({
            "refiner": m.title, "change (grey levels)": m.change, "pupil shift (px)": shift, "± sd": deviation,
            "irises lost (%)": m.lost_percent, "AUC, fresh D": m.auc.value, "gaze error (°)": m.error_deg.value,
            "low": m.error_deg.low, "high": m.error_deg.high,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    if verdicts is not None:
        frame["rule without labels"] = ["–", *verdicts]
    return frame


def unrelated_shift_px(labels: NDArray[np.floating[Any]], seed: int = 0) -> float:
    """Mean distance between pupils of unrelated eyes [N, 2]: the shift of a refiner that paints any eye it likes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return float(np.linalg.norm(labels - labels[order], axis=1).mean())


def contour_shifts(synthetic: Store, refined: Sequence[Store], count: int) -> dict[str, ContourShift]:
    """Shifts of iris outline and lids of the first `count` images; a contour that cannot be followed is left out.

    Stores without the simulator's landmarks have none.
    """
    found: dict[str, ContourShift] = {}
    for name, column, measured in (("iris", "iris_landmarks", iris_shift), ("lids", "lid_landmarks", lid_shift)):
        if column in synthetic.columns:
            with contextlib.suppress(ValueError):  # nothing to be followed is a result, as for `shift_of`
                found[name] = measured(synthetic, refined, limit=count)
    return found


def annotation_table(shift: PupilShift | None, contours: Mapping[str, ContourShift]) -> pd.DataFrame:
    """Mean shift, spread, bias and share lost of the fitted centre and of the contours."""
    named: dict[str, PupilShift | ContourShift] = {} if shift is None else {"iris centre, ellipse fit": shift}
    named |= {f"{name}, grey profiles": contour for name, contour in contours.items()}
    rows = [
        (name, s.mean_px.value, s.mean_px.low, s.mean_px.high, s.sd_px, *s.bias_px, s.lost_percent, s.mean_px.n)
        for name, s in named.items()
    ]
    names = ["what", "mean shift (px)", "low", "high", "± sd", "bias u (px)", "bias v (px)", "lost (%)", "images"]
    return pd.DataFrame(rows, columns=names)


def iris_positions(renders: Images, refined: Sequence[Images], target: Images) -> pd.DataFrame:
    """Where irises lie on average: in `renders`, in `refined` (one array per seed) and in unlabelled `target` images.

    An R that moves the irises of its renders to where the target's lie makes up for another distribution of gaze, or
    another framing, with the label; the gaze CNN that learns from them is off by as much.
    """
    rows = []
    for what, arrays in (("renders", [renders]), ("refined", refined), ("target, unlabelled", [target])):
        fits = [fit_iris(images) for images in arrays]
        centres = np.concatenate([fit.centre[fit.valid] for fit in fits])
        found = 100 * np.mean([fit.valid.mean() for fit in fits])
        spread = centres.std(axis=0, ddof=1) if len(centres) > 1 else np.full(2, np.nan)
        mean = centres.mean(axis=0) if len(centres) else np.full(2, np.nan)
        rows.append((what, mean[0], spread[0], mean[1], spread[1], found, len(arrays), len(arrays[0])))
    names = ["irises of", "mean u (px)", "± sd u", "mean v (px)", "± sd v", "found (%)", "seeds", "images"]
    return pd.DataFrame(rows, columns=names)


def shift_of_irises(fitted: IrisFit, labels: Floats, before: Images, after: Sequence[Images]) -> PupilShift | None:
    """`shift_of` where the fit of the render is on its iris, within `GROSS_PX` of the simulator's label [N, 2].

    Some fits follow a lid or a corner of the eye, which a refiner may move more or less than an iris.
    """
    on_iris = fitted.valid & (np.linalg.norm(np.nan_to_num(fitted.centre) - labels, axis=1) <= GROSS_PX)
    return shift_of(before[on_iris], [images[on_iris] for images in after]) if on_iris.any() else None


def annotation_claim(
    shift: PupilShift | None, fit_rmse_px: float, profile: str, on_irises: PupilShift | None = None
) -> ClaimResult:
    """C5: the shift of the irises that are found, and that few are lost: a refiner must not pass by destroying.

    The note adds the shift `on_irises`, of fits that are on the iris to begin with.
    """
    if shift is None:
        return judge("C5", None, profile=profile, refuted="no iris is found after refining")
    note = f"± {shift.sd_px:.2f} px; error of one fit {fit_rmse_px:.2f} px; {shift.lost_percent:.1f} % of irises lost"
    if on_irises is not None:
        mean = on_irises.mean_px
        note += f"; fits within {GROSS_PX:g} px of the label: {mean.value:.2f} px ({mean.low:.2f} to {mean.high:.2f})"
    lost = f"more than {MAX_LOST_PERCENT:.0f} % of the irises are lost"
    refuted = lost if shift.lost_percent > MAX_LOST_PERCENT else ""
    return judge("C5", shift.mean_px, profile=profile, note=note, refuted=refuted)


def metrics(
    sweep: Sequence[Measured], psis: Sequence[Measured], contours: Mapping[str, ContourShift]
) -> dict[str, Metric]:
    """The sweep over lambda, the feature spaces and the contours as named numbers."""
    found = {}
    for prefix, group in (("lambda", sweep[1:]), ("psi", psis[1:])):
        for m in group:
            name = f"{prefix}.{m.lambda_sum:g}" if prefix == "lambda" else f"{prefix}.{m.name}"
            found[f"{name}.mean_error_deg"] = Metric.of(m.error_deg, "°")
            found[f"{name}.auc"] = Metric.of(m.auc, "")
            if m.shift is not None:
                found[f"{name}.pupil_shift_px"] = Metric.of(m.shift.mean_px, "px")
    return found | {f"annotation.{name}_shift_px": Metric.of(c.mean_px, "px") for name, c in contours.items()}
