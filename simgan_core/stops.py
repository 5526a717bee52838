"""One training of a refiner, kept at several stops; the rule without labels says which of them to use.

The longest training is not always the best one: an R that goes on may leave the label behind. `train_to_stops` keeps
the averaged R at equally spaced steps, `measure` looks at each without a label of a real image, and
`simgan_core.selection` chooses (docs/selection.md). `02_training` uses this for every seed, `simgan select` for every
lambda of a sweep.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from simgan_core import provenance, selection
from simgan_core.checkpoints import REFINER, load_refiner
from simgan_core.config import Config, with_overrides
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import sha256
from simgan_core.evaluation.statistics import Estimate
from simgan_core.precision import resolve_device
from simgan_core.selection import Candidate, measure_candidate
from simgan_core.training import train
from simgan_core.training_log import METRICS, SAMPLES, drop_after

RAW = "raw.json"
"""In a training's folder: how well a fresh discriminator tells raw renders from real images."""


@dataclass(frozen=True)
class Training:
    """One training; `config` is that of its last stop."""

    synthetic: Path
    real: Path
    folder: Path
    config: Config
    steps: tuple[int, ...]
    seed: int

    def kept(self, step: int) -> Path:
        """Weights of the averaged R after `step` adversarial steps."""
        return self.folder / f"step-{step:06d}.safetensors"

    def measurements(self) -> list[Measurement]:
        """What is to be measured of it, one per stop."""
        return [
            Measurement(self.kept(step), self.synthetic, self.real, self.config.loss.lambda_sum, step, self.seed)
            for step in self.steps
        ]


@dataclass(frozen=True)
class Measurement:
    """One candidate that is to be measured."""

    weights: Path
    synthetic: Path
    real: Path
    lambda_sum: float
    step: int
    seed: int


def spaced(config: Config, stops: int) -> tuple[int, ...]:
    """`stops` equally spaced steps, the last of them the training's; `ValueError` where there are not so many."""
    steps = config.training.steps
    if not 1 <= stops <= steps:
        raise ValueError(f"{stops} stops found; expected 1 to {steps}, the training's steps. Change one of the two.")
    return tuple(round(steps * (place + 1) / stops) for place in range(stops))


def train_to_stops(task: Training, *, progress: bool = False) -> None:
    """Train up to each stop in turn and keep the averaged R there, as far as it is not done.

    A training that ends at a stop and is resumed makes the numbers of one that did not end there (Algorithm 1 knows
    its last step only as the place to end), so that the loop needs no hook.
    """
    synthetic, real = Store.open(task.synthetic), Store.open(task.real)
    for step in task.steps:
        if not task.kept(step).is_file():
            config = with_overrides(task.config, {"training.steps": step})
            train(synthetic, real, task.folder, config, seed=task.seed, resume=True, progress=progress)
            place(task.folder / REFINER, task.kept(step))


def as_if_ended(task: Training, step: int, folder: Path) -> None:
    """Put into `folder` what a training that ends at `step` leaves: weights, log and samples of `task` up to there.

    A training knows its last step only as the place to end, so that this is that training (see `train_to_stops`).
    """
    t = task.config.training
    ends = tuple(itertools.accumulate((t.pretrain_refiner, t.pretrain_discriminator, step)))
    place(task.folder / METRICS, folder / METRICS)
    drop_after(folder / METRICS, ends[-1])
    for strip in (task.folder / SAMPLES).glob("*.png"):
        iteration = int(strip.stem)
        if iteration in ends or (iteration < ends[-1] and iteration % t.sample_every == 0):
            place(strip, folder / SAMPLES / strip.name)
    place(task.kept(step), folder / REFINER)  # last, as it says that the folder is complete


def measure(task: Measurement) -> Candidate:
    """What `selection.measure_candidate` finds, or what it found of the same weights and images before."""
    synthetic, real = Store.open(task.synthetic), Store.open(task.real)

    def found() -> dict[str, Any]:
        refiner = load_refiner(task.weights).to(resolve_device("auto"))
        candidate = measure_candidate(
            refiner, synthetic, real, lambda_sum=task.lambda_sum, step=task.step, seed=task.seed
        )
        return candidate.to_dict()

    weights = [sha256(task.weights)]
    return _candidate(_once(task.weights.with_suffix(".json"), weights, synthetic, real, task.seed, found))


def measure_raw(synthetic: Store, real: Store, seed: int, file: Path) -> Estimate:
    """What `selection.measure_raw` finds, or what it found of the same images before and left in `file`."""

    def found() -> dict[str, Any]:
        return selection.measure_raw(synthetic, real, seed=seed).to_dict()

    return Estimate(**_once(file, [], synthetic, real, seed, found))


def _once(
    file: Path, weights: list[str], synthetic: Store, real: Store, seed: int, found: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The measurement that `file` holds, made first if it is another's: of other weights, images, seed or code."""
    made_with = {
        "code": provenance.code_fingerprint(Path(__file__)),
        "weights": weights,
        "stores": [synthetic.checksum, real.checksum],
        "seed": seed,
    }
    if not file.is_file() or provenance.read_json(file)["made_with"] != made_with:
        provenance.write_json(file, {"made_with": made_with, "measured": found()})
    return cast("dict[str, Any]", provenance.read_json(file)["measured"])


def place(source: Path, target: Path) -> None:
    """Copy a file; it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def table(candidates: Sequence[Candidate], verdicts: Sequence[str]) -> pd.DataFrame:
    """One row per candidate: realism, label and verdict. Where no iris is left, no shift was measured."""
    rows = []
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        shift = candidate.shift_px
        measured = shift.n > 0
        rows.append({
            "lambda": f"{candidate.lambda_sum:g}", "step": candidate.step, "AUC": candidate.auc.value,
            "low": candidate.auc.low, "high": candidate.auc.high, "shift (px)": shift.value if measured else None,
            "up to": shift.high if measured else None, "lost (%)": candidate.lost_percent, "rule": verdict,
        })  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Stop:
    """Which stop of a training is used: `step`; `passed` is False where the rule took none and the last one stands."""

    step: int
    passed: bool
    candidates: tuple[Candidate, ...]
    verdicts: tuple[str, ...]
    raw_auc: Estimate

    def table(self) -> pd.DataFrame:
        """One row per stop."""
        return table(self.candidates, self.verdicts)


def choose_stop(task: Training, out: Path) -> Stop:
    """Measure each stop of a finished training and put the weights of the chosen one into the folder `out`.

    Where nothing passes, the last stop is taken, as in the paper, which trains for a fixed number of steps.
    """
    candidates = tuple(measure(one) for one in task.measurements())
    synthetic, real = Store.open(task.synthetic), Store.open(task.real)
    raw_auc = measure_raw(synthetic, real, task.seed, task.folder / RAW)
    found = selection.select(candidates, raw_auc)
    step = task.steps[-1] if found.chosen is None else found.chosen.step
    place(task.kept(step), out / REFINER)
    return Stop(step, found.chosen is not None, candidates, found.verdicts, raw_auc)


def _candidate(tree: dict[str, Any]) -> Candidate:
    auc, shift_px = Estimate(**tree["auc"]), Estimate(**tree["shift_px"])
    return Candidate(tree["lambda_sum"], tree["step"], auc, shift_px, tree["lost_percent"])
