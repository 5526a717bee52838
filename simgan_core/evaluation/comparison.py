"""The gaze comparison (section 3.1, table 3): one gaze CNN per kind of training data, all tested on the same images.

An *arm* is a kind of training data: raw renders, refined renders, and so on. Every arm trains the same network with
the same settings and seed; only its images differ. Beside them stand the shallow estimators of table 3 on raw renders.
No arm but `oracle` sees a label of the target domain, and no setting is chosen by any of these numbers.

*Main* arms are trained with every seed of the run. *Side* arms answer a question beside the claims; where computing is
dear (`SIDE_SEEDS`) they have the first seed alone, and then their interval is over images only.

Two CNNs that learnt from equal images differ by about as much as refining gains. The two arms of the claims therefore
train `CNNS_OF_A_SEED` of them for each seed, whose errors (not answers) are averaged before seeds are compared: the
mean stays what it was, and its interval tells of refiners more than of the estimator's luck. A *committee* averages the
answers of all CNNs of an arm instead, as one would who wants the best estimator and not the paper's single network; it
trains nothing. There is one of it, so that its interval is over images alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.config import Config
from simgan_core.datasets.store import Store
from simgan_core.evaluation.baselines import BASELINES, fit_and_predict
from simgan_core.evaluation.dependence import groups_of
from simgan_core.evaluation.kept import cached
from simgan_core.evaluation.matching import FDA_BETA, Match, matched
from simgan_core.evaluation.statistics import NOT_NEGATIVE, Estimate, percentage, two_level_bootstrap
from simgan_core.gaze import angular_error_deg, gaze_vector, pitch_yaw
from simgan_core.gaze_estimator import GazeCNN, load_gaze_cnn, predict, save_gaze_cnn, train_gaze_cnn
from simgan_core.provenance import PACKAGE, code_fingerprint
from simgan_core.workers import side_by_side

Floats = NDArray[np.float32]

WITHIN_DEG = 7.0
"""The paper's threshold for 'right' (table 2)."""

SIDE_SEEDS: Mapping[str, int] = {"smoke": 1, "cpu": 1}
"""Seeds of a side arm by profile; all of them in the others."""

CODE = ("gaze_estimator.py", "evaluation/baselines.py", "evaluation/matching.py")
"""Modules that decide predictions, with all that they import: an edit makes kept predictions out of date."""

CNNS_OF_A_SEED: Mapping[str, int] = {"smoke": 2, "cpu": 2}
"""Gaze CNNs of each seed in an arm of a claim, by profile; one in the others."""
NEXT_CNN = 1_000
"""Added to the seed for each further CNN of a seed."""

QUARTER = 4
"""'1x' of table 2 is every fourth render of the store, and '4x' the whole store: as many updates, fewer images."""


@dataclass(frozen=True)
class Arm:
    """One kind of training data, or one shallow estimator on raw renders.

    Attributes:
        name: as in `metrics.json`.
        title: what tables show.
        augment: vary light, blur, noise and framing of the training images.
        every: train on every so-manieth image only.
        match: match the renders to the unlabelled real images first.
        side: a side arm, with fewer seeds where computing is dear.
        several_cnns: train `CNNS_OF_A_SEED` for each seed, as the arms of claims do.
        committee_of: the arm whose CNNs, of all seeds, answer together here, by the mean of their unit vectors.

    """

    name: str
    title: str
    augment: bool = False
    every: int = 1
    match: Match | None = None
    side: bool = False
    several_cnns: bool = False
    committee_of: str = ""


ARMS: tuple[Arm, ...] = (
    Arm("constant", "Constant: mean of the synthetic labels"),
    Arm("raw", "CNN on raw renders", several_cnns=True),
    Arm("raw_augmented", "CNN on raw renders + augmentation", augment=True),
    Arm("refined", "CNN on refined renders", several_cnns=True),
    Arm("refined_augmented", "CNN on refined renders + augmentation", augment=True),
    Arm("raw_committee", "Committee of all CNNs on raw renders", committee_of="raw"),
    Arm("raw_augmented_committee", "Committee of all CNNs on raw renders + augmentation", committee_of="raw_augmented"),
    Arm("refined_committee", "Committee of all CNNs on refined renders", committee_of="refined"),
    Arm(
        "refined_augmented_committee",
        "Committee of all CNNs on refined renders + augmentation",
        committee_of="refined_augmented",
    ),
    Arm("oracle", "Oracle: CNN on labelled images of the target", side=True),
    Arm("raw_1x", "CNN on a quarter of the raw renders", every=QUARTER, side=True),
    Arm("refined_1x", "CNN on a quarter of the refined renders", every=QUARTER, side=True),
    Arm("histogram", "CNN on renders with histograms of target images", match="histogram", side=True),
    Arm("fourier", "CNN on renders with low Fourier amplitudes of target images", match="fourier", side=True),
    *(Arm(name, baseline.title, side=True) for name, baseline in BASELINES.items()),
)
MAIN = ("constant", "raw", "raw_augmented", "refined", "refined_augmented", "oracle")
"""The arms that figures of the comparison show; tables show all."""
COMMITTEE_ARMS = frozenset(arm.name for arm in ARMS if arm.committee_of)
TITLES: Mapping[str, str] = {arm.name: arm.title for arm in ARMS}


@dataclass(frozen=True)
class TrainingData:
    """The stores that the arms train on and are tested on; `refined` and `oracle` may be absent.

    Attributes:
        synthetic: labelled raw renders.
        test: labelled target images that nothing else has seen.
        refined: per seed, the same renders after that seed's refiner.
        oracle: labelled target images, for the upper bound alone.
        real: unlabelled target images, for the arms that match renders to them.

    An arm whose images are not given is left out, but for the refined ones, which must be there.
    """

    synthetic: Path
    test: Path
    refined: Mapping[int, Path]
    oracle: Path | None = None
    real: Path | None = None

    def serves(self, arm: Arm) -> bool:
        """Whether the images that `arm` needs are given."""
        if arm.name == "oracle":
            return self.oracle is not None
        return arm.match is None or self.real is not None


@dataclass(frozen=True)
class Comparison:
    """Predictions of every arm: `predicted[arm]` is float32 [rows, N, 2], pitch and yaw in radians; truth [N, 2].

    A row is a CNN: one for each seed or, where `cnns[arm]` says more, so many for each, those of a seed side by side.
    A side arm may have fewer seeds than `seeds`, the first of them; differences take the seeds that both arms have.
    A committee has one row, of all seeds.
    """

    truth: Floats
    predicted: Mapping[str, Floats]
    seeds: tuple[int, ...]
    groups: NDArray[Any] | None = None
    cnns: Mapping[str, int] = field(default_factory=dict)

    def only(self, arms: Iterable[str]) -> Comparison:
        """The same comparison with these arms alone, in this order; those that were not trained are left out."""
        return dataclasses.replace(self, predicted={arm: self.predicted[arm] for arm in arms if arm in self.predicted})

    def errors_deg(self, arm: str) -> Floats:
        """Angular errors in degrees of every CNN, [rows, N]."""
        predicted = torch.from_numpy(self.predicted[arm])
        truth = torch.from_numpy(self.truth).expand_as(predicted)
        return angular_error_deg(predicted, truth).numpy().astype(np.float32)

    def seeds_of(self, arm: str) -> int:
        """How many seeds an arm has."""
        return len(self.predicted[arm]) // self.cnns.get(arm, 1)

    def of_seeds(self, arm: str, values: Floats) -> Floats:
        """Means [seeds, N] over the CNNs of each seed, of `values` [rows, N] of an arm."""
        means = values.reshape(self.seeds_of(arm), -1, values.shape[1]).mean(axis=1)
        return np.asarray(means, dtype=np.float32)

    def of_first_seeds(self, arms: Iterable[str], count: int) -> Comparison:
        """The same comparison with these arms alone, over their first `count` seeds."""
        rows = {arm: self.predicted[arm][: count * self.cnns.get(arm, 1)] for arm in arms}
        return dataclasses.replace(self, predicted=rows)

    def seed_errors_deg(self, arm: str) -> Floats:
        """Angular errors in degrees, mean over the CNNs of each seed, [seeds, N]."""
        return self.of_seeds(arm, self.errors_deg(arm))

    def mean_error_deg(self, arm: str) -> Estimate:
        """Mean angular error with its 95 % interval over seeds and images."""
        return two_level_bootstrap(self.seed_errors_deg(arm), groups=self.groups, bounds=NOT_NEGATIVE)

    def within_7_deg(self, arm: str) -> Estimate:
        """Percentage of images within 7 degrees, with its 95 % interval over seeds and images."""
        return percentage(self._within(arm), groups=self.groups)

    def reduction_percent(self, arm: str, baseline: str) -> Estimate:
        """How much lower the mean error of `arm` is, in percent of that of `baseline`; seeds and images are paired."""
        pair = np.stack(_shared(self.seed_errors_deg(baseline), self.seed_errors_deg(arm)))
        return two_level_bootstrap(np.moveaxis(pair, 0, -1), statistic=_reduction_percent, groups=self.groups)

    def gain_points(self, arm: str, baseline: str) -> Estimate:
        """Percentage points of images within 7 degrees that `arm` gains over `baseline`; seeds and images paired."""
        ours, theirs = _shared(self._within(arm), self._within(baseline))
        return two_level_bootstrap(ours - theirs, groups=self.groups)

    def _within(self, arm: str) -> Floats:
        """Percentage of each seed's CNNs whose error of an image is within 7 degrees, [seeds, N]."""
        return self.of_seeds(arm, _percent_within(self.errors_deg(arm)))


def _shared(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Values [seeds, N] of two arms with the seeds that both have."""
    count = min(len(one), len(other))
    return one[:count], other[:count]


def _percent_within(errors_deg: Floats) -> Floats:
    return (100.0 * (errors_deg <= WITHIN_DEG)).astype(np.float32)


def _reduction_percent(pair: NDArray[np.floating]) -> float:
    baseline, ours = pair.reshape(-1, 2).mean(axis=0)
    return float(100.0 * (baseline - ours) / baseline)


def compare_arms(
    data: TrainingData,
    config: Config,
    out: Path,
    *,
    seeds: Sequence[int],
    arms: Sequence[Arm] = ARMS,
    workers: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Train and test every arm with every seed, reading what an earlier call with equal settings left in `out`.

    `workers` trainings run side by side, one thread each: that uses cores better than many threads on one small
    network. Default: the threads torch may use; 1 where there is a GPU.

    Raises:
        FileNotFoundError: if a store that an arm needs is missing.

    """
    committees = [arm for arm in arms if arm.committee_of]
    arms = [arm for arm in arms if not arm.committee_of and data.serves(arm)]
    out.mkdir(parents=True, exist_ok=True)
    cnns = {arm.name: CNNS_OF_A_SEED.get(config.profile, 1) if arm.several_cnns else 1 for arm in arms}
    runs = [(arm, seed, cnn) for arm in arms for seed in seeds_of(arm, seeds, config) for cnn in range(cnns[arm.name])]
    tasks = [
        (arm, seed + NEXT_CNN * cnn, _training_store(arm, seed, data), data, config, _place(out, arm, seed, cnn))
        for arm, seed, cnn in runs
    ]
    answers = side_by_side(_predict_arm, tasks, title="gaze estimators", workers=workers, progress=progress)
    found: dict[str, list[Floats]] = {}
    for (arm, *_), predictions in zip(runs, answers, strict=True):
        found.setdefault(arm.name, []).append(predictions)
    predicted = {name: np.stack(of_seeds) for name, of_seeds in found.items()}
    predicted |= {
        arm.name: committee(predicted[arm.committee_of])[None]
        for arm in committees
        if len(predicted.get(arm.committee_of, ())) > 1
    }
    test = Store.open(data.test)
    return Comparison(test.pitch_yaw().copy(), predicted, tuple(seeds), groups_of(test), cnns)


def committee(predicted: Floats) -> Floats:
    """Answers [CNNs, N, 2] -> their mean directions [N, 2]."""
    return np.asarray(pitch_yaw(gaze_vector(predicted.astype(np.float64)).mean(axis=0)), np.float32)


def _place(out: Path, arm: Arm, seed: int, cnn: int) -> Path:
    return out / (f"{arm.name}-seed{seed}" + (f"-cnn{cnn}" if cnn else "") + ".npz")


def seeds_of(arm: Arm, seeds: Sequence[int], config: Config) -> Sequence[int]:
    """The seeds that an arm is trained with: all, or the first few for side arms."""
    return seeds[: SIDE_SEEDS.get(config.profile, len(seeds))] if arm.side else seeds


def raw_estimator(out: Path, seed: int) -> GazeCNN:
    """The gaze CNN of the arm `raw` that `compare_arms` left in `out`: it has seen renders and nothing else."""
    return load_gaze_cnn(out / f"raw-seed{seed}.safetensors")


Task = tuple[Arm, int, Path, TrainingData, Config, Path]


def _predict_arm(task: Task) -> Floats:
    arm, seed, training_path, data, config, path = task
    training, test = Store.open(training_path), Store.open(data.test)
    if arm.name == "constant":
        return _constant(training, len(test))
    real = Store.open(data.real) if arm.match is not None and data.real is not None else None
    key = _key(arm, seed, config, training, test, real)
    if arm.name in BASELINES:
        return cached(path, key, lambda: fit_and_predict(arm.name, training, test, seed=seed))
    if arm.name == "raw" and not path.with_suffix(".safetensors").is_file():
        path.unlink(missing_ok=True)  # its weights are needed too
    return cached(path, key, lambda: _train_and_predict(arm, seed, config, training, test, real, path))


def _training_store(arm: Arm, seed: int, data: TrainingData) -> Path:
    if arm.name.startswith("refined"):
        if seed not in data.refined:
            raise FileNotFoundError(
                f"no refined images for seed {seed}; found seeds {sorted(data.refined)}. Run 02_training with it."
            )
        return data.refined[seed]
    if arm.name == "oracle":
        assert data.oracle is not None
        return data.oracle
    return data.synthetic


def _constant(training: Store, count: int) -> Floats:
    mean = training.pitch_yaw().mean(axis=0, keepdims=True)
    return np.repeat(mean, count, axis=0).astype(np.float32)


def _train_and_predict(
    arm: Arm, seed: int, config: Config, training: Store, test: Store, real: Store | None, path: Path
) -> Floats:
    rows = slice(None, None, arm.every)
    images, labels = training.images(rows), training.pitch_yaw()[rows]
    if arm.match is not None and real is not None:
        images = matched(images, real.images(), arm.match, seed=seed)
    model = train_gaze_cnn(images, labels, config.gaze, seed=seed, augment=arm.augment, progress=False)
    if arm.name == "raw":
        save_gaze_cnn(model, path.with_suffix(".safetensors"))
    return predict(model, test.images())


def _key(arm: Arm, seed: int, config: Config, training: Store, test: Store, real: Store | None) -> str:
    """What decides an arm's predictions, the code that makes them included; its title and number of seeds do not."""
    how: dict[str, object] = {"name": arm.name, "augment": arm.augment, "every": arm.every, "match": arm.match}
    how["code"] = [code_fingerprint(PACKAGE / name) for name in CODE]
    if arm.name in BASELINES:
        how["settings"] = repr(BASELINES[arm.name])
    if arm.match is not None and real is not None:
        how |= {"real": real.checksum, "beta": FDA_BETA}
    parts = [how, seed, dataclasses.asdict(config.gaze), training.checksum, test.checksum]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
