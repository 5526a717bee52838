"""Inverse kinematics: poses of the articulated hand fitted to 14 recorded joints, many frames at once.

Each frame's 23 angles, orientation and place are found by Levenberg-Marquardt with the anatomical limits kept by
projection. The 14 points do not fix every angle (the forearm is not seen; two joints move each fingertip), so weak
terms prefer a straight wrist, DIP flexion of 2/3 of PIP flexion, and angles inside their span. A person's bone lengths
and where on the bones the recorded points lie are fitted to some of the person's frames, in turn with the poses.

A pose prior made from frames of a test set must not be tested on the same frames: `prior_rows` and `evaluation_rows`.

B frames, A = 23 angles, N = 17 bones, J = 14 joints, S shape numbers; mm in the camera's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jacfwd, vmap

from simgan_core.datasets.npz import read_arrays
from simgan_core.hand_crop import JOINTS_14, NYU_14_OF_36, uvd_to_xyz
from simgan_core.simulators.hand import PosedHand, pose_hand
from simgan_core.simulators.hand_assets import HandAssets, Markers
from simgan_core.simulators.hand_ranges import FINGERS, PosePrior
from simgan_core.simulators.hand_skeleton import ANGLES, BONES, DIGIT_BASES, apply, limits, product, rotation_vector

NYU_TEST_SUBJECTS = (2440, 8252)  # the test set's first person ends, the second person ends (Tompson et al. 2014)
_JOINTS = len(JOINTS_14)
_STEPS = 25
_ROUNDS = 8
_CALIBRATION_FRAMES = 96
_ANGLE_MM, _WRIST_MM, _COUPLING_MM = 0.7, 5.0, 4.0  # mm of misfit that a radian off the preferred angle is worth
_LENGTH_SD, _MARKER_SD_MM = 0.15, 5.0  # how far bones and points may be from the assets', for calibration
_STARTS = (0.2, 1.1)  # flexion of all finger joints that the search begins with, radians


@dataclass(frozen=True)
class HandShape:
    """A person: factors on bone sizes and where the 14 points lie."""

    scale: Tensor  # [N,3]
    markers: Markers  # 14


@dataclass(frozen=True)
class HandFit:
    """Fitted poses and how well they fit."""

    angles: Tensor  # [B,A] radians, within the limits
    rotation: Tensor  # [B,3,3]
    centre: Tensor  # [B,3] mm
    xyz: Tensor  # [B,14,3] mm, the fitted joints
    error_mm: Tensor  # [B,14] distance of fitted and given joints
    shape: tuple[HandShape, ...]  # one per person

    def summary(self) -> dict[str, float]:
        """Mean, median and 95th percentile of the joints' errors in mm, percent below 10 mm, number of frames."""
        flat = self.error_mm.flatten().double()
        return {
            "frames": float(len(self.error_mm)),
            "mean_mm": float(flat.mean()),
            "median_mm": float(flat.median()),
            "p95_mm": float(flat.quantile(0.95)),
            "below_10_mm_percent": float(100 * (flat < 10).double().mean()),
        }

    def prior(self, source: str, worst_mm: float = 12.0) -> PosePrior:
        """The poses as a prior; frames whose mean error is above `worst_mm` are left out."""
        good = self.error_mm.mean(1) <= worst_mm
        arrays = (part[good].float().numpy() for part in (self.angles, self.rotation, self.centre))
        angles, rotation, centre = arrays
        return PosePrior(angles, rotation, centre, source=source)


@dataclass(frozen=True)
class RecordedFit:
    """Poses fitted to frames `rows` of a file of recorded joints."""

    fit: HandFit
    rows: NDArray[np.int64]
    source: str

    def prior(self) -> PosePrior:
        """The poses as a prior that names where they come from."""
        return self.fit.prior(self.source)


def fit_recorded(path: Path, assets: HandAssets, *, frames: int, all_blocks: bool = False) -> RecordedFit:
    """Fit poses to `frames` frames, evenly spread, of the joints `uvd` [N, 14, 3] in an .npz file.

    Only the blocks of `prior_rows` are used, so that the others stay free for tests; `all_blocks` uses every frame. The
    people of NYU's test set are told apart; any other file is taken for one person. Raises DataError for a file without
    joints, ValueError for joints of another shape or none to use.
    """
    uvd = read_arrays(path, ("uvd",), "save joints with numpy.savez(file, uvd=…), [frames, 14, 3]")["uvd"]
    if uvd.ndim != 3 or uvd.shape[1:] != (_JOINTS, 3) or frames < 1:
        raise ValueError(f"{path}: uvd {uvd.shape}, {frames} frames found; [N, 14, 3] and 1 frame or more expected")
    free = np.arange(len(uvd)) if all_blocks else prior_rows(len(uvd))
    if not len(free):
        raise ValueError(f"{path}: every second block of {len(uvd)} frames is empty; use all of them (--all-blocks)")
    rows = np.asarray(free[np.unique(np.linspace(0, len(free) - 1, frames).round().astype(np.int64))], np.int64)
    people = nyu_people(rows) if len(uvd) == NYU_TEST_SUBJECTS[1] else None
    blocks = "all blocks" if all_blocks else "every second block of 400 (hand_fit.prior_rows)"
    return RecordedFit(fit_hands(assets, uvd[rows], people), rows, f"{path.name}: {len(rows)} frames of {blocks}")


def prior_rows(count: int = 8252, block: int = 400, gap: int = 40) -> NDArray[np.int64]:
    """Frames whose poses may serve as a prior: every second block of a recording, without its borders.

    Neighbouring frames look alike, so single frames drawn at random would leak; `gap` frames at each border belong to
    neither side.
    """
    return _blocks(count, block, gap, 0)


def evaluation_rows(count: int = 8252, block: int = 400, gap: int = 40) -> NDArray[np.int64]:
    """Frames to test on where `prior_rows` served as a prior; the two share no frame and no border."""
    return _blocks(count, block, gap, 1)


def _blocks(count: int, block: int, gap: int, parity: int) -> NDArray[np.int64]:
    if count < 1 or block <= 2 * gap or gap < 0:
        raise ValueError(f"count {count}, block {block}, gap {gap} found; blocks longer than two gaps expected")
    row = np.arange(count)
    inside = row % block
    return np.asarray(row[(row // block % 2 == parity) & (inside >= gap) & (inside < block - gap)], np.int64)


def nyu_people(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the NYU test set's two people is in each frame: 0 or 1."""
    return np.asarray(rows >= NYU_TEST_SUBJECTS[0], np.int64)


def fit_hands(
    assets: HandAssets, uvd: NDArray[np.floating] | Tensor, people: Sequence[int] | NDArray[np.int64] | None = None
) -> HandFit:
    """Fit the hand of `assets` to joints [B, 14, 3] (frame pixels, mm); `people` [B] numbers the persons from 0.

    Raises ValueError for other shapes or numbers that are not finite.
    """
    joints = torch.as_tensor(np.asarray(uvd), dtype=torch.float64)
    if joints.ndim != 3 or joints.shape[1:] != (_JOINTS, 3) or not len(joints) or not bool(joints.isfinite().all()):
        raise ValueError(f"joints of shape {tuple(joints.shape)} found; finite [B, 14, 3] in pixels and mm expected")
    person = np.zeros(len(joints), np.int64) if people is None else np.asarray(people, np.int64)
    if person.shape != (len(joints),):
        raise ValueError(f"{person.shape} numbers of people for {len(joints)} frames found; one each expected")
    xyz, model = uvd_to_xyz(joints), _double(assets)
    pose, shapes = _Pose.empty(len(xyz)), []
    for number in range(int(person.max()) + 1):
        rows = torch.from_numpy(np.flatnonzero(person == number))
        shape = calibrate(model, xyz[rows]) if len(rows) else _own_shape(model)
        shapes.append(shape)
        if len(rows):
            pose.set(rows, solve(model, shape, xyz[rows]))
    scales = torch.stack([shape.scale for shape in shapes])[torch.from_numpy(person)]
    fitted = torch.empty_like(xyz)
    for number, shape in enumerate(shapes):
        rows = torch.from_numpy(np.flatnonzero(person == number))
        fitted[rows] = pose.rows(rows).points(model, scales[rows], shape.markers)
    error = (fitted - xyz).norm(dim=-1)
    return HandFit(pose.angles, pose.rotation, pose.centre, fitted, error, tuple(shapes))


def _double(assets: HandAssets) -> HandAssets:
    """The parts that fitting needs, in double precision."""
    skeleton = replace(
        assets.skeleton, rotation=assets.skeleton.rotation.double(), offset=assets.skeleton.offset.double()
    )
    return replace(assets, skeleton=skeleton, nyu=Markers(assets.nyu.bone, assets.nyu.offset.double()))


def _own_shape(assets: HandAssets) -> HandShape:
    rows = list(NYU_14_OF_36)
    markers = Markers(assets.nyu.bone[rows], assets.nyu.offset[rows])
    return HandShape(torch.ones(len(BONES), 3, dtype=torch.float64), markers)


@dataclass(frozen=True)
class _Pose:
    angles: Tensor
    rotation: Tensor
    centre: Tensor

    @classmethod
    def empty(cls, count: int) -> _Pose:
        numbers = torch.float64
        return cls(
            torch.zeros(count, len(ANGLES), dtype=numbers),
            torch.eye(3, dtype=numbers).repeat(count, 1, 1),
            torch.zeros(count, 3, dtype=numbers),
        )

    def rows(self, rows: Tensor) -> _Pose:
        return _Pose(self.angles[rows], self.rotation[rows], self.centre[rows])

    def set(self, rows: Tensor, other: _Pose) -> None:
        self.angles[rows], self.rotation[rows], self.centre[rows] = other.angles, other.rotation, other.centre

    def moved(self, step: Tensor) -> _Pose:
        """The pose after a step [..., A + 6]: angles, a turn in the camera's frame, a shift."""
        angles = len(ANGLES)
        turned = product(rotation_vector(step[..., angles : angles + 3]), self.rotation)
        return _Pose(self.angles + step[..., :angles], turned, self.centre + step[..., angles + 3 :])

    def hand(self, assets: HandAssets, scale: Tensor) -> PosedHand:
        return pose_hand(assets, self.angles, self.rotation, self.centre, scale)

    def points(self, assets: HandAssets, scale: Tensor, markers: Markers) -> Tensor:
        return self.hand(assets, scale).place(markers)


def _preferences(angles: Tensor) -> Tensor:
    """Residuals in mm that say which angles are likely where the points leave a choice."""
    wrist = _WRIST_MM * angles[..., :2]
    low, high = limits().double().unbind(1)
    inside = _ANGLE_MM * (angles - (0.6 * low + 0.4 * high))[..., 2:]
    place = {name: k for k, name in enumerate(ANGLES)}
    pairs = [(place[f"{finger}_dip_flex"], place[f"{finger}_pip_flex"]) for finger in FINGERS]
    coupled = [_COUPLING_MM * (angles[..., dip] - 2 / 3 * angles[..., pip]) for dip, pip in pairs]
    return torch.cat([wrist, inside, torch.stack(coupled, -1)], -1)


def _first_pose(assets: HandAssets, shape: HandShape, xyz: Tensor, flexion: float) -> _Pose:
    """A start: fingers flexed alike, orientation and place by the points that a palm nearly carries (Kabsch)."""
    pose = _Pose.empty(len(xyz))
    for name in (f"{finger}_{joint}_flex" for finger in FINGERS for joint in ("mcp", "pip")):
        pose.angles[:, ANGLES.index(name)] = flexion
    scale = shape.scale.expand(len(xyz), *shape.scale.shape)
    model = pose.points(assets, scale, shape.markers)
    weight = torch.full((_JOINTS, 1), 0.02, dtype=torch.float64)
    weight[[1, 3, 5, 7]] = 0.2
    weight[[11, 12, 13]] = 1.0
    weight = weight / weight.sum()
    from_middle, to_middle = (weight * model).sum(1), (weight * xyz).sum(1)
    spread = (weight * (model - from_middle[:, None])).transpose(1, 2) @ (xyz - to_middle[:, None])
    u, _, vh = torch.linalg.svd(spread)
    sign = torch.ones(len(xyz), 3, dtype=torch.float64)
    sign[:, 2] = torch.linalg.det(vh.transpose(1, 2) @ u.transpose(1, 2)).sign()
    rotation = (vh.transpose(1, 2) * sign[:, None]) @ u.transpose(1, 2)
    return _Pose(pose.angles, rotation, to_middle - apply(rotation, from_middle))


def solve(assets: HandAssets, shape: HandShape, xyz: Tensor, start: _Pose | None = None, steps: int = _STEPS) -> _Pose:
    """Poses for joints [B, 14, 3] in mm of a person of known shape: the better of two starts, or on from `start`."""
    if start is not None:
        return _descend(assets, shape, xyz, start, steps)[0]
    found = [_descend(assets, shape, xyz, _first_pose(assets, shape, xyz, flexion), steps) for flexion in _STARTS]
    best = found[0][0]
    better = torch.nonzero(found[1][1] < found[0][1])[:, 0]
    best.set(better, found[1][0].rows(better))
    return best


def _descend(assets: HandAssets, shape: HandShape, xyz: Tensor, pose: _Pose, steps: int) -> tuple[_Pose, Tensor]:
    """Levenberg-Marquardt from `pose`: the pose and its cost [B]."""
    low, high = limits().double().unbind(1)
    free = len(ANGLES) + 6
    damping = torch.full((len(xyz),), 1.0, dtype=torch.float64)

    def residual(step: Tensor, angles: Tensor, rotation: Tensor, centre: Tensor, target: Tensor) -> Tensor:
        moved = _Pose(angles, rotation, centre).moved(step)
        scale = shape.scale[None]
        hand = pose_hand(assets, moved.angles[None], moved.rotation[None], moved.centre[None], scale)
        return torch.cat([(hand.place(shape.markers)[0] - target).flatten(), _preferences(moved.angles)])

    values, slopes = vmap(residual), vmap(jacfwd(residual))
    still = torch.zeros(len(xyz), free, dtype=torch.float64)

    def measured(at: _Pose) -> Tensor:
        return values(still, at.angles, at.rotation, at.centre, xyz)

    now = measured(pose)
    cost = now.square().sum(1)
    for _ in range(steps):
        jacobian = slopes(still, pose.angles, pose.rotation, pose.centre, xyz)
        normal = jacobian.transpose(1, 2) @ jacobian
        gradient = (jacobian * now[:, :, None]).sum(1)
        # an angle at its limit that wants to go beyond is held there
        held = ((pose.angles <= low) & (gradient[:, : len(low)] > 0)) | (
            (pose.angles >= high) & (gradient[:, : len(low)] < 0)
        )
        stiff = torch.zeros_like(still)
        stiff[:, : len(low)] = held * 1e9
        diagonal = torch.diagonal(normal, dim1=1, dim2=2)
        system = normal + torch.diag_embed(damping[:, None] * (1 + 1e-3 * diagonal) + stiff)
        step = torch.linalg.solve(system, -gradient)
        moved = pose.moved(step)
        moved = _Pose(moved.angles.clamp(low, high), moved.rotation, moved.centre)
        after = measured(moved)
        better = after.square().sum(1) < cost
        rows = torch.nonzero(better)[:, 0]
        pose.set(rows, moved.rows(rows))
        now = torch.where(better[:, None], after, now)
        cost = now.square().sum(1)
        damping = torch.where(better, damping / 4, damping * 5).clamp(1e-4, 1e8)
    return pose, cost


def calibrate(assets: HandAssets, xyz: Tensor) -> HandShape:
    """A person's bone sizes and point places from some of their frames [B, 14, 3]: poses and shape in turn."""
    chosen = torch.linspace(0, len(xyz) - 1, min(len(xyz), _CALIBRATION_FRAMES)).round().long()
    xyz, own = xyz[chosen], _own_shape(assets)
    numbers = torch.zeros(8 + 3 * _JOINTS, dtype=torch.float64)
    shape, pose = own, None
    for _ in range(_ROUNDS):
        pose = solve(assets, shape, xyz, pose, steps=_STEPS if pose is None else 6)
        numbers = _shape_step(assets, own, numbers, pose, xyz)
        shape = _shape(own, numbers)
    return shape


def _shape(own: HandShape, numbers: Tensor) -> HandShape:
    """The shape of numbers [S]: logs of size, palm width, palm length and five digit lengths, then places in mm."""
    rows = torch.zeros(len(BONES), 3, 8, dtype=torch.float64)
    rows[:, :, 0] = 1.0
    rows[0, 0, 1] = rows[0, 1, 2] = 1.0
    for digit, base in enumerate(DIGIT_BASES):
        rows[base : base + 3, 1, 3 + digit] = 1.0
    scale = own.scale * (rows @ numbers[:8]).exp()
    offset = own.markers.offset + numbers[8:].view(_JOINTS, 3)
    return HandShape(scale, Markers(own.markers.bone, offset))


def _shape_step(assets: HandAssets, own: HandShape, numbers: Tensor, pose: _Pose, xyz: Tensor) -> Tensor:
    """One Gauss-Newton step of the shape's numbers with the poses held."""
    spread = torch.cat([torch.full((8,), _LENGTH_SD), torch.full((3 * _JOINTS,), _MARKER_SD_MM)]).double()

    def residual(values: Tensor) -> Tensor:
        shape = _shape(own, values)
        scale = shape.scale.expand(len(xyz), *shape.scale.shape)
        return torch.cat([(pose.points(assets, scale, shape.markers) - xyz).flatten(), 10 * values / spread])

    jacobian, value = jacfwd(residual)(numbers), residual(numbers)
    step: Tensor = torch.linalg.lstsq(jacobian, value[:, None]).solution[:, 0]
    return numbers - step
