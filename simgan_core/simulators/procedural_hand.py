"""A hand without any file: capsules along the bones, melted into one skin, with smooth skin weights.

Bone lengths are the means of Buryanov and Kotiuk, "Proportions of hand segments" (Int. J. Morphology 28, 2010), with a
few mm of soft tissue at the fingertips; widths are ours, by eye. The surface is the zero set of a signed distance,
extracted by surface nets (Gibson 1998): one vertex in each cell that the surface crosses, one quad per crossed edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.simulators.hand_assets import HandAssets, assemble
from simgan_core.simulators.hand_skeleton import BONES, DIGIT_BASES, frame, relative

Floats = NDArray[np.float64]
Distance = Callable[[Floats], Floats]
FLATTENED = 1.06  # a digit's width to its thickness


@dataclass(frozen=True)
class HandBuild:
    """Proportions of a procedural hand, mm. Digits are thumb, index, middle, ring, little."""

    name: str = "procedural"
    knuckles: tuple[tuple[float, float, float], ...] = (
        (22.0, 22.0, 9.0), (25.0, 91.0, 0.0), (3.5, 94.0, -3.0), (-17.0, 89.0, -2.0), (-35.0, 79.0, 2.0),
    )  # fmt: skip
    splay_deg: tuple[float, ...] = (0.0, -7.0, -1.0, 6.0, 14.0)  # of straight fingers, about the palm's normal
    lengths: tuple[tuple[float, float, float], ...] = (
        (46.2, 32.0, 27.0), (41.0, 24.0, 22.5), (46.0, 28.0, 23.5), (42.5, 27.0, 23.0), (34.0, 19.5, 21.0),
    )  # fmt: skip
    radii: tuple[tuple[float, float, float, float], ...] = (  # at the four ends of a digit's bones
        (14.5, 12.0, 10.2, 8.0), (10.8, 9.6, 8.3, 6.6), (11.0, 9.8, 8.5, 6.8), (10.4, 9.2, 8.0, 6.4),
        (9.2, 8.0, 7.0, 5.6),
    )  # fmt: skip
    palm_thickness: float = 1.0
    wrist: tuple[float, float] = (27.0, 19.0)  # half width and half thickness
    thumb_along: tuple[float, float, float] = (0.66, 0.66, 0.36)
    thumb_palmar: tuple[float, float, float] = (-0.62, 0.25, 0.74)
    cell: float = 4.0


STAND_IN_BUILD = HandBuild(
    name="procedural-broad",
    knuckles=((24.0, 20.0, 10.0), (28.0, 87.0, 1.0), (5.0, 88.0, -2.0), (-18.0, 84.0, -1.0), (-39.0, 74.0, 4.0)),
    splay_deg=(0.0, -9.0, -1.0, 8.0, 17.0),
    lengths=((44.0, 30.0, 28.5), (38.0, 22.0, 23.5), (42.0, 25.0, 24.0), (39.0, 24.5, 24.0), (30.5, 18.0, 21.5)),
    radii=(
        (16.0, 13.2, 11.6, 9.6), (12.0, 10.6, 9.6, 8.2), (12.2, 10.9, 9.8, 8.4), (11.6, 10.3, 9.3, 7.9),
        (10.3, 9.1, 8.2, 7.0),
    ),
    palm_thickness=1.15,
    wrist=(31.0, 23.0),
    thumb_along=(0.72, 0.60, 0.34),
)  # fmt: skip


def procedural_hand(build: HandBuild | None = None) -> HandAssets:
    """A right hand of the given proportions; takes half a second."""
    build = HandBuild() if build is None else build
    rotation, origin = _rest_frames(build)
    axes = _axes(build, rotation, origin)
    vertices, quads = _surface_nets(lambda p: _distance(build, axes, p), _bounds(axes), build.cell)
    weights = _skin_weights(build, axes, vertices)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    tips = torch.tensor([lengths[2] for lengths in build.lengths])
    return assemble(
        build.name,
        torch.from_numpy(vertices),
        torch.from_numpy(triangles),
        torch.from_numpy(weights),
        (rotation, origin),
        relative(rotation, origin),
        tips,
    )


def _rest_frames(build: HandBuild) -> tuple[Tensor, Tensor]:
    """Frames of all bones with straight, splayed fingers: rotations [N, 3, 3], origins [N, 3]."""
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(BONES), 1, 1)
    origin = torch.zeros(len(BONES), 3, dtype=torch.float64)
    for digit, base in enumerate(DIGIT_BASES):
        if digit == 0:
            along, palmar = (torch.tensor(v, dtype=torch.float64) for v in (build.thumb_along, build.thumb_palmar))
        else:
            splay = np.deg2rad(build.splay_deg[digit])
            along = torch.tensor([-np.sin(splay), np.cos(splay), 0.0], dtype=torch.float64)
            palmar = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        start = torch.tensor(build.knuckles[digit], dtype=torch.float64)
        for bone, length in enumerate((0.0, *build.lengths[digit][:2])):
            rotation[base + bone] = frame(along, palmar)
            start = start + length * rotation[base, :, 1]
            origin[base + bone] = start
    return rotation, origin


@dataclass(frozen=True)
class _Digit:
    """A straight digit: where it starts, its frame (rows x, y, z), where its joints lie along it, radii there."""

    start: Floats  # [3]
    frame: Floats  # [3,3]
    joints: Floats  # [4] mm along y, the last one is the end of the fingertip's capsule
    radii: Floats  # [4]


def _axes(build: HandBuild, rotation: Tensor, origin: Tensor) -> list[_Digit]:
    digits = []
    for digit, base in enumerate(DIGIT_BASES):
        ends = np.cumsum((0.0, *build.lengths[digit]))
        ends[3] -= build.radii[digit][3]  # the cap reaches the skin
        digits.append(_Digit(origin[base].numpy(), rotation[base].numpy().T, ends, np.asarray(build.radii[digit])))
    return digits


def _capsule(p: Floats, a: Floats, b: Floats, radius_a: float, radius_b: float, flat: float = 1.0) -> Floats:
    """Distance to a tapered capsule, whose z axis is stretched by 1 / `flat`."""
    stretch = np.array([1.0, 1.0, flat])
    p, a, b = p * stretch, a * stretch, b * stretch
    along = b - a
    share = np.clip(((p - a) @ along) / (along @ along), 0.0, 1.0)
    return np.asarray(
        np.linalg.norm(p - a - share[:, None] * along, axis=1) - (radius_a + share * (radius_b - radius_a))
    )


def _melt(a: Floats, b: Floats, width: float) -> Floats:
    """Smooth minimum: the union of two bodies with a fillet of about `width` mm (Quilez' quadratic form)."""
    overlap = np.clip(width - np.abs(a - b), 0.0, None) / width
    return np.asarray(np.minimum(a, b) - overlap**2 * width / 4)


def _digit_distance(digit: _Digit, p: Floats, flat: float) -> Floats:
    """A digit: capsules between its joints, slightly flattened, with a fuller pad on the palmar side of the tip."""
    local = (p - digit.start) @ digit.frame.T
    distance = np.full(len(p), np.inf)
    for bone, (low, high) in enumerate(pairwise(digit.joints)):
        a, b = np.array([0.0, low, 0.0]), np.array([0.0, high, 0.0])
        part = _capsule(local, a, b, digit.radii[bone], digit.radii[bone + 1], flat)
        waist = np.sin(np.pi * np.clip((local[:, 1] - low) / (high - low), 0, 1))  # thinner between the joints
        part = part + 0.06 * digit.radii[bone] * waist
        distance = part if bone == 0 else _melt(distance, part, 3.0)
    tip, radius = digit.joints[3], digit.radii[3]
    pad = _capsule(local, np.array([0.0, tip - 9, 1.0]), np.array([0.0, tip - 2, 1.2]), radius, radius * 0.92, flat)
    return _melt(distance, pad, 3.0)


def _distance(build: HandBuild, digits: list[_Digit], p: Floats) -> Floats:
    """Signed distance (negative inside) of points [P, 3] to the whole hand, about exact near the surface."""
    thick = build.palm_thickness
    palm = np.full(len(p), np.inf)
    for digit, wrist_x, low, high in zip(
        digits[1:], (13.0, 4.0, -6.0, -15.0), (15, 15, 15, 14.5), (12.5, 13, 12.3, 11), strict=True
    ):
        knuckle = digit.start - np.array([0.0, 2.0, 0.5])
        part = _capsule(p, np.array([wrist_x, 4.0, 1.0]), knuckle, low * 1.05, high * 1.05, 1.05 / thick)
        palm = part if np.isinf(palm).all() else _melt(palm, part, 12.0)
    thumb = digits[0]
    knuckle = thumb.start + thumb.joints[1] * thumb.frame[1]
    bodies = (
        (np.array([12.0, 22.0, 10.0]), 0.55 * knuckle + 0.45 * digits[1].start * [0.4, 0.6, 1] + [0, 0, 6], 14.0, 11.0),
        (np.array([-18.0, 18.0, 7.0]), np.array([-30.0, 58.0, 6.0]), 12.5, 11.0),  # the little finger's ball
    )
    for a, b, low, high in bodies:
        palm = _melt(palm, _capsule(p, a, b, low * thick, high * thick), 10.0)
    half, depth = build.wrist
    arm = _capsule(p, np.array([0.0, 0.0, 0.5]), np.array([0.0, -190.0, 0.0]), half - 2.0, half + 11.0, half / depth)
    hand = _melt(palm, arm, 16.0)
    fingers = [_digit_distance(digit, p, FLATTENED) for digit in digits]
    web = np.stack([_melt(a, b, 5.0) for a, b in pairwise(fingers[1:])]).min(0)
    alone = np.stack(fingers[1:]).min(0)
    middle = digits[2].start[1] + digits[2].joints[1] / 2  # fingers grow together below the middle of their first bone
    together = np.where(p[:, 1] < middle, web, alone)
    return np.minimum(_melt(hand, together, 7.0), _melt(hand, fingers[0], 12.0))


def _bounds(digits: list[_Digit]) -> tuple[Floats, Floats]:
    tips = np.stack([digit.start + (digit.joints[3] + 12) * digit.frame[1] for digit in digits])
    low, high = tips.min(0) - 16, tips.max(0) + 16
    low = np.minimum(low, [-60.0, -160.0, -36.0])
    high = np.maximum(high, [60.0, 0.0, 44.0])
    return low, high


def _surface_nets(distance: Distance, bounds: tuple[Floats, Floats], cell: float) -> tuple[Floats, NDArray[np.int64]]:
    """Vertices [V, 3] and quads [Q, 4], seen from outside, of the zero set of `distance` within the bounds."""
    axes = [np.arange(low, high + cell, cell) for low, high in zip(*bounds, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    value = distance(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    inside = value < 0
    inside[[0, -1]] = inside[:, [0, -1]] = inside[:, :, [0, -1]] = False  # bodies that leave the box get a lid
    value = np.where(inside, value, np.maximum(value, 1e-3))
    shape = tuple(n - 1 for n in inside.shape)
    total, count = np.zeros((*shape, 3)), np.zeros(shape, np.int64)
    corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]

    def at(corner: tuple[int, int, int]) -> tuple[slice, ...]:
        return tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))

    for a in corners:
        for axis in range(3):
            if a[axis]:
                continue
            b = (a[0] + (axis == 0), a[1] + (axis == 1), a[2] + (axis == 2))
            crossed = inside[at(a)] != inside[at(b)]
            va, vb = value[at(a)], value[at(b)]
            share = np.where(crossed, va / np.where(crossed, va - vb, 1.0), 0.0)
            point = grid[at(a)] + share[..., None] * (grid[at(b)] - grid[at(a)])
            total += np.where(crossed[..., None], point, 0.0)
            count += crossed
    used = count > 0
    number = np.cumsum(used.ravel()).reshape(shape) - 1
    return total[used] / count[used][:, None], _quads(inside, number)


def _quads(inside: NDArray[np.bool_], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """One quad around each grid edge whose ends lie on different sides; `number` of the vertex in each cell.

    Corners run clockwise when seen from outside, as the z-buffer wants them.
    """
    quads = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        first = [slice(1, -1)] * 3
        first[axis] = slice(0, -1)
        second = list(first)
        second[axis] = slice(1, None)
        a, b = inside[tuple(first)], inside[tuple(second)]
        for leaves in (True, False):  # the edge goes out of the body, or into it
            here = np.argwhere((a & ~b) if leaves else (~a & b))
            cell = here.copy()
            cell[:, [u, v]] += 1  # the slices above began at 1 along u and v

            def corner(du: int, dv: int, cell: NDArray[np.int64] = cell, u: int = u, v: int = v) -> NDArray[np.int64]:
                place = cell.copy()
                place[:, u] += du
                place[:, v] += dv
                return np.asarray(number[place[:, 0], place[:, 1], place[:, 2]])

            ring = [corner(-1, -1), corner(0, -1), corner(0, 0), corner(-1, 0)]
            quads.append(np.stack(ring[::-1] if leaves else ring, 1))
    return np.concatenate(quads)


def _smooth_step(x: Floats) -> Floats:
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))


def _skin_weights(build: HandBuild, digits: list[_Digit], p: Floats) -> Floats:
    """Dense weights [V, N]: along a digit bones blend over about a radius, between digits over 1.5 mm of distance."""
    distance = np.stack([_digit_distance(digit, p, FLATTENED) for digit in digits], 1)
    share = np.exp(-(distance - distance.min(1, keepdims=True)) / 1.5)
    share /= share.sum(1, keepdims=True)
    weights = np.zeros((len(p), len(BONES)))
    for d, (digit, base) in enumerate(zip(digits, DIGIT_BASES, strict=True)):
        local = (p - digit.start) @ digit.frame.T
        along = local[:, 1]
        gates = []
        for joint in range(3):
            # the thumb's ball moves with the metacarpal over a wide band, knuckles over a narrow one
            half = 1.0 * digit.radii[joint] if joint else (16.0 if d == 0 else 1.1 * digit.radii[0])
            shift = (4.0 if d == 0 else 3.0) if joint == 0 else 0.0
            gates.append(_smooth_step((along - digit.joints[joint] - shift + half) / (2 * half)))
        if d == 0:
            # the palm near the thumb follows it less the farther it is from its bone
            gates[0] = gates[0] * _smooth_step(1.0 - (distance[:, 0] - 1.0) / 14.0)
            gates[1], gates[2] = (np.where(distance[:, 0] < 6, gate, 0.0) for gate in gates[1:])
        parts = (gates[0] * (1 - gates[1]), gates[0] * gates[1] * (1 - gates[2]), gates[0] * gates[1] * gates[2])
        for bone, part in enumerate(parts):
            weights[:, base + bone] = share[:, d] * part
    weights[:, 0] = np.clip(1.0 - weights.sum(1), 0.0, None)
    arm = _smooth_step((-p[:, 1] + 14.0) / 28.0) * weights[:, 0]
    weights[:, 1], weights[:, 0] = arm, weights[:, 0] - arm
    return weights
