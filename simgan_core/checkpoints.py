"""Weights and training state on disk: safetensors for networks, one atomic file for everything a resumed run needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from simgan_core.config import Config, from_json, to_json
from simgan_core.models import Refiner, to_channels_last

CHECKPOINT, REFINER = "checkpoint.pt", "refiner.safetensors"
HANDS = "hand"
"""Profile in the configuration of hand refiners (`config_hand`), whose network is another."""


def save_weights(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a network's weights and text metadata atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, temporary, metadata)
    temporary.replace(path)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and metadata of a file that `save_weights` wrote with `metadata['kind'] == kind`; `ValueError` else."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}; expected the file with the weights of a {kind}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); expected the weights of a {kind}.") from error
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} holds {metadata.get('kind', 'weights of unknown kind')!r}; expected a {kind}.")
    return weights, metadata


def save_refiner(refiner: Refiner, path: Path, config: Config, *, seed: int, step: int) -> None:
    """Write the refiner with its whole configuration, so that the file can be used on its own."""
    save_weights(refiner, path, {"kind": "refiner", "config": to_json(config), "seed": str(seed), "step": str(step)})


def load_refiner(run_or_weights: Path | str) -> Refiner:
    """The refiner of a run folder or of a weights file, of eyes or of hands, on the CPU, ready to refine.

    Raises:
        FileNotFoundError: there is none, with what was looked for.
        ValueError: the file is damaged or holds something else.

    """
    path = Path(run_or_weights)
    if path.is_dir():
        if not (path / REFINER).is_file():
            raise FileNotFoundError(f"{path} holds no {REFINER}; expected a run of `simgan train`, at least begun.")
        path = path / REFINER
    weights, metadata = load_weights(path, "refiner")
    config = from_json(metadata["config"])
    if config.profile == HANDS:
        from simgan_core.hand_models import load_hand_refiner  # it imports this module

        return load_hand_refiner(path)
    with torch.device("meta"):  # no initial weights, as they would draw from torch's global generator
        refiner = Refiner(config.refiner, config.data.size)
    refiner.load_state_dict(weights, assign=True)
    return to_channels_last(refiner).eval().requires_grad_(False)


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a training state (tensors, numbers, text, lists, dictionaries) atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    torch.save(state, temporary)
    temporary.replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state to the CPU; runs no code from the file. A damaged file raises `ValueError`."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for damaged files
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}). "
            "Delete the run folder and train again, or restore the file."
        ) from error
    return state
