"""The gaze comparison (section 3.1, table 3): one gaze CNN per kind of training data, all tested on the same images.

An *arm* is a kind of training data: raw renders, refined renders, and so on. Every arm trains the same network with
the same settings and seed; only its images differ. No arm but `oracle` sees a label of the target domain, and no
setting is chosen by any of these numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from simgan_core.config import Config
from simgan_core.datasets.store import Store
from simgan_core.evaluation.statistics import Estimate, two_level_bootstrap
from simgan_core.gaze import angular_error_deg
from simgan_core.gaze_estimator import predict, train_gaze_cnn

Floats = NDArray[np.float32]

WITHIN_DEG = 7.0
"""The paper's threshold for 'right' (table 2)."""


@dataclass(frozen=True)
class Arm:
    """One kind of training data. `title` is what tables show."""

    name: str
    title: str
    augment: bool = False


ARMS: tuple[Arm, ...] = (
    Arm("constant", "Constant: mean of the synthetic labels"),
    Arm("raw", "CNN on raw renders"),
    Arm("raw_augmented", "CNN on raw renders + augmentation", augment=True),
    Arm("refined", "CNN on refined renders"),
    Arm("refined_augmented", "CNN on refined renders + augmentation", augment=True),
    Arm("oracle", "Oracle: CNN on labelled images of the target"),
)
TITLES: Mapping[str, str] = {arm.name: arm.title for arm in ARMS}


@dataclass(frozen=True)
class TrainingData:
    """The stores that the arms train on and are tested on; `refined` and `oracle` may be absent.

    Attributes:
        synthetic: labelled raw renders.
        test: labelled target images that nothing else has seen.
        refined: per seed, the same renders after that seed's refiner.
        oracle: labelled target images, for the upper bound alone.

    """

    synthetic: Path
    test: Path
    refined: Mapping[int, Path]
    oracle: Path | None = None


@dataclass(frozen=True)
class Comparison:
    """Predictions of every arm: `predicted[arm]` is float32 [seeds, N, 2], pitch and yaw in radians; truth [N, 2]."""

    truth: Floats
    predicted: Mapping[str, Floats]
    seeds: tuple[int, ...]

    def errors_deg(self, arm: str) -> Floats:
        """Angular errors in degrees, [seeds, N]."""
        predicted = torch.from_numpy(self.predicted[arm])
        truth = torch.from_numpy(self.truth).expand_as(predicted)
        return angular_error_deg(predicted, truth).numpy().astype(np.float32)

    def mean_error_deg(self, arm: str) -> Estimate:
        """Mean angular error with its 95 % interval over seeds and images."""
        return two_level_bootstrap(self.errors_deg(arm))

    def within_7_deg(self, arm: str) -> Estimate:
        """Percentage of images within 7 degrees, with its 95 % interval over seeds and images."""
        return two_level_bootstrap(_percent_within(self.errors_deg(arm)))

    def reduction_percent(self, arm: str, baseline: str) -> Estimate:
        """How much lower the mean error of `arm` is, in percent of that of `baseline`; seeds and images are paired."""
        pair = np.stack([self.errors_deg(baseline), self.errors_deg(arm)])
        return two_level_bootstrap(np.moveaxis(pair, 0, -1), statistic=_reduction_percent)

    def gain_points(self, arm: str, baseline: str) -> Estimate:
        """Percentage points of images within 7 degrees that `arm` gains over `baseline`; seeds and images paired."""
        return two_level_bootstrap(_percent_within(self.errors_deg(arm)) - _percent_within(self.errors_deg(baseline)))


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
    arms = [arm for arm in arms if arm.name != "oracle" or data.oracle is not None]
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(arm, seed, _training_store(arm, seed, data), data.test, config, out) for arm in arms for seed in seeds]
    workers = (1 if torch.cuda.is_available() else torch.get_num_threads()) if workers is None else workers
    bar = tqdm(total=len(tasks), desc="gaze CNNs", unit="training", disable=not progress)
    with bar, _pool(min(workers, len(tasks))) as pool:
        found = []
        for predictions in pool(_predict_arm, tasks):
            found.append(predictions)
            bar.update()
    predicted = {arm.name: np.stack(found[i * len(seeds) : (i + 1) * len(seeds)]) for i, arm in enumerate(arms)}
    return Comparison(Store.open(data.test).pitch_yaw().copy(), predicted, tuple(seeds))


Task = tuple[Arm, int, Path, Path, Config, Path]
Map = Callable[[Callable[[Task], Floats], Sequence[Task]], Iterable[Floats]]


@contextmanager
def _pool(workers: int) -> Iterator[Map]:
    """`map` over tasks, in this process or in several; results come in order."""
    if workers <= 1:
        yield map
        return
    # Spawned, as forking a process whose torch has run threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        yield executor.map


def _predict_arm(task: Task) -> Floats:
    arm, seed, training_path, test_path, config, out = task
    training, test = Store.open(training_path), Store.open(test_path)
    if arm.name == "constant":
        return _constant(training, len(test))
    key = _key(arm, seed, config, training, test)
    return _cached(
        out / f"{arm.name}-seed{seed}.npz", key, lambda: _train_and_predict(arm, seed, config, training, test)
    )


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


def _train_and_predict(arm: Arm, seed: int, config: Config, training: Store, test: Store) -> Floats:
    model = train_gaze_cnn(
        training.images(), training.pitch_yaw(), config.gaze, seed=seed, augment=arm.augment, progress=False
    )
    return predict(model, test.images())


def _key(arm: Arm, seed: int, config: Config, training: Store, test: Store) -> str:
    parts = [dataclasses.asdict(arm), seed, dataclasses.asdict(config.gaze), training.checksum, test.checksum]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _cached(path: Path, key: str, compute: Callable[[], Floats]) -> Floats:
    if path.exists():
        with np.load(path) as saved:
            if str(saved["key"]) == key:
                return np.asarray(saved["predicted"], dtype=np.float32)
    predicted = compute()
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, predicted=predicted, key=np.array(key))
    os.replace(partial, path)
    return predicted
