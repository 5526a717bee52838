"""The ablations of sections 2.1 to 2.3: variants of the refiner's training at one reduced, equal budget.

A *variant* is a set of overrides of the run's configuration. Trainings lie under `RUN/ablations/<key>/seed-<n>/`, where
the key is that of their settings and images: 'with history', 'local', 'the default lambda' and 'psi = identity' are one
training, whichever notebook comes first, and it is the run's own of `02_training`, as far as it had come at the stop
where ablations end (`Config.ablation_stop`). Each variant is then judged as in table 3: its refiner refines the first
renders, and a gaze CNN trained on these is tested on the held-back images.

The budget is that stop, and a part of the profile's renders and of the updates and maps of its gaze CNN, so that
numbers of different notebooks compare with one another; with those of `07_gaze_evaluation`, which takes the whole
budget, they do not.

Legend: S seeds, N test images, M renders that are refined, C H W image. Images uint8, gaze in radians.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simgan_core import stages, stops
from simgan_core.checkpoints import REFINER, load_refiner
from simgan_core.config import Config, with_overrides
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import sha256
from simgan_core.evaluation.dependence import groups_of
from simgan_core.evaluation.statistics import NOT_NEGATIVE, Estimate, two_level_bootstrap
from simgan_core.gaze import angular_error_deg
from simgan_core.gaze_estimator import predict, save_gaze_cnn, train_gaze_cnn
from simgan_core.locks import alone
from simgan_core.models import Refiner
from simgan_core.precision import resolve_device
from simgan_core.provenance import PACKAGE, code_fingerprint, read_json, write_json
from simgan_core.refine import refine_images
from simgan_core.run_folder import RunFolder
from simgan_core.training_log import SAMPLES, read_metrics
from simgan_core.workers import side_by_side

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]

SHARE = 0.25
"""Of the profile's renders, which the gaze CNN of a variant learns from."""
GAZE_SHARE = 0.4
"""Of the profile's steps of the gaze CNN: fewer leave it too far from what its images could teach it."""
GAZE_WIDTH: Mapping[str, float] = {"cpu": 0.25}
"""Width of a variant's gaze CNN by profile, elsewhere the profile's own."""
SWEEP_SEEDS: Mapping[str, int] = {"smoke": 1, "cpu": 1}
"""Seeds of the points of a sweep by profile; all of the ablations' in the others."""
LAMBDA_FACTORS = (0.0, 0.25, 1.0, 4.0, 100.0)
"""The sweep of lambda, relative to the default: from no self-regularisation to one that admits no change."""


@dataclass(frozen=True)
class Variant:
    """One way to train the refiner. `overrides` are dotted names of the configuration with other values."""

    name: str
    title: str
    overrides: Mapping[str, object]


RAW = "raw"
"""Name of the gaze CNN on renders that no refiner has seen, at the same budget."""
HISTORY = (
    Variant("on", "with history", {}),
    Variant("off", "without history", {"training.history_images": 0}),
)
DISCRIMINATORS = (
    Variant("local", "local", {"discriminator.kind": "local"}),
    Variant("global", "global", {"discriminator.kind": "global"}),
)


def lambda_sweep(config: Config) -> tuple[Variant, ...]:
    """Variants over lambda, the default among them."""
    values = [round(factor * config.loss.lambda_sum, 6) for factor in LAMBDA_FACTORS]
    return tuple(Variant(f"lambda_{value:g}", f"λ = {value:g}", {"loss.lambda_sum": value}) for value in values)


def psis(feature_net: Path) -> tuple[Variant, ...]:
    """Variants over psi for grey images; `feature_net` is a frozen gaze CNN's weights."""
    learned = {"loss.psi": "learned", "loss.feature_net": str(feature_net)}
    return (
        Variant("identity", "Ψ = identity", {"loss.psi": "identity"}),
        Variant("derivatives", "Ψ = derivatives", {"loss.psi": "derivatives"}),
        Variant("learned", "Ψ = features of a gaze CNN", learned),
    )


def sweep_seeds(run: RunFolder) -> tuple[int, ...]:
    """Seeds of a sweep's points: fewer than the run's where computing is dear."""
    return run.ablation_seeds[: SWEEP_SEEDS.get(run.config.profile)]


def budget(config: Config) -> Config:
    """The configuration at the ablations' budget: fewer steps and, where computing is dear, a narrower gaze CNN."""
    steps = stops.spaced(config, config.stops)[config.ablation_stop - 1]
    fewer = {"training.steps": steps, "gaze.steps": max(2, round(GAZE_SHARE * config.gaze.steps))}
    return with_overrides(config, fewer | {"gaze.width": GAZE_WIDTH.get(config.profile, config.gaze.width)})


def refined_count(config: Config, synthetic: Store) -> int:
    """How many renders each variant refines for its gaze CNN."""
    return max(2, min(len(synthetic), round(SHARE * config.data.synthetic_images)))


def configured(run: RunFolder, variant: Variant) -> Config:
    """The configuration of a variant at the ablations' budget."""
    return with_overrides(budget(run.config), variant.overrides)


@dataclass(frozen=True)
class Job:
    """One training with all that follows. `config` None: a gaze CNN on raw renders. `test` None: no gaze CNN.

    `own`: the run whose own training this is, ended early.
    """

    folder: Path
    seed: int
    gaze: Config
    config: Config | None
    synthetic: Path
    real: Path
    count: int
    test: Path | None
    own: RunFolder | None = None


@dataclass(frozen=True)
class Ablation:
    """Finished variants: `folders[name]` holds one folder per seed; `truth` [N, 2] is the test images' gaze."""

    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    folders: Mapping[str, tuple[Path, ...]]
    truth: Floats
    synthetic: Store
    count: int
    groups: NDArray[Any] | None = None

    def title(self, name: str) -> str:
        """What tables and figures call a variant."""
        return next((variant.title for variant in self.variants if variant.name == name), "raw renders")

    def errors_deg(self, name: str) -> Floats:
        """Angular errors on the test images of a variant, or of `raw`, in degrees [S, N]."""
        predicted = np.stack([_load(folder / "gaze.npz") for folder in self.folders[name]])
        truth = np.broadcast_to(self.truth, predicted.shape)
        return np.asarray(angular_error_deg(predicted, np.ascontiguousarray(truth)), dtype=np.float32)

    def mean_error_deg(self, name: str) -> Estimate:
        """Mean angular error with its 95 % interval over seeds and images."""
        return two_level_bootstrap(self.errors_deg(name), groups=self.groups, bounds=NOT_NEGATIVE)

    def difference_deg(self, worse: str, better: str) -> Estimate:
        """By how many degrees the error of `worse` exceeds that of `better`; seeds and images paired."""
        return two_level_bootstrap(self.errors_deg(worse) - self.errors_deg(better), groups=self.groups)

    def renders(self) -> Images:
        """The raw renders [M, C, H, W] whose refined versions `refined` returns."""
        return self.synthetic.images(slice(0, self.count))

    def refined(self, name: str) -> list[Images]:
        """Refined renders [M, C, H, W], one array per seed."""
        return [np.load(folder / "refined.npy", mmap_mode="c") for folder in self.folders[name]]

    def refiners(self, name: str) -> list[Refiner]:
        """The trained refiners, one per seed."""
        return [load_refiner(folder) for folder in self.folders[name]]

    def logs(self, name: str) -> list[pd.DataFrame]:
        """Metrics of the adversarial phase, one frame per seed."""
        frames = [pd.DataFrame(read_metrics(folder)) for folder in self.folders[name]]
        return [frame[frame.phase == "adversarial"] for frame in frames]

    def samples(self, name: str, place: int = 0) -> tuple[list[int], Images, Images]:
        """Iterations [T], the sample renders [n, H, W] and what R made of them then [T, n, H, W], of one seed."""
        return read_samples(self.folders[name][place], self.synthetic.size[1])


def train_variants(
    run: RunFolder,
    variants: Sequence[Variant],
    *,
    seeds: Sequence[int] | None = None,
    raw: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> Ablation:
    """Train and test every variant with every seed (default: `run.ablation_seeds`), reading what is there already.

    `raw` adds the gaze CNN on raw renders under the name 'raw'.
    """
    seeds = tuple(run.ablation_seeds if seeds is None else seeds)
    stores = {name: run.stores / name for name in ("synthetic", "real", "test")}
    wanted: dict[str, Config | None] = {RAW: None} if raw else {}
    wanted |= {variant.name: configured(run, variant) for variant in variants}
    jobs = {(name, seed): _job(run, config, seed, **stores) for name, config in wanted.items() for seed in seeds}
    side_by_side(
        do_job, unique(list(jobs.values())), title="variants: train, refine, test", workers=workers, progress=progress
    )
    folders = {name: tuple(jobs[name, seed].folder for seed in seeds) for name in wanted}
    synthetic, test = Store.open(stores["synthetic"]), Store.open(stores["test"])
    truth, count = test.pitch_yaw().copy(), refined_count(run.config, synthetic)
    return Ablation(tuple(variants), seeds, folders, truth, synthetic, count, groups_of(test))


def feature_net(run: RunFolder, seed: int = 0) -> Path:
    """Weights of the gaze CNN on raw renders, trained first where there is none: the features of a learned psi."""
    found = train_variants(run, (), seeds=(seed,), workers=1)
    return found.folders[RAW][0] / "gaze_cnn.safetensors"


def unique(jobs: Sequence[Job]) -> list[Job]:
    """Each folder's work once, in order."""
    return list({job.folder: job for job in jobs}.values())


def _job(run: RunFolder, config: Config | None, seed: int, *, synthetic: Path, real: Path, test: Path | None) -> Job:
    opened = Store.open(synthetic)
    key = RAW if config is None else settings_key(opened, Store.open(real), config)
    folder = run.path / "ablations" / key / f"seed-{seed}"
    count = refined_count(run.config, opened)
    own = run if config == budget(run.config) else None
    return Job(folder, seed, budget(run.config), config, synthetic, real, count, test, own)


def settings_key(synthetic: Store, real: Store, config: Config) -> str:
    """Name of a training's folder: equal for equal settings and images, whatever the variant is called."""
    inputs = stages.training_inputs(synthetic, real, config)
    if config.loss.psi == "learned":
        inputs["feature_net"] = sha256(Path(config.loss.feature_net))
        del inputs["settings"]["loss"]["feature_net"]  # where it lies does not matter
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def do_job(job: Job) -> None:
    """Train, refine and test, as far as it is not done; a second process that wants the same waits for the first."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(job.folder.with_suffix(".lock")):
        synthetic = Store.open(job.synthetic)
        images = synthetic.images(slice(0, job.count))
        if job.config is not None:
            images = _refined(job, job.config, synthetic, Store.open(job.real), images)
        if job.test is not None:
            _predicted(job, images, synthetic.pitch_yaw()[: job.count], Store.open(job.test))


def _refined(job: Job, config: Config, synthetic: Store, real: Store, images: Images) -> Images:
    if job.own is not None:
        stages.train_refiner(job.own, job.seed, progress=False)
        stops.as_if_ended(stages.training_of(job.own, job.seed), config.training.steps, job.folder)
    else:
        stages.trained(synthetic, real, job.folder, config, job.seed, progress=False)
    path, code = job.folder / "refined.npy", code_fingerprint(PACKAGE / "refine.py")
    made_with = {"code": code, "weights": sha256(job.folder / REFINER), "count": job.count}
    if not _is_made(path, made_with):
        partial = path.with_suffix(".partial.npy")
        np.save(partial, refine_images(load_refiner(job.folder).to(resolve_device("auto")), images))
        os.replace(partial, path)
        _note(path, made_with)
    return np.asarray(np.load(path, mmap_mode="c"))


def _predicted(job: Job, images: Images, labels: Floats, test: Store) -> None:
    """Train a gaze CNN on `images` and keep its answers for the test images; of raw renders, its weights too."""
    path, weights = job.folder / "gaze.npz", job.folder / "gaze_cnn.safetensors"
    made_with = {
        "code": code_fingerprint(PACKAGE / "gaze_estimator.py"),
        "images": hashlib.sha256(images.tobytes()).hexdigest(),
        "labels": hashlib.sha256(labels.tobytes()).hexdigest(),
        "gaze": dataclasses.asdict(job.gaze.gaze),
        "test": test.checksum,
    }
    if _is_made(path, made_with) and (job.config is not None or weights.is_file()):
        return
    model = train_gaze_cnn(images, labels, job.gaze.gaze, seed=job.seed, progress=False)
    if job.config is None:
        save_gaze_cnn(model, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, predicted=predict(model, test.images()))
    os.replace(partial, path)
    _note(path, made_with)


def _stamp(path: Path) -> Path:
    return path.with_name(f"{path.name}.{stages.MADE_WITH}")


def _is_made(path: Path, made_with: Mapping[str, Any]) -> bool:
    return path.is_file() and _stamp(path).is_file() and read_json(_stamp(path)) == made_with


def _note(path: Path, made_with: Mapping[str, Any]) -> None:
    write_json(_stamp(path), made_with)


def _load(path: Path) -> Floats:
    with np.load(path) as saved:
        return np.asarray(saved["predicted"], dtype=np.float32)


def read_samples(training: Path, width: int) -> tuple[list[int], Images, Images]:
    """The strips that a training left: iterations [T], renders [n, H, W(, 3)], refined ones [T, n, H, W(, 3)]."""
    from PIL import Image

    files = sorted((training / SAMPLES).glob("*.png"))
    if not files:
        raise FileNotFoundError(f"{training} holds no {SAMPLES}/*.png; expected a finished training. Train it again.")
    strips = [np.array(Image.open(file)) for file in files]
    rows = [np.split(strip, 3, axis=0) for strip in strips]
    parts = [[np.stack(np.split(row, row.shape[1] // width, axis=1)) for row in three[:2]] for three in rows]
    return [int(file.stem) for file in files], parts[0][0], np.stack([refined for _, refined in parts])
