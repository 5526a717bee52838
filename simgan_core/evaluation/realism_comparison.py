"""Realism beyond pictures, before and after refining: `realism.py` on raw and on every seed's refined renders.

The real images are the unlabelled ones; the test images take no part. The features of the kernel distance are those
of a gaze CNN that was trained on raw renders alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from simgan_core.config import Config
from simgan_core.datasets.store import Store
from simgan_core.evaluation.fresh_discriminator import STEPS, fresh_discriminator
from simgan_core.evaluation.realism import gaze_feature_kernel_distance, gaze_features, patch_distance
from simgan_core.evaluation.statistics import Estimate
from simgan_core.gaze_estimator import GazeCNN
from simgan_core.provenance import PACKAGE, code_fingerprint, read_json, write_json

LIMIT = 1500
"""Images of each kind at most."""

MEASURES: Mapping[str, str] = {
    "auc": "AUC of a fresh discriminator (0.5: cannot tell)",
    "patch_distance": "energy distance of patch statistics (0: equal)",
    "kernel_distance": "gaze-feature kernel distance (0: equal)",
}
Measured = dict[str, list[Estimate]]


@dataclass(frozen=True)
class RealismComparison:
    """`raw` and `refined` hold, per measure, one estimate for each discriminator's or refiner's seed."""

    raw: Measured
    refined: Measured

    def estimate(self, kind: str, measure: str) -> Estimate:
        """Mean over seeds of 'raw' or 'refined', with the hull of the seeds' intervals: wider than 95 %, never less."""
        return over_seeds((self.raw if kind == "raw" else self.refined)[measure])


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of the values; from the lowest low to the highest high."""
    value = float(np.mean([one.value for one in estimates]))
    low, high = min(one.low for one in estimates), max(one.high for one in estimates)
    return Estimate(value, low, high, len(estimates), estimates[0].n)


def compare_realism(
    synthetic: Store, real: Store, refined: Mapping[int, Store], model: GazeCNN, out: Path, *, steps: int = STEPS,
    progress: bool = True,
) -> RealismComparison:  # fmt: skip
    """Measure raw and refined renders against the real images, reading what an earlier call left in `out`.

    Args:
        synthetic: raw renders.
        real: unlabelled real images.
        refined: per seed, the renders after that seed's refiner; the same seed trains the fresh discriminator.
        model: gaze CNN trained on raw renders.
        out: folder for the results, one file per measured set.
        steps: updates of the fresh discriminator.
        progress: show a bar.

    """
    tasks = [("raw", seed, synthetic) for seed in refined] + [("refined", seed, refined[seed]) for seed in refined]
    target, model_key = _spread(real), _fingerprint(model)
    found: dict[str, Measured] = {kind: {name: [] for name in MEASURES} for kind in ("raw", "refined")}
    for kind, seed, store in tqdm(tasks, desc="realism", unit="set", disable=not progress):
        path = out / f"{kind}-{seed}.json"
        for name, estimate in _measured(path, store, real, target, model, model_key, seed, steps):
            found[kind][name].append(estimate)
    return RealismComparison(found["raw"], found["refined"])


def _measured(
    path: Path, store: Store, real: Store, target: NDArray[np.uint8], model: GazeCNN, model_key: str, seed: int,
    steps: int,
) -> list[tuple[str, Estimate]]:  # fmt: skip
    code = [code_fingerprint(PACKAGE / "evaluation" / f"{name}.py") for name in ("realism", "fresh_discriminator")]
    parts = [store.checksum, real.checksum, model_key, seed, steps, LIMIT, *code]
    key = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
    if path.is_file() and (saved := read_json(path))["key"] == key:
        return [(name, Estimate(**saved[name])) for name in MEASURES]
    images = _spread(store)
    estimates = {
        "auc": fresh_discriminator(images, target, seed=seed, steps=steps).auc,
        "patch_distance": patch_distance(images, target, seed=seed),
        "kernel_distance": gaze_feature_kernel_distance(gaze_features(model, images), gaze_features(model, target)),
    }
    write_json(path, {"key": key} | {name: asdict(estimate) for name, estimate in estimates.items()})
    return list(estimates.items())


def steps_of(config: Config) -> int:
    """Updates of a fresh discriminator: the smoke profile only shows that the code runs."""
    return 8 if config.profile == "smoke" else STEPS


def _fingerprint(model: GazeCNN) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode() + values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _spread(store: Store) -> NDArray[np.uint8]:
    """At most `LIMIT` images, spread over the store: its parts may come from different people."""
    return store.images(store.spread(LIMIT))
