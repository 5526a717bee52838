"""What a training checks before it starts and carries along: fitting images, resumable folders, windows of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from simgan_core import losses
from simgan_core.checkpoints import CHECKPOINT
from simgan_core.config import Config, LossConfig, from_json, patch_grid, to_dict
from simgan_core.datasets.store import Store
from simgan_core.images import to_float

PHASES = ("pretrain_refiner", "pretrain_discriminator", "adversarial")
CHANGEABLE = {"training.steps", "training.log_every", "training.sample_every", "training.checkpoint_every"}
CHANGEABLE |= {"training.device", "training.precision"}
"""Settings that a resumed run may change; the sections `data` and `gaze` do not concern it."""


def check_stores(config: Config, synthetic: Store, real: Store) -> None:
    """Raise `ValueError` unless both stores hold images of the configured size and channels."""
    for name, store in (("synthetic", synthetic), ("real", real)):
        found, expected = (store.size, store.channels), (config.data.size, config.data.channels)
        if found != expected:
            raise ValueError(
                f"the {name} images ({store.path}) have size {found[0]} and {found[1]} channel(s); expected "
                f"{expected[0]} and {expected[1]}. Prepare them again, or override data.size and the channels."
            )
        if len(store) < 2:
            raise ValueError(f"the {name} store ({store.path}) holds {len(store)} image(s); expected many.")


def check_folder(out: Path, config: Config, *, resume: bool) -> None:
    """Raise `ValueError` if `out` already holds a run that this one may not continue."""
    if not (out / "config.json").is_file():
        return
    if not resume:
        raise ValueError(f"{out} already holds a run; resume it, or name another folder.")
    if not (out / CHECKPOINT).is_file():
        return
    saved, asked = (_flat(c) for c in (from_json((out / "config.json").read_text()), config))
    differing = [k for k in asked if saved[k] != asked[k] and k not in CHANGEABLE]
    listed = ", ".join(f"{k} {saved[k]} -> {asked[k]}" for k in differing)
    if differing:
        raise ValueError(f"{out} holds a run with other settings ({listed}); resume with those, or use a new folder.")


def _flat(config: Config) -> dict[str, object]:
    sections = ("refiner", "discriminator", "loss", "training")
    tree = to_dict(config)
    return {f"{section}.{key}": value for section in sections for key, value in tree[section].items()}


def check_state(state: Mapping[str, Any], seed: int, stores: Mapping[str, Store], processes: int) -> None:
    """Raise `ValueError` if a checkpoint belongs to another seed, other images or another number of processes."""
    expected = {"seed": seed, "processes": processes} | {k: s.checksum for k, s in stores.items()}
    found = {"seed": state["seed"], "processes": len(state["processes"])} | state["stores"]
    for name, value in expected.items():
        if found[name] != value:
            what = f"{name} {found[name]}" if name in ("seed", "processes") else f"other {name} images"
            raise ValueError(f"the checkpoint was made with {what}; resume with the same, or use a new folder.")


def check_not_beyond(out: Path, iteration: int, end: int) -> None:
    """Raise `ValueError` if a checkpoint has more steps than are asked for: its weights are not those of the end."""
    if iteration > end:
        raise ValueError(
            f"the checkpoint in {out} has {iteration} steps, pretraining included; {end} asked for. Raise "
            "training.steps, or name a new folder."
        )


def check_finite(found: Mapping[str, float], phase: str, step: int, error: type[Exception]) -> None:
    """Raise `error` with step and components unless all numbers are finite."""
    if not all(map(math.isfinite, found.values())):
        components = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        raise error(
            f"a loss is not finite at step {step} of phase {phase}: {components}. "
            "Lower training.learning_rate in a new folder, or resume with training.precision=fp32 from the last save."
        )


def build_psi(loss: LossConfig, device: torch.device) -> losses.Psi:
    """The feature space of the self-regularisation."""
    if loss.psi == "learned":
        from simgan_core.gaze_estimator import load_gaze_cnn  # it trains with this package's own tools

        network = load_gaze_cnn(Path(loss.feature_net)).to(device)
        return losses.learned(network.early_features)
    return {
        "identity": losses.identity,
        "channel_mean": losses.channel_mean,
        "derivatives": losses.derivatives,
    }[loss.psi]


def patches(size: tuple[int, int]) -> int:
    """Patches of the local discriminator for images of `size`."""
    rows, columns = patch_grid(size)
    return rows * columns


def first_images(store: Store, count: int, device: torch.device) -> Tensor:
    """The first images of a store, float [-1, 1]."""
    return to_float(torch.from_numpy(store.images(slice(0, min(count, len(store)))).copy())).to(device)


def gather(fabric: Fabric, state: dict[str, Any]) -> list[dict[str, Any]]:
    """Every process's own state, in order of rank, on all processes."""
    if fabric.world_size == 1:
        return [state]
    states: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(states, state)
    return states


class MetricWindow:
    """Means of metrics since the last log line."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Take one step's values; a metric may be absent from some steps."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean of each metric; starts a new window."""
        found = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found

    def state_dict(self) -> dict[str, Any]:
        """The unfinished window."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the window of `state_dict`."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
