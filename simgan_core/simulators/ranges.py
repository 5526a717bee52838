"""What varies between simulated eyes, and one draw of it: `EyeRanges` and `EyeParameters`.

Angles in the ranges are degrees (names end in `_deg`), in the drawn parameters radians. Lengths are millimetres.
Legend: B images, K shape components, N labels of a gaze prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.config_tree import build
from simgan_core.datasets.npz import read_arrays
from simgan_core.provenance import read_json, write_json
from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.counter_random import normals, uniforms

Range = tuple[float, float]
FALLOFF = ("x", "y", "xx", "yy", "xy")
"""Terms of the light across the frame, in the order of `EyeParameters.falloff`."""
NOT_IN_FILES = frozenset({"gaze_prior", "skins"})


@dataclass(frozen=True)
class EyeRanges:
    """Every range of the simulator. Pairs named `*_normal` are (mean, standard deviation), other pairs (low, high)."""

    # gaze relative to the camera: a uniform box, or labels of a prior [N, 2] (pitch, yaw in radians) with jitter
    gaze_pitch_deg: Range = (-24.0, 6.0)
    gaze_yaw_deg: Range = (-20.0, 20.0)
    gaze_prior: NDArray[np.float32] | None = None
    gaze_jitter_deg: float = 1.5
    # angle kappa: from the line of sight, which is the label, to the optical axis, which the iris shows; positive yaw
    # is towards the nose, so that a human eye's is negative (about 2 to 5 degrees towards the temple)
    kappa_pitch_normal_deg: Range = (0.0, 0.0)
    kappa_yaw_normal_deg: Range = (0.0, 0.0)
    # head: turns with the gaze by a share of it, and freely; roll is what normalisation leaves over
    head_follow: float = 0.55
    head_pitch_normal_deg: Range = (0.0, 6.0)
    head_yaw_normal_deg: Range = (-4.0, 5.5)
    head_roll_normal_deg: Range = (0.0, 2.5)
    # identity
    shape_scale: float = 0.7
    skins: tuple[int, ...] | None = None  # skin indices to draw from; None = all
    lid_open_normal_deg: Range = (-3.0, 2.0)  # upper lid beyond the shape's own opening; negative closes
    lid_gain: Range = (1.0, 1.4)  # degrees of upper lid per degree of gaze downwards
    skin_bump: Range = (0.5, 1.5)
    skin_tone_normal: Range = (0.0, 0.12)  # log of the skin's albedo factor
    # eyeball
    iris_scale: Range = (0.93, 1.02)
    pupil_radius_mm: Range = (1.2, 2.4)
    iris_tone: Range = (0.2, 0.7)
    sclera_tone: Range = (0.1, 0.65)
    # light
    light_elevation_normal_deg: Range = (0.0, 24.0)
    light_azimuth_normal_deg: Range = (-5.0, 60.0)
    light_intensity: Range = (0.3, 2.2)
    ambient_intensity: Range = (0.05, 0.4)
    screen_intensity: Range = (0.0, 0.25)
    shadow_strength: Range = (0.2, 0.95)
    occlusion: Range = (0.55, 1.9)  # exponent on the share of the surroundings that the skin sees
    glint: Range = (-0.5, 1.0)  # strength of reflections in the tear film; below 0 there is none
    wetness: Range = (0.0, 0.3)  # brightness of the tears along the lower lid, as an albedo
    # near lamps, windows, nose and hair light a face unevenly: log of the factor on the light, a quadratic form of the
    # position in the frame (x right, y down, -1 to 1 each; the squares less their mean, a third)
    falloff_x_normal: Range = (0.0, 0.0)
    falloff_y_normal: Range = (0.0, 0.0)
    falloff_xx_normal: Range = (0.0, 0.0)
    falloff_yy_normal: Range = (0.0, 0.0)
    falloff_xy_normal: Range = (0.0, 0.0)
    exposure_normal: Range = (0.0, 0.25)  # log of the factor on a mean linear brightness of 0.2
    lash_density: Range = (0.5, 1.0)
    # camera and framing: as MPIIGaze's normalisation, 600 mm away; the frame's centre is the corners' midpoint + shift
    camera_distance_mm: float = 600.0
    field_width_normal_mm: Range = (33.0, 1.2)
    shift_x_normal_mm: Range = (1.05, 0.8)  # towards the temple
    shift_y_normal_mm: Range = (-0.75, 0.65)

    def with_prior(self, prior: NDArray[np.floating]) -> EyeRanges:
        """Return the same ranges with gaze drawn from labels [N, 2], pitch and yaw in radians."""
        array = np.ascontiguousarray(prior, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != 2 or not len(array) or not np.isfinite(array).all():
            raise ValueError(f"gaze prior of shape {array.shape} found; expected finite radians [N, 2]")
        return replace(self, gaze_prior=array)


@dataclass(frozen=True)
class EyeParameters:
    """One draw: tensors whose first axis is the image."""

    seed: int
    index: Tensor  # int64 [B]
    gaze: Tensor  # [B,2] pitch, yaw of the line of sight in the camera's frame
    kappa: Tensor  # [B,2] pitch, yaw from the line of sight to the optical axis
    head: Tensor  # [B,3] pitch, yaw, roll
    shape: Tensor  # [B,K] coefficients in standard deviations
    skin: Tensor  # int64 [B]
    iris: Tensor  # int64 [B]
    environment: Tensor  # int64 [B]
    environment_turn: Tensor  # [B] rotation of the surrounding about the vertical
    lid_open: Tensor  # [B] radians
    lid_gain: Tensor  # [B]
    skin_bump: Tensor  # [B]
    skin_tone: Tensor  # [B] factor on albedo
    iris_scale: Tensor  # [B]
    pupil_radius: Tensor  # [B] mm
    iris_tone: Tensor  # [B]
    sclera_tone: Tensor  # [B]
    light: Tensor  # [B,3] unit vector towards the directional light, camera frame
    light_intensity: Tensor  # [B]
    ambient_intensity: Tensor  # [B]
    screen_intensity: Tensor  # [B]
    shadow_strength: Tensor  # [B]
    occlusion: Tensor  # [B]
    glint: Tensor  # [B]
    glint_size: Tensor  # [B] radians, half width of the light's image in the cornea
    wetness: Tensor  # [B]
    falloff: Tensor  # [B,5] of x, y, xx, yy, xy: see `falloff_field`
    exposure: Tensor  # [B]
    lash: Tensor  # int64 [B] number of the lash texture
    lash_density: Tensor  # [B]
    lash_length: Tensor  # [B] factor
    field_width: Tensor  # [B] mm shown by the frame's width
    shift: Tensor  # [B,2] mm, from the corners' midpoint to the frame's centre

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> EyeParameters:
        """Return a copy on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def rows(self, selection: slice | Tensor) -> EyeParameters:
        """Return the chosen images only."""
        return self._map(lambda tensor: tensor[selection])

    def _map(self, change: Callable[[Tensor], Tensor]) -> EyeParameters:
        changed: dict[str, Any] = {f.name: change(getattr(self, f.name)) for f in fields(self) if f.name != "seed"}
        return replace(self, **changed)


def published_prior(npz_path: Path, exclude_subject: int = 0) -> NDArray[np.float32]:
    """Gaze labels [N, 2] of all subjects but one, from the published file of MPIIGaze's evaluation subset.

    The file's `pitch_yaw` is [15, 3000, 2] in radians. The second 1500 rows of a subject are right eyes, whose yaw is
    negated in the file already (see `datasets.mpiigaze.load_mini`). The subject under test is left out, so none of its
    labels is ever read.
    """
    labels = read_arrays(npz_path, ("pitch_yaw",), "pass the published one")["pitch_yaw"].astype(np.float32)
    if labels.ndim != 3 or labels.shape[2] != 2 or not 0 <= exclude_subject < len(labels):
        raise ValueError(
            f"{npz_path}: expected pitch_yaw [subjects, images, 2] with subject {exclude_subject}, found {labels.shape}"
        )
    others = np.delete(labels, exclude_subject, axis=0)
    return np.ascontiguousarray(others.reshape(-1, 2))


class _Draw:
    """Takes the columns of one table of uniform numbers, in order."""

    def __init__(self, seed: int, indices: NDArray[np.int64], columns: int) -> None:
        self._uniform = uniforms(seed, indices, columns)
        self._next = 0

    def fraction(self) -> NDArray[np.float64]:
        self._next += 1
        return self._uniform[:, self._next - 1]

    def between(self, limits: Range) -> NDArray[np.float64]:
        return limits[0] + (limits[1] - limits[0]) * self.fraction()

    def normal(self, mean_sd: Range = (0.0, 1.0), clip: float = 2.5) -> NDArray[np.float64]:
        return mean_sd[0] + mean_sd[1] * np.clip(normals(self.fraction()), -clip, clip)

    def choice(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        edges = np.cumsum(weights) / np.sum(weights)
        return np.minimum(np.searchsorted(edges, self.fraction()), len(weights) - 1)


def sample_parameters(
    assets: EyeAssets, ranges: EyeRanges, seed: int, indices: Sequence[int] | NDArray[np.int64]
) -> EyeParameters:
    """Draw the images `indices` of the stream `seed`; image i is the same whatever else is asked for."""
    index = np.asarray(indices, dtype=np.int64)
    components = len(assets.components)
    draw = _Draw(seed, index, components + 64)
    gaze, head = _draw_pose(ranges, draw)
    elevation = np.deg2rad(draw.normal(ranges.light_elevation_normal_deg))
    azimuth = np.deg2rad(draw.normal(ranges.light_azimuth_normal_deg))
    light = np.stack([np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), -np.cos(azimuth) * np.cos(elevation)], 1)
    skins = np.ones(len(assets.skin))
    if ranges.skins is not None:
        skins = np.isin(np.arange(len(assets.skin)), ranges.skins).astype(np.float64)
    lashes = min(len(assets.lashes.upper_alpha), len(assets.lashes.lower_alpha))
    real = {
        "gaze": gaze,
        "head": head,
        "light": light,
        "environment_turn": draw.between((-np.pi, np.pi)),
        "lid_open": np.deg2rad(draw.normal(ranges.lid_open_normal_deg)),
        "lid_gain": draw.between(ranges.lid_gain),
        "skin_bump": draw.between(ranges.skin_bump),
        "skin_tone": np.exp(draw.normal(ranges.skin_tone_normal)),
        "iris_scale": draw.between(ranges.iris_scale),
        "pupil_radius": draw.between(ranges.pupil_radius_mm),
        "iris_tone": draw.between(ranges.iris_tone),
        "sclera_tone": draw.between(ranges.sclera_tone),
        "light_intensity": draw.between(ranges.light_intensity),
        "ambient_intensity": draw.between(ranges.ambient_intensity),
        "screen_intensity": draw.between(ranges.screen_intensity),
        "shadow_strength": draw.between(ranges.shadow_strength),
        "occlusion": draw.between(ranges.occlusion),
        "glint": draw.between(ranges.glint),
        "glint_size": draw.between((0.05, 0.2)),
        "wetness": draw.between(ranges.wetness),
        "exposure": np.exp(draw.normal(ranges.exposure_normal)),
        "lash_density": draw.between(ranges.lash_density),
        "lash_length": draw.between((0.7, 1.2)),
        "field_width": draw.normal(ranges.field_width_normal_mm),
        "shift": np.stack([draw.normal(ranges.shift_x_normal_mm), draw.normal(ranges.shift_y_normal_mm)], 1),
    }
    whole = {
        "index": index,
        "skin": draw.choice(skins),
        "iris": draw.choice(assets.iris_probability.cpu().double().numpy()),
        "environment": draw.choice(np.ones(len(assets.environments))),
        "lash": draw.choice(np.ones(lashes)),
    }
    real["shape"] = ranges.shape_scale * np.stack([draw.normal() for _ in range(components)], 1)
    kappa = (ranges.kappa_pitch_normal_deg, ranges.kappa_yaw_normal_deg)
    real["kappa"] = np.deg2rad(np.stack([draw.normal(limits) for limits in kappa], 1))
    real["falloff"] = np.stack([draw.normal(getattr(ranges, f"falloff_{term}_normal")) for term in FALLOFF], 1)
    floats = {name: torch.from_numpy(np.ascontiguousarray(v)).float() for name, v in real.items()}
    return EyeParameters(seed=seed, **floats, **{name: torch.from_numpy(v) for name, v in whole.items()})


def _draw_pose(ranges: EyeRanges, draw: _Draw) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gaze [B, 2] and head pose [B, 3] in radians."""
    if ranges.gaze_prior is None:
        gaze = np.stack([draw.between(ranges.gaze_pitch_deg), draw.between(ranges.gaze_yaw_deg)], 1)
        gaze = np.deg2rad(gaze)
    else:
        chosen = (draw.fraction() * len(ranges.gaze_prior)).astype(np.int64)
        jitter = np.deg2rad(ranges.gaze_jitter_deg) * np.stack([draw.normal(), draw.normal()], 1)
        gaze = ranges.gaze_prior[chosen].astype(np.float64) + jitter
    free = (ranges.head_pitch_normal_deg, ranges.head_yaw_normal_deg, ranges.head_roll_normal_deg)
    head = np.deg2rad(np.stack([draw.normal(limits) for limits in free], 1))
    head[:, :2] += ranges.head_follow * gaze
    return gaze, head


def save_ranges(ranges: EyeRanges, path: Path) -> None:
    """Write the numbers of `ranges` as JSON; a gaze prior and a choice of skins are not part of the file."""
    plain = {name: value for name, value in vars(ranges).items() if name not in NOT_IN_FILES}
    write_json(path, plain)


def load_ranges(path: Path) -> EyeRanges:
    """Read what `save_ranges` wrote; missing numbers take their defaults, unknown ones raise ValueError."""
    return parse_ranges(read_json(path), str(path))


def parse_ranges(tree: Any, where: str) -> EyeRanges:
    """Ranges from plain JSON; raises ValueError, naming `where`, for what `save_ranges` does not write."""
    unfit = NOT_IN_FILES.intersection(tree) if isinstance(tree, dict) else frozenset()
    if unfit:
        raise ValueError(f"{where}: {min(unfit)} found; expected numbers and pairs alone: set that from Python")
    return cast(EyeRanges, build(EyeRanges, tree, f"{where}: "))
