"""An articulated right hand: 17 bones, 23 joint angles with anatomical limits, forward kinematics.

Each bone's frame has its origin at the proximal joint, y along the bone towards the fingertips, x towards the thumb's
side and z out of the palm; flexion is a turn about +x. A left hand is the mirror image.

Limits in degrees. Fingers: Lin, Wu and Huang, "Modeling the constraints of human hand motion" (2000): MCP 0 to 90, PIP
0 to 110, DIP 0 to 90, abduction -15 to 15, DIP about 2/3 of PIP. Hyperextension, thumb and wrist: American Academy of
Orthopaedic Surgeons, "Joint motion" (1965; Greene and Heckman 1994): thumb MCP 0 to 50, IP -20 to 80, wrist flexion 80,
extension 70, radial 20, ulnar 30. The thumb's saddle joint has flexion of 15 to extension of 20 and abduction of 70
from the closed hand there; here the angles count from a relaxed thumb, so the same span lies about it.

B hands, N bones = 17, A angles = 23.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BONES = (
    "palm", "forearm", "thumb_metacarpal", "thumb_proximal", "thumb_distal",
    *(f"{finger}_{bone}" for finger in ("index", "middle", "ring", "little") for bone in
      ("proximal", "middle", "distal")),
)  # fmt: skip
PARENTS = (-1, 0, 0, 2, 3, 0, 5, 6, 0, 8, 9, 0, 11, 12, 0, 14, 15)
DIGIT_BASES = (2, 5, 8, 11, 14)  # first bone of thumb, index, middle, ring, little

_FINGER_LIMITS = {
    "mcp_flex": (-20.0, 90.0),
    "mcp_abd": (-15.0, 15.0),
    "pip_flex": (0.0, 110.0),
    "dip_flex": (0.0, 90.0),
}
LIMITS_DEG: dict[str, tuple[float, float]] = {
    "wrist_flex": (-70.0, 80.0),
    "wrist_dev": (-20.0, 30.0),
    "thumb_cmc_flex": (-20.0, 35.0),
    "thumb_cmc_abd": (-35.0, 35.0),
    "thumb_cmc_twist": (-20.0, 20.0),
    "thumb_mcp_flex": (0.0, 50.0),
    "thumb_ip_flex": (-20.0, 80.0),
    **{
        f"{finger}_{name}": limits
        for finger in ("index", "middle", "ring", "little")
        for name, limits in _FINGER_LIMITS.items()
    },
}
ANGLES = tuple(LIMITS_DEG)


def limits() -> Tensor:
    """Lower and upper limits [A, 2] of the angles, radians."""
    return torch.deg2rad(torch.tensor(list(LIMITS_DEG.values())))


@dataclass(frozen=True)
class Skeleton:
    """Bone frames with all angles at zero, relative to the parent; batched over hands or [N, ...] for one."""

    rotation: Tensor  # [..., N, 3, 3] of each bone in its parent's frame
    offset: Tensor  # [..., N, 3] mm, origin in the parent's frame

    def to(self, device: torch.device | str) -> Skeleton:
        """Return a copy on `device`."""
        return Skeleton(self.rotation.to(device), self.offset.to(device))


def product(a: Tensor, b: Tensor) -> Tensor:
    """3x3 matrix products as sums in a fixed order: a batch's size changes no bit of them, unlike a BLAS call's."""
    return a[..., :, :1] * b[..., :1, :] + a[..., :, 1:2] * b[..., 1:2, :] + a[..., :, 2:] * b[..., 2:, :]


def apply(a: Tensor, v: Tensor) -> Tensor:
    """Matrices [..., 3, 3] times vectors [..., 3], with the same care as `product`."""
    return a[..., :, 0] * v[..., :1] + a[..., :, 1] * v[..., 1:2] + a[..., :, 2] * v[..., 2:]


def turn(axis: int, angle: Tensor) -> Tensor:
    """Rotations [..., 3, 3] about a coordinate axis (0 x, 1 y, 2 z) by angles in radians."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    c, s = torch.cos(angle), torch.sin(angle)
    rows = (
        (one, zero, zero, zero, c, -s, zero, s, c),
        (c, zero, s, zero, one, zero, -s, zero, c),
        (c, -s, zero, s, c, zero, zero, zero, one),
    )[axis]
    return torch.stack(rows, -1).reshape(*angle.shape, 3, 3)


def rotation_vector(vector: Tensor) -> Tensor:
    """Rotations [..., 3, 3] of rotation vectors [..., 3] (radians), smooth at zero (Rodrigues' formula)."""
    square = (vector * vector).sum(-1)[..., None, None]
    angle = (square + 1e-12).sqrt()
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape, 3)
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return eye + torch.sin(angle) / angle * skew + (1 - torch.cos(angle)) / (angle * angle) * product(skew, skew)


def joint_rotations(angles: Tensor) -> list[Tensor | None]:
    """The turns [..., 3, 3] that angles [..., A] give the bones in their own zero frames; None where one is fixed."""
    angle = dict(zip(ANGLES, angles.unbind(-1), strict=True))
    turns: list[Tensor | None] = [None] * len(BONES)
    # the palm is the root, so a wrist that flexes shows as a forearm that turns the other way
    turns[1] = product(turn(0, -angle["wrist_flex"]), turn(2, -angle["wrist_dev"]))
    thumb = product(turn(2, angle["thumb_cmc_abd"]), turn(0, angle["thumb_cmc_flex"]))
    turns[2] = product(thumb, turn(1, angle["thumb_cmc_twist"]))
    turns[3], turns[4] = turn(0, angle["thumb_mcp_flex"]), turn(0, angle["thumb_ip_flex"])
    for base, finger in zip(DIGIT_BASES[1:], ("index", "middle", "ring", "little"), strict=True):
        turns[base] = product(turn(2, angle[f"{finger}_mcp_abd"]), turn(0, angle[f"{finger}_mcp_flex"]))
        turns[base + 1] = turn(0, angle[f"{finger}_pip_flex"])
        turns[base + 2] = turn(0, angle[f"{finger}_dip_flex"])
    return turns


def forward(skeleton: Skeleton, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Bone frames in the palm's frame: rotations [..., N, 3, 3] and origins [..., N, 3] in mm."""
    turns = joint_rotations(angles)
    rotations: list[Tensor] = []
    origins: list[Tensor] = []
    for bone, parent in enumerate(PARENTS):
        rotation, offset = skeleton.rotation[..., bone, :, :], skeleton.offset[..., bone, :]
        own = turns[bone]
        if own is not None:
            rotation = product(rotation, own)
        if parent < 0:
            shape = (*angles.shape[:-1], 3)
            rotations.append(rotation.expand(*shape, 3))
            origins.append(offset.expand(shape))
        else:
            rotations.append(product(rotations[parent], rotation))
            origins.append(origins[parent] + apply(rotations[parent], offset))
    return torch.stack(rotations, -3), torch.stack(origins, -2)


def relative(rotation: Tensor, origin: Tensor) -> Skeleton:
    """The skeleton whose zero pose has the frames [N, 3, 3], [N, 3]."""
    turns, offsets = [rotation[0]], [origin[0]]
    for bone, parent in enumerate(PARENTS[1:], start=1):
        back = rotation[parent].transpose(0, 1)
        turns.append(back @ rotation[bone])
        offsets.append(back @ (origin[bone] - origin[parent]))
    return Skeleton(torch.stack(turns), torch.stack(offsets))


def frame(along: Tensor, palmar: Tensor) -> Tensor:
    """The rotation [3, 3] whose y is `along` and whose z is as near to `palmar` as can be."""
    y = along / along.norm()
    z = palmar - (palmar @ y) * y
    z = z / z.norm()
    return torch.stack([torch.linalg.cross(y, z), y, z], 1)
