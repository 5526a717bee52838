"""What a hand is made of: a skinned mesh with canonical bones (`HandAssets`), procedural or read from files.

Rest pose and bones are those of a right hand in the palm's frame: origin at the wrist, x to the thumb's side, y to the
fingertips, z out of the palm, mm. V vertices, F triangles, N = 17 bones, K influences per vertex, M markers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from simgan_core.hand_crop import JOINTS_14, JOINTS_36, NYU_14_OF_36
from simgan_core.simulators.hand_skeleton import BONES, DIGIT_BASES, Skeleton

INFLUENCES = 4


@dataclass(frozen=True)
class Markers:
    """Named points on bones: the joint sets that labels are made of."""

    bone: Tensor  # int64 [M]
    offset: Tensor  # [M,3] mm in the bone's rest frame

    def to(self, device: torch.device | str) -> Markers:
        """Return a copy on `device`."""
        return Markers(self.bone.to(device), self.offset.to(device))


@dataclass(frozen=True)
class HandAssets:
    """A skinned right hand and its joint sets."""

    name: str
    vertices: Tensor  # [V,3] mm at rest
    triangles: Tensor  # int64 [F,3], seen from outside
    bone: Tensor  # int64 [V,K]
    weight: Tensor  # [V,K], rows sum to 1
    rest_rotation: Tensor  # [N,3,3]
    rest_origin: Tensor  # [N,3] mm
    skeleton: Skeleton  # all angles at zero
    length: Tensor  # [N] mm from a bone's origin to the next joint, or to the skin for fingertips
    nyu: Markers  # the 36 joints of NYU's model; 14 of them are evaluated
    common: Markers  # wrist and four joints per digit: 21
    two_sided: bool = False  # meshes that are open at the wrist show their inside

    def to(self, device: torch.device | str) -> HandAssets:
        """Return a copy on `device`."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | Skeleton | Markers):
                moved[field.name] = value.to(device)
        return replace(self, **moved)


def strongest(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The strongest influences of dense weights [V, N]: bones [V, K] and weights [V, K] that sum to 1."""
    weight, bone = weights.topk(INFLUENCES, dim=1)
    return bone, weight / weight.sum(1, keepdim=True)


# Where the 14 evaluated joints of NYU lie, as (share of the bone's length, mm towards the radial side, mm towards the
# palm). Rounded means of what `hand_fit.calibrate` finds for the two people of the published test joints.
_NYU_14: dict[str, tuple[str, float, float, float]] = {
    **{f"{finger}_tip": (f"{finger}_distal", 0.80, 0.0, 0.0) for finger in ("little", "ring", "middle", "index")},
    **{f"{finger}_mid": (f"{finger}_proximal", 0.95, 0.0, 0.0) for finger in ("little", "ring", "middle", "index")},
    "thumb_tip": ("thumb_distal", 0.82, 0.0, 0.0),
    "thumb_mid": ("thumb_distal", 0.12, 0.0, 0.0),
    "thumb_base": ("thumb_metacarpal", 0.90, 5.0, 0.0),
}
# Points of the palm, whose mm hold for a hand of `_KNUCKLES_MM`; other hands' are as far apart as they are broad.
_PALM_POINTS = {  # of the palm's length, mm, mm; PALM_1 and PALM_2 flank the wrist, PALM_3 is the palm's middle
    "PALM_1": (0.0, -19.0, -5.5),
    "PALM_2": (0.0, 14.0, -3.0),
    "PALM_3": (0.72, 1.5, -4.4),
    "PALM_4": (0.50, 0.0, 0.0),
    "PALM_5": (0.85, -22.0, 0.0),
    "PALM_6": (0.85, 20.0, 0.0),
}
# NYU names fingers F1 (little) to F4 (index); A and B are the far and near points of a segment. Only the 14 evaluated
# ones can be checked against published positions; the others are our reading of the names.
_SEGMENTS = {"3": ("distal", 0.80, 0.15), "2": ("middle", 0.90, -0.10), "1": ("proximal", 0.70, 0.10)}
_THUMB_SEGMENTS = {"3": ("distal", 0.85, 0.15), "2": ("proximal", 0.90, 0.10), "1": ("metacarpal", 0.60, 0.10)}


_KNUCKLES_MM = 61.2209
"""From the index' to the little finger's knuckle of the procedural hand, with which the palm's points were found."""


def nyu_markers(length: Tensor, knuckles_mm: float = _KNUCKLES_MM) -> Markers:
    """NYU's 36 joints on bones of these lengths [N], of a hand whose outer knuckles are `knuckles_mm` apart."""
    breadth = knuckles_mm / _KNUCKLES_MM
    fingers = {"F1": "little", "F2": "ring", "F3": "middle", "F4": "index", "TH": "thumb"}
    evaluated = dict(zip((JOINTS_36[i] for i in NYU_14_OF_36), JOINTS_14, strict=True))
    places: list[tuple[str, float, float, float]] = []
    for name in JOINTS_36:
        if name.startswith("PALM"):
            along, radial_mm, palmar_mm = _PALM_POINTS[name]
            places.append(("palm", along, breadth * radial_mm, breadth * palmar_mm))
        elif name in evaluated:
            places.append(_NYU_14[evaluated[name]])
        else:
            digit = fingers[name[:2]]
            segment, far, near = (_THUMB_SEGMENTS if digit == "thumb" else _SEGMENTS)[name[6]]
            places.append((f"{digit}_{segment}", far if name.endswith("A") else near, 0.0, 0.0))
    bone = torch.tensor([BONES.index(place[0]) for place in places])
    share, radial, palmar = (torch.tensor([place[k] for place in places]) for k in (1, 2, 3))
    return Markers(bone, torch.stack([radial, share * length[bone], palmar], 1))


def common_markers(length: Tensor) -> Markers:
    """The 21 joints: the wrist, then base to tip of thumb, index, middle, ring and little finger."""
    bone, offset = [0], [torch.zeros(3)]
    for base in DIGIT_BASES:
        bone += [base, base + 1, base + 2, base + 2]
        offset += [torch.zeros(3)] * 3 + [torch.tensor([0.0, float(length[base + 2]), 0.0])]
    return Markers(torch.tensor(bone), torch.stack(offset))


def assemble(
    name: str,
    vertices: Tensor,
    triangles: Tensor,
    weights: Tensor,
    rest: tuple[Tensor, Tensor],
    skeleton: Skeleton,
    tips: Tensor,
    *,
    two_sided: bool = False,
) -> HandAssets:
    """Assets from dense weights [V, N], rest frames and lengths of the five fingertips [5], mm."""
    length = torch.zeros(len(BONES))
    length[0] = skeleton.offset[8].norm()  # wrist to the middle finger's knuckle
    length[1] = 100.0
    for digit, base in enumerate(DIGIT_BASES):
        length[base], length[base + 1] = skeleton.offset[base + 1].norm(), skeleton.offset[base + 2].norm()
        length[base + 2] = tips[digit]
    bone, weight = strongest(weights)
    return HandAssets(
        name=name,
        vertices=vertices.float(),
        triangles=triangles.long(),
        bone=bone,
        weight=weight.float(),
        rest_rotation=rest[0].float(),
        rest_origin=rest[1].float(),
        skeleton=Skeleton(skeleton.rotation.float(), skeleton.offset.float()),
        length=length,
        nyu=nyu_markers(length, float((skeleton.offset[5] - skeleton.offset[14]).norm())),
        common=common_markers(length),
        two_sided=two_sided,
    )
