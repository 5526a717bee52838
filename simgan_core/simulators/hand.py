"""The hand simulator: parameters in, depth crops with joints out, in batches, on any device.

Order of work for a batch: bones by forward kinematics -> skin by linear blending -> camera -> crop cube about the
joints -> depth by z-buffer, at the crop's own pixels. Left hands are rendered as right ones and mirrored at the end,
which is exact because the camera's picture mirrors about its axis.

B images, V vertices, N = 17 bones, K influences, J joints, h w crop; camera frame as in `simgan_core.hand_crop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simgan_core.hand_crop import (
    NYU_14_OF_36,
    NYU_CAMERA,
    Intrinsics,
    cube_about,
    cube_box,
    encode_depth,
    keep_cube,
    to_crop_pixels,
    uvd_to_xyz,
    xyz_to_uvd,
)
from simgan_core.simulators.hand_assets import HandAssets, Markers
from simgan_core.simulators.hand_ranges import HandParameters, HandRanges, sample_hands
from simgan_core.simulators.hand_skeleton import PARENTS, Skeleton, apply, forward, product
from simgan_core.simulators.raster import rasterise_depth

__all__ = ["HandBatch", "HandLabels", "HandSimulator"]

_PALM_MIDDLE = 0.6  # share of the palm's length from wrist to knuckles that `centre` means


@dataclass(frozen=True)
class HandLabels:
    """Labels of a batch, in the order of `JOINTS_14`, `JOINTS_21` and `JOINTS_36`."""

    uvd: Tensor  # [B,14,3] pixels of the crop, mm
    frame_uvd: Tensor  # [B,14,3] pixels of the camera's frame, mm
    xyz: Tensor  # [B,14,3] mm
    joints_21: Tensor  # [B,21,3] mm
    joints_36: Tensor  # [B,36,3] mm
    cube: Tensor  # [B,4] u, v, d, side
    view: Tensor  # int64 [B]
    pose: Tensor  # int64 [B]


@dataclass(frozen=True)
class HandBatch:
    """Rendered crops with their labels and parameters."""

    depth: Tensor  # [B,h,w] mm, 0 where there is no hand within the cube
    labels: HandLabels
    parameters: HandParameters

    @property
    def crop(self) -> Tensor:
        """The crops as levels uint8 [B, 1, h, w]."""
        return encode_depth(self.depth, self.labels.cube)


@dataclass(frozen=True)
class PosedHand:
    """Bones in the camera's frame: point p of bone b lies at linear[b] p + origin[b]."""

    linear: Tensor  # [B,N,3,3] rotation times scale
    origin: Tensor  # [B,N,3] mm

    def place(self, markers: Markers) -> Tensor:
        """Markers [B, M, 3] in mm."""
        return apply(self.linear[:, markers.bone], markers.offset) + self.origin[:, markers.bone]


def scaled(skeleton: Skeleton, scale: Tensor) -> Skeleton:
    """Skeletons [B, N, ...] whose bones have other sizes; `scale` [B, N, 3]. Joints move with the parent's scale."""
    parents = [max(parent, 0) for parent in PARENTS]
    rotation = skeleton.rotation.expand(len(scale), *skeleton.rotation.shape[-3:])
    return Skeleton(rotation, skeleton.offset * scale[:, parents])


def pose_hand(assets: HandAssets, angles: Tensor, rotation: Tensor, centre: Tensor, scale: Tensor) -> PosedHand:
    """Bones of B hands; `centre` is where the palm's middle lies, `rotation` turns the palm's frame to the camera's."""
    bone_rotation, bone_origin = forward(scaled(assets.skeleton, scale), angles)
    middle = _PALM_MIDDLE * assets.skeleton.offset[8] * scale[:, 0]
    linear = product(rotation[:, None], bone_rotation) * scale[:, :, None, :]
    origin = apply(rotation[:, None], bone_origin - middle[:, None]) + centre[:, None]
    return PosedHand(linear, origin)


class Skin:
    """Linear blend skinning of `assets` for posed bones."""

    def __init__(self, assets: HandAssets) -> None:
        self.bone, self.weight = assets.bone, assets.weight
        from_bone = assets.vertices[:, None] - assets.rest_origin[assets.bone]
        to_bone = assets.rest_rotation[assets.bone].transpose(-1, -2)
        self.local = apply(to_bone, from_bone)  # [V,K,3] of each vertex in the frames of its bones

    def __call__(self, hand: PosedHand) -> Tensor:
        """Vertices [B, V, 3] in mm."""
        total: Tensor | None = None
        for k in range(self.bone.shape[1]):
            bone = self.bone[:, k]
            part = apply(hand.linear[:, bone], self.local[:, k]) + hand.origin[:, bone]
            part = part * self.weight[:, k, None]
            total = part if total is None else total + part
        assert total is not None
        return total


class HandSimulator:
    """Draws and renders hands from `assets` within `ranges`.

    `size` is (height, width) of the crops, `views` how many views of a pose follow each other. Raises ValueError for
    crops below 16 pixels.
    """

    def __init__(
        self,
        assets: HandAssets,
        ranges: HandRanges | None = None,
        *,
        size: tuple[int, int] = (224, 224),
        views: int = 3,
        camera: Intrinsics = NYU_CAMERA,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(size) < 16:
            raise ValueError(f"size {size} found; crops of at least 16 pixels expected, e.g. (224, 224)")
        self.ranges = HandRanges() if ranges is None else ranges
        self.size, self.views, self.camera = size, views, camera
        self.device = torch.device(device)
        self.assets = assets.to(self.device)
        self._skin = Skin(self.assets)

    def sample(self, seed: int, indices: Sequence[int]) -> HandParameters:
        """Draw the parameters of images `indices` of stream `seed`; each depends on (seed, index) alone."""
        return sample_hands(self.ranges, seed, indices, self.views).to(self.device)

    def batch(self, seed: int, indices: Sequence[int]) -> HandBatch:
        """Draw and render."""
        return self.render(self.sample(seed, indices))

    @torch.no_grad()
    def render(self, parameters: HandParameters) -> HandBatch:
        """Render the crops of `parameters`, all at once; about 3 MB each at 224x224."""
        parameters = parameters.to(self.device)
        hand = self.pose(parameters)
        labels = self.labels(parameters)
        depth = self.depth(hand, cube_box(labels.cube, self.camera), self.size)
        return mirrored(HandBatch(keep_cube(depth, labels.cube), labels, parameters), self.camera, self.size[1])

    def pose(self, parameters: HandParameters) -> PosedHand:
        """Bones in the camera's frame."""
        return pose_hand(self.assets, parameters.angles, parameters.rotation, parameters.centre, parameters.scale)

    def depth(self, hand: PosedHand, box: Tensor, size: tuple[int, int]) -> Tensor:
        """Depth [B, h, w] in mm of the part of the frame in `box` [B, 4] (left, top, right, bottom); 0 = nothing."""
        u, v, d = xyz_to_uvd(self._skin(hand), self.camera).unbind(-1)
        left, top, right, bottom = (edge[:, None] for edge in box.unbind(-1))
        x, y = (u - left) * (size[1] / (right - left)), (v - top) * (size[0] / (bottom - top))
        screen = torch.stack([x, y, d], -1)
        depth = rasterise_depth(screen, self.assets.triangles, *size, two_sided=self.assets.two_sided)
        return torch.where(depth.isfinite(), depth, 0.0)

    def labels(self, parameters: HandParameters) -> HandLabels:
        """Labels of the hands as right ones: `mirrored` turns left ones round."""
        parameters = parameters.to(self.device)
        hand = self.pose(parameters)
        joints_36 = hand.place(self.assets.nyu)
        xyz = joints_36[:, NYU_14_OF_36]
        frame_uvd = xyz_to_uvd(xyz, self.camera)
        middle = uvd_to_xyz(cube_about(frame_uvd, camera=self.camera)[:, :3], self.camera) + parameters.cube_shift
        cube = torch.cat([xyz_to_uvd(middle, self.camera), parameters.cube_mm[:, None]], 1)
        return HandLabels(
            uvd=to_crop_pixels(frame_uvd, cube, self.size, self.camera),
            frame_uvd=frame_uvd,
            xyz=xyz,
            joints_21=hand.place(self.assets.common),
            joints_36=joints_36,
            cube=cube,
            view=parameters.view,
            pose=parameters.pose,
        )


def mirrored(batch: HandBatch, camera: Intrinsics, width: int) -> HandBatch:
    """Turn the rows that are to be left hands into them: reflect picture and labels about the camera's axis.

    `width` is that of the crop that the labels are pixels of.
    """
    left, labels = batch.parameters.left, batch.labels
    if not bool(left.any()):
        return batch

    def reflect(points: Tensor, about: float) -> Tensor:
        other = torch.cat([about - points[..., :1], points[..., 1:]], -1)
        return torch.where(left.view(-1, *[1] * (points.ndim - 1)), other, points)

    mirrored = HandLabels(
        uvd=reflect(labels.uvd, float(width)),
        frame_uvd=reflect(labels.frame_uvd, 2 * camera.cx),
        xyz=reflect(labels.xyz, 0.0),
        joints_21=reflect(labels.joints_21, 0.0),
        joints_36=reflect(labels.joints_36, 0.0),
        cube=reflect(labels.cube, 2 * camera.cx),
        view=labels.view,
        pose=labels.pose,
    )
    depth = torch.where(left[:, None, None], batch.depth.flip(-1), batch.depth)
    return HandBatch(depth, mirrored, batch.parameters)
