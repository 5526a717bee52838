"""What varies between simulated hands, and one draw of it: `HandRanges`, `HandParameters`, `PosePrior`.

Angles in the ranges are degrees (names end in `_deg`), in the drawn parameters radians; lengths are mm. Image i shows
pose i // views from view i % views. B images, A = 23 joint angles, N = 17 bones, P poses of a prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.npz import read_arrays
from simgan_core.hand_crop import CUBE_MM, NYU_CAMERA, uvd_to_xyz
from simgan_core.simulators.counter_random import normals, uniforms
from simgan_core.simulators.hand_skeleton import (
    ANGLES,
    BONES,
    DIGIT_BASES,
    limits,
    product,
    rotation_vector,
    turn,
)

Range = tuple[float, float]
Floats = NDArray[np.float64]
FINGERS = ("index", "middle", "ring", "little")
FACING = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # palm towards the camera, fingers up
_COLUMNS = 128
_PRIOR_FIELDS = ("angles", "rotation", "centre")


@dataclass(frozen=True)
class PosePrior:
    """Poses to draw from, e.g. fitted to recorded joints (`hand_fit`)."""

    angles: NDArray[np.float32]  # [P,A] radians
    rotation: NDArray[np.float32]  # [P,3,3] palm to camera
    centre: NDArray[np.float32]  # [P,3] mm, middle of the palm in the camera's frame
    source: str = "unknown"

    def __post_init__(self) -> None:
        count = len(self.angles)
        shapes = {"angles": (count, len(ANGLES)), "rotation": (count, 3, 3), "centre": (count, 3)}
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found.shape != shape or not count or not np.isfinite(found).all():
                raise ValueError(f"pose prior: {name} of shape {found.shape} found; finite numbers {shape} expected")

    def __len__(self) -> int:
        return len(self.angles)

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        arrays = {name: getattr(self, name) for name in _PRIOR_FIELDS}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial.npz")
        np.savez_compressed(partial, source=np.array(self.source), **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> PosePrior:
        """Read what `save` wrote. Raises DataError naming what is missing or broken."""
        remedy = "make one with 'simgan simulate hand-prior', or save a PosePrior"
        arrays = read_arrays(path, (*_PRIOR_FIELDS, "source"), remedy, every=True)
        return cls(**{name: arrays[name] for name in _PRIOR_FIELDS}, source=str(arrays["source"]))


@dataclass(frozen=True)
class HandRanges:
    """Every range of the simulator. Pairs named `*_normal*` are (mean, standard deviation), other pairs (low, high)."""

    # pose: how far fingers are curled (0 open, 1 fist); a finger follows the hand's curl by a share of it
    curl_exponent: float = 1.6  # curl = uniform ** exponent: open hands are commoner than fists
    finger_follow: Range = (0.2, 1.0)
    joint_spread: float = 0.12  # of a joint's flexion about its finger's curl, as a share of its span
    dip_share_normal: Range = (0.66, 0.12)  # DIP flexion per PIP flexion (Lin et al. 2000: 2/3)
    thumb_spread: float = 0.24  # standard deviation of the thumb's angles, as a share of their spans
    wrist_normal_deg: Range = (0.0, 14.0)
    pose_prior: PosePrior | None = None
    prior_angle_jitter_deg: float = 4.0
    prior_turn_jitter_deg: float = 5.0
    # orientation: from 'palm to the camera, fingers up'
    yaw_normal_deg: Range = (0.0, 32.0)
    pitch_normal_deg: Range = (0.0, 26.0)
    roll_normal_deg: Range = (0.0, 32.0)
    back_share: float = 0.1  # hands that show their back
    left_share: float = 0.0  # left hands; NYU's subjects use the right one
    # place: middle of the palm in the frame
    depth_mm: Range = (640.0, 900.0)
    shift_px: Range = (-60.0, 60.0)
    # shape, as logs of factors
    size_normal: Range = (0.0, 0.07)
    digit_length_normal: Range = (0.0, 0.04)
    bone_length_normal: Range = (0.0, 0.025)
    palm_normal: Range = (0.0, 0.05)  # width and length of the palm, each
    thickness_normal: Range = (0.0, 0.08)
    # views 1 and 2 turn about the hand to either side, as NYU's two further cameras do
    side_view_deg: Range = (25.0, 50.0)
    side_tilt_normal_deg: Range = (0.0, 8.0)
    # crop
    cube_mm: float = CUBE_MM
    cube_shift_normal_mm: Range = (0.0, 7.0)

    def with_prior(self, prior: PosePrior) -> HandRanges:
        """Return the same ranges with poses and orientations drawn from `prior`."""
        return replace(self, pose_prior=prior)

    def describe(self) -> dict[str, object]:
        """The ranges as plain JSON; a prior is named by its source and size."""
        prior, plain = self.pose_prior, asdict(replace(self, pose_prior=None))
        plain["pose_prior"] = None if prior is None else {"poses": len(prior), "source": prior.source}
        return plain


def target_ranges() -> HandRanges:
    """The stand-in target's hands: broader, of other sizes, farther from the ideal pose than the simulator's."""
    return HandRanges(
        size_normal=(0.03, 0.08),
        thickness_normal=(0.05, 0.08),
        palm_normal=(0.02, 0.06),
        dip_share_normal=(0.58, 0.18),
        joint_spread=0.16,
        wrist_normal_deg=(4.0, 18.0),
    )


@dataclass(frozen=True)
class HandParameters:
    """One draw: tensors whose first axis is the image."""

    seed: int
    index: Tensor  # int64 [B]
    pose: Tensor  # int64 [B]
    view: Tensor  # int64 [B]
    angles: Tensor  # [B,A] radians, within the limits
    rotation: Tensor  # [B,3,3] palm to camera
    centre: Tensor  # [B,3] mm, middle of the palm in the camera's frame
    scale: Tensor  # [B,N,3] factors on a bone's width, length and thickness
    left: Tensor  # bool [B]
    cube_shift: Tensor  # [B,3] mm, of the crop cube against the middle of the joints
    cube_mm: Tensor  # [B]

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> HandParameters:
        """Return a copy on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def rows(self, selection: slice | Tensor) -> HandParameters:
        """Return the chosen images only."""
        return self._map(lambda tensor: tensor[selection])

    def _map(self, change: Callable[[Tensor], Tensor]) -> HandParameters:
        changed: dict[str, Any] = {f.name: change(getattr(self, f.name)) for f in fields(self) if f.name != "seed"}
        return replace(self, **changed)


class _Draw:
    """Takes the columns of one table of uniform numbers, in order."""

    def __init__(self, seed: int, indices: NDArray[np.int64]) -> None:
        self._uniform = uniforms(seed, indices, _COLUMNS)
        self._next = 0

    def fraction(self) -> Floats:
        self._next += 1
        return self._uniform[:, self._next - 1]

    def between(self, span: Range) -> Floats:
        return np.asarray(span[0] + (span[1] - span[0]) * self.fraction())

    def normal(self, mean_sd: Range = (0.0, 1.0), clip: float = 2.5) -> Floats:
        return np.asarray(mean_sd[0] + mean_sd[1] * np.clip(normals(self.fraction()), -clip, clip))


def sample_hands(
    ranges: HandRanges, seed: int, indices: Sequence[int] | NDArray[np.int64], views: int = 1
) -> HandParameters:
    """Draw the images `indices` of the stream `seed`; image i is the same whatever else is asked for."""
    if views not in (1, 2, 3):
        raise ValueError(f"views {views} found; 1 (frontal), 2 or 3 expected")
    index = np.asarray(indices, dtype=np.int64)
    pose, view = index // views, index % views
    draw = _Draw(seed, pose)
    angles, rotation, centre = _sampled_pose(ranges, draw)
    scale = _sampled_shape(ranges, draw)
    side, tilt = draw.between(ranges.side_view_deg), draw.normal(ranges.side_tilt_normal_deg)
    left = draw.fraction() < ranges.left_share
    shift = np.stack([draw.normal(ranges.cube_shift_normal_mm) for _ in range(3)], 1)
    if ranges.pose_prior is not None:
        angles, rotation, centre = _prior_pose(ranges, ranges.pose_prior, draw)
    span = limits()
    side_turn = np.deg2rad(np.choose(view, [0 * side, side, -side]))
    orbit = product(turn(0, _float(np.deg2rad(tilt) * (view > 0))), turn(1, _float(side_turn)))
    return HandParameters(
        seed=seed,
        index=torch.from_numpy(index),
        pose=torch.from_numpy(pose),
        view=torch.from_numpy(view),
        angles=torch.minimum(torch.maximum(_float(angles), span[:, 0]), span[:, 1]),
        rotation=product(orbit, _float(rotation)),
        centre=_float(centre),
        scale=_float(scale),
        left=torch.from_numpy(left),
        cube_shift=_float(shift),
        cube_mm=torch.full((len(index),), ranges.cube_mm),
    )


def _float(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _sampled_pose(ranges: HandRanges, draw: _Draw) -> tuple[Floats, Floats, Floats]:
    """Angles [B, A], rotation [B, 3, 3] and centre [B, 3] within the ranges."""
    angles = _sampled_angles(ranges, draw)
    yaw, pitch, roll = (
        torch.from_numpy(np.deg2rad(draw.normal(mean_sd)))
        for mean_sd in (ranges.yaw_normal_deg, ranges.pitch_normal_deg, ranges.roll_normal_deg)
    )
    back = torch.from_numpy(np.pi * (draw.fraction() < ranges.back_share))
    turned = product(turn(2, roll), product(turn(1, yaw + back), turn(0, pitch)))
    rotation = product(turned, FACING.double())
    depth = draw.between(ranges.depth_mm)
    u, v = NYU_CAMERA.cx + draw.between(ranges.shift_px), NYU_CAMERA.cy + draw.between(ranges.shift_px)
    centre = uvd_to_xyz(torch.from_numpy(np.stack([u, v, depth], 1)))
    return angles, rotation.numpy(), centre.numpy()


def _sampled_angles(ranges: HandRanges, draw: _Draw) -> Floats:
    low, high = (column.double().numpy() for column in limits().unbind(1))
    span = dict(zip(ANGLES, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    angle: dict[str, Floats] = {}
    for name in ("wrist_flex", "wrist_dev"):
        angle[name] = np.deg2rad(draw.normal(ranges.wrist_normal_deg))
    for name in ANGLES:
        if name.startswith("thumb"):
            a, b = span[name]
            angle[name] = (a + b) / 2 + (b - a) * ranges.thumb_spread * draw.normal()
    hand_curl = draw.fraction() ** ranges.curl_exponent
    for finger in FINGERS:
        follow = draw.between(ranges.finger_follow)
        curl = follow * hand_curl + (1 - follow) * draw.fraction() ** ranges.curl_exponent
        for joint in ("mcp", "pip"):
            a, b = span[f"{finger}_{joint}_flex"]
            share = np.clip(curl + ranges.joint_spread * draw.normal(), 0, 1)
            angle[f"{finger}_{joint}_flex"] = a + (b - a) * share
        angle[f"{finger}_dip_flex"] = draw.normal(ranges.dip_share_normal) * angle[f"{finger}_pip_flex"]
        a, b = span[f"{finger}_mcp_abd"]
        # a finger that is flexed at the knuckle cannot be spread (Lin et al. 2000)
        free = 1 - np.clip(angle[f"{finger}_mcp_flex"], 0, None) / span[f"{finger}_mcp_flex"][1]
        angle[f"{finger}_mcp_abd"] = free * draw.between((a, b))
    return np.stack([angle[name] for name in ANGLES], 1)


def _sampled_shape(ranges: HandRanges, draw: _Draw) -> Floats:
    """Factors [B, N, 3] on each bone's width, length and thickness."""
    size = draw.normal(ranges.size_normal)
    thick = draw.normal(ranges.thickness_normal)
    scale = np.zeros((len(size), len(BONES), 3))
    scale[:, :, 0] = scale[:, :, 2] = thick[:, None]
    scale[:, 0, 0], scale[:, 0, 1] = draw.normal(ranges.palm_normal), draw.normal(ranges.palm_normal)
    for base in DIGIT_BASES:
        digit = draw.normal(ranges.digit_length_normal)
        for bone in range(base, base + 3):
            scale[:, bone, 1] = digit + draw.normal(ranges.bone_length_normal)
    return np.exp(scale + size[:, None, None])


def _prior_pose(ranges: HandRanges, prior: PosePrior, draw: _Draw) -> tuple[Floats, Floats, Floats]:
    chosen = np.minimum((draw.fraction() * len(prior)).astype(np.int64), len(prior) - 1)
    jitter = np.deg2rad(ranges.prior_angle_jitter_deg) * np.stack([draw.normal() for _ in ANGLES], 1)
    vector = np.deg2rad(ranges.prior_turn_jitter_deg) * np.stack([draw.normal() for _ in range(3)], 1)
    shake = rotation_vector(torch.from_numpy(vector))
    rotation = product(shake, torch.from_numpy(prior.rotation[chosen].astype(np.float64))).numpy()
    return prior.angles[chosen] + jitter, rotation, prior.centre[chosen].astype(np.float64)
