"""Depth crops of hands: camera, crop cube, joint names and 8-bit coding, one way for rendered and recorded frames.

Camera frame: x right, y down, z forward, mm. (The joint files of NYU have y up.) `uvd` is pixel u, v of the frame, with
the first pixel's corner at 0, and depth in mm. A cube is (u, v, d, side): its centre in the frame, depth and side in
mm. Depth 0 means that there is nothing. B images, J joints, H W frame, h w crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PAPER_BACKGROUND_MM = 2000.0  # section 3.2: foreground = depth - 2000, background = 0
CUBE_MM = 300.0  # side of the cube about the hand in the practice of the NYU benchmark (Oberweger et al. 2015)

JOINTS_14 = (
    "little_tip", "little_mid", "ring_tip", "ring_mid", "middle_tip", "middle_mid", "index_tip", "index_mid",
    "thumb_tip", "thumb_mid", "thumb_base", "wrist_ulnar", "wrist_radial", "palm",
)  # fmt: skip
BONES_14 = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (9, 10), (1, 13), (3, 13), (5, 13), (7, 13), (10, 13), (11, 13),
            (12, 13))  # fmt: skip
DIGITS = ("thumb", "index", "middle", "ring", "little")
JOINTS_21 = (
    "wrist",
    *(f"{digit}_{joint}" for digit in DIGITS
      for joint in (("cmc", "mcp", "ip", "tip") if digit == "thumb" else ("mcp", "pip", "dip", "tip"))),
)  # fmt: skip
JOINTS_36 = (
    *(f"{finger}_KNU{knuckle}_{end}" for finger in ("F1", "F2", "F3", "F4", "TH") for knuckle in (3, 2, 1)
      for end in "AB"),
    *(f"PALM_{number}" for number in range(1, 7)),
)  # fmt: skip
NYU_14_OF_36 = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)  # the rows that the published evaluation keeps

_NYU_DIGITS = ("TH", "F4", "F3", "F2", "F1")  # in the order of `DIGITS`


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point in pixels, frame (height, width)."""

    fx: float = 588.03
    fy: float = 587.07
    cx: float = 320.0
    cy: float = 240.0
    frame: tuple[int, int] = (480, 640)


NYU_CAMERA = Intrinsics()


def nyu_21(joints_36: Tensor) -> Tensor:
    """NYU's 36 points [..., 36, 3] in mm read as the 21 joints of `JOINTS_21`: [..., 21, 3].

    NYU has no such set. In its names a segment's B is the end nearer to the wrist, so B of KNU1, KNU2 and KNU3 stand
    for a finger's MCP, PIP and DIP (the thumb's CMC, MCP and IP), A of KNU3 for the tip, and the middle of PALM_1 and
    PALM_2 for the wrist. Of these the tips, PIPs, thumb MCP and IP and the wrist are among the 14 published joints,
    and fitted hands confirm them (`hand_assets`), tips lying some 5 mm inside the skin. Fingers' MCP and DIP and the
    thumb's CMC are *our reading of the names*: no published position at hand confirms it. Report errors on the 14, not
    on these.
    """
    place = {name: k for k, name in enumerate(JOINTS_36)}
    ends = ("KNU1_B", "KNU2_B", "KNU3_B", "KNU3_A")
    rows = [place[f"{digit}_{end}"] for digit in _NYU_DIGITS for end in ends]
    wrist = joints_36[..., [place["PALM_1"], place["PALM_2"]], :].mean(-2, keepdim=True)
    return torch.cat([wrist, joints_36[..., rows, :]], -2)


def xyz_to_uvd(xyz: Tensor, camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """Points [..., 3] in mm to frame pixels and depth."""
    x, y, z = xyz.unbind(-1)
    return torch.stack([x / z * camera.fx + camera.cx, y / z * camera.fy + camera.cy, z], -1)


def uvd_to_xyz(uvd: Tensor, camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """Frame pixels and depth [..., 3] to points in mm."""
    u, v, d = uvd.unbind(-1)
    return torch.stack([(u - camera.cx) * d / camera.fx, (v - camera.cy) * d / camera.fy, d], -1)


def cube_about(uvd: Tensor, side_mm: float = CUBE_MM, camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """The cube [B, 4] about the middle of joints [B, J, 3] in frame pixels and mm."""
    xyz = uvd_to_xyz(uvd, camera)
    centre = xyz_to_uvd((xyz.amin(-2) + xyz.amax(-2)) / 2, camera)
    return torch.cat([centre, torch.full_like(centre[:, :1], side_mm)], 1)


def cube_box(cube: Tensor, camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """Left, top, right, bottom [B, 4] of cubes in frame pixels."""
    u, v, d, side = cube.unbind(-1)
    half_u, half_v = side / 2 * camera.fx / d, side / 2 * camera.fy / d
    return torch.stack([u - half_u, v - half_v, u + half_u, v + half_v], -1)


def to_crop_pixels(uvd: Tensor, cube: Tensor, size: tuple[int, int], camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """Joints [B, J, 3] from frame pixels to pixels of a crop of `size` (height, width); depth stays."""
    corner, scale = _crop_map(cube, size, camera)
    return torch.cat([(uvd[..., :2] - corner) * scale, uvd[..., 2:]], -1)


def crop_uvd(xyz: Tensor, cube: Tensor, size: tuple[int, int], camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """Joints [B, J, 3] in mm of the camera's frame as pixels of the crop and depth: the pixels of any joint set."""
    return to_crop_pixels(xyz_to_uvd(xyz, camera), cube, size, camera)


def from_crop_pixels(uvd: Tensor, cube: Tensor, size: tuple[int, int], camera: Intrinsics = NYU_CAMERA) -> Tensor:
    """Joints [B, J, 3] from pixels of a crop back to frame pixels; depth stays."""
    corner, scale = _crop_map(cube, size, camera)
    return torch.cat([uvd[..., :2] / scale + corner, uvd[..., 2:]], -1)


def _crop_map(cube: Tensor, size: tuple[int, int], camera: Intrinsics) -> tuple[Tensor, Tensor]:
    box = cube_box(cube, camera)[:, None]
    pixels = torch.tensor([size[1], size[0]], dtype=cube.dtype, device=cube.device)
    return box[..., :2], pixels / (box[..., 2:] - box[..., :2])


def crop_frame(
    depth: Tensor, cube: Tensor, size: tuple[int, int] = (224, 224), camera: Intrinsics = NYU_CAMERA
) -> Tensor:
    """Cut cubes out of frames [B, H, W] in mm: crops [B, h, w], 0 outside the cube's depth and outside the frame.

    The nearest pixel is taken: interpolation would invent depths between hand and background.
    """
    if depth.ndim != 3 or cube.shape != (len(depth), 4):
        raise ValueError(
            f"depth {tuple(depth.shape)} with cubes {tuple(cube.shape)} found; frames [B, H, W] in mm and [B, 4] "
            "(u, v, d, side) expected"
        )
    box = cube_box(cube.to(depth.device, torch.float32), camera)
    column, column_in = _nearest(box[:, 0], box[:, 2], size[1], depth.shape[2])
    row, row_in = _nearest(box[:, 1], box[:, 3], size[0], depth.shape[1])
    image = torch.arange(len(depth), device=depth.device)[:, None, None]
    found = depth[image, row[:, :, None], column[:, None, :]].to(torch.float32)
    return keep_cube(torch.where(row_in[:, :, None] & column_in[:, None, :], found, 0.0), cube)


def _nearest(low: Tensor, high: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor]:
    """Frame pixels [B, count] under the centres of the crop's pixels, and whether they exist."""
    steps = (torch.arange(count, device=low.device, dtype=low.dtype) + 0.5) / count
    position = (low[:, None] + (high - low)[:, None] * steps).floor().long()
    return position.clamp(0, limit - 1), (position >= 0) & (position < limit)


def keep_cube(depth: Tensor, cube: Tensor) -> Tensor:
    """Set depth [B, h, w] to 0 where it lies outside the cubes [B, 4]."""
    far, side = _far_side(cube, depth)
    return torch.where((depth > far - side) & (depth < far), depth, 0.0)


def _far_side(cube: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    centre, side = cube.to(depth)[:, 2, None, None], cube.to(depth)[:, 3, None, None]
    return centre + side / 2, side


def encode_depth(depth: Tensor, cube: Tensor) -> Tensor:
    """Depth [B, h, w] in mm as levels uint8 [B, 1, h, w]: 0 is background, 255 the near and 1 the far face of the cube.

    For an image this is an affine map of the paper's values (`paper_values`), in which hands also lie to one side of
    the background's 0; a step of a cube of 300 mm is 1.18 mm, less than a Kinect's own step at arm's length.
    """
    far, side = _far_side(cube, depth)
    level = 1.0 + (254.0 * (far - depth) / side).round().clamp(0.0, 254.0)
    return torch.where(depth > 0, level, 0.0).to(torch.uint8)[:, None]


def decode_depth(levels: Tensor, cube: Tensor) -> Tensor:
    """Levels uint8 [B, 1, h, w] back to mm [B, h, w]; 0 stays 0."""
    level = levels[:, 0].to(torch.float32)
    far, side = _far_side(cube, level)
    return torch.where(level > 0, far - (level - 1.0) / 254.0 * side, 0.0)


def paper_values(depth: Tensor) -> Tensor:
    """The paper's own numbers: 0 for background, depth - 2000 mm for the hand."""
    return torch.where(depth > 0, depth - PAPER_BACKGROUND_MM, 0.0)
