"""Cameras in files: what `simgan fit --camera-out` writes and `simgan simulate eyes --camera` reads.

Unlike ranges, a camera's file holds every setting: the defaults of `CameraModel` are a poor webcam's on purpose, and a
setting that is left out must not bring them in unseen.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from simgan_core.config_tree import build
from simgan_core.provenance import read_json, write_json
from simgan_core.simulators.sensor import CameraModel

LEAST = {"defocus_px": 0.01, "motion_px": 0.0, "read_noise": 0.0, "gamma": 0.01, "gradient": 0.0, "vignette": 0.0}
"""Below these a camera is no camera: a blur of none has no kernel. px, and numbers without a unit."""


def save_camera(camera: CameraModel, path: Path) -> None:
    """Write every setting of `camera` as JSON."""
    write_json(path, vars(camera))


def load_camera(path: Path) -> CameraModel:
    """Read what `save_camera` wrote; unknown, missing and impossible settings raise ValueError."""
    return parse_camera(read_json(path), str(path))


def parse_camera(tree: Any, where: str) -> CameraModel:
    """A camera from plain JSON; raises ValueError, naming `where`, for what `save_camera` does not write."""
    try:
        camera = cast(CameraModel, build(CameraModel, tree, f"{where}: "))
    except ValueError as error:
        text = str(error)
        raise ValueError(text if where in text else f"{where}: {text}") from None
    missing = [field.name for field in fields(CameraModel) if field.name not in tree]
    if missing:
        raise ValueError(
            f"{where}: no {', '.join(missing)} found; all of CameraModel's settings expected, as 'simgan fit "
            "--camera-out' writes them"
        )
    for name, least in LEAST.items():
        low, high = getattr(camera, name)
        if low < least:
            raise ValueError(f"{where}: {name} is [{low:g}, {high:g}]; numbers of at least {least:g} expected")
    return camera
