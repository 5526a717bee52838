"""A structured-light depth camera (Kinect v1 style) that turns renders into the *stand-in target domain* of hands.

The paper's real domain is NYU (section 3.2): Kinect frames with jagged, torn depth edges, which the refiner learns.
Without those frames the project records other procedural hands with this model. It is a stand-in and never called
real. Three settings
(`lateral_cell_px`, `edge_failure`, `shadow_bridged_px`) are set by eye and by `evaluation.silhouettes` on the 20
published NYU crops at hand, the others come from the sources.

Sources of the parts:
- disparity is measured in steps of 1/8 pixel of fb/z, f = 575.8 px, b = 75 mm (Khoshelham and Elberink, Sensors 2012;
  Konolige and Mihelich, ROS kinect_calibration): the step of depth grows with the square of the distance;
- a disparity belongs to a block of projected dots, not to a pixel, so depth is looked up at displaced positions
  (Barron and Malik, CVPR 2013; Handa et al., ICRA 2014), with displacements that are shared by a few pixels because
  dots are a few pixels apart (Landau et al., IEEE Trans. Cybernetics 2015);
- lateral spread about 0.8 px and axial spread 1.2 mm + 1.9 mm (z - 0.4 m)^2 / m^2 (Nguyen, Izadi and Lovell, 3DIMPVT
  2012), which also find that surfaces are lost when seen at more than about 70 to 80 degrees;
- the projector stands 75 mm aside: what it cannot light has no depth, a shadow on one side of near objects; and where
  a block straddles two depths the match can fail (Mallick, Das and Majumdar, IEEE Sensors J. 2014, survey).

B images, H rows, W columns; depth in mm, 0 = none; lengths in pixels of the sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simgan_core.hand_crop import PAPER_BACKGROUND_MM, crop_frame, cube_box
from simgan_core.simulators.counter_random import normals, uniforms
from simgan_core.simulators.hand import HandBatch, HandSimulator, mirrored

WINDOW = 384  # pixels of the sensor that are simulated about a hand, the same for all: noise must not depend on others
_STREAMS = {"across": 0x4B31, "down": 0x4B32, "axial": 0x4B33, "fail": 0x4B34, "bias": 0x4B35}


@dataclass(frozen=True)
class KinectCamera:
    """The camera's settings. Calling it is a pure function of (depth, seed, indices): the batch changes nothing."""

    focal_px: float = 575.8
    baseline_mm: float = 75.0
    disparity_step_px: float = 0.125
    lateral_px: float = 0.8  # standard deviation of the displacement (Nguyen et al.: 0.8 and more with the angle)
    lateral_cell_px: float = 6.0  # distance over which displacements are shared
    axial_scale: float = 1.0  # of Nguyen et al.'s spread
    axial_cell_px: float = 2.0
    edge_jump_mm: float = 15.0  # neighbours that differ by more are an edge
    edge_reach_px: int = 2
    edge_failure: float = 0.005  # share of the places beside an edge without a match
    failure_cell_px: float = 2.5
    grazing_deg: float = 75.0  # surfaces seen at more are lost
    shadow: bool = True
    shadow_bridged_px: float = 3.0  # matching blocks see across shadows that are no wider
    wall_mm: float = PAPER_BACKGROUND_MM

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and value < 0:
                raise ValueError(f"KinectCamera.{field.name}: {value} found; 0 or more expected")
        if not self.edge_failure <= 1 or not 0 < self.grazing_deg <= 90 or self.disparity_step_px == 0:
            raise ValueError(
                f"KinectCamera: edge_failure {self.edge_failure}, grazing_deg {self.grazing_deg}, disparity_step_px "
                f"{self.disparity_step_px} found; a share, an angle up to 90 and a step above 0 expected"
            )

    def __call__(self, depth: Tensor, seed: int, indices: Sequence[int] | NDArray[np.int64] | Tensor) -> Tensor:
        """Record depth [B, H, W] in mm (0 = the wall) as the camera sees it: mm, 0 where it finds no depth."""
        index = np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices, dtype=np.int64)
        if depth.ndim != 3 or len(index) != len(depth):
            raise ValueError(
                f"depth of shape {tuple(depth.shape)} with {len(index)} indices found; [B, H, W] in mm and one index "
                "per image expected"
            )
        scene = torch.where(depth > 0, depth, self.wall_mm)
        noise = _Noise(seed, index, scene)
        seen = self._displace(scene, noise)
        metres = seen / 1000.0
        spread = self.axial_scale * (1.2 + 1.9 * (metres - 0.4) ** 2)
        seen = seen + spread * noise.field("axial", self.axial_cell_px)
        lost = self._unmatched(scene, noise) | self._grazing(scene)
        if self.shadow:
            lost |= self._shadow(scene)
        return torch.where(lost, 0.0, self._quantise(seen))

    def _displace(self, scene: Tensor, noise: _Noise) -> Tensor:
        """Look each pixel up at a place nearby; neighbours share most of the displacement."""
        count, height, width = scene.shape
        x = torch.arange(width, device=scene.device) + self.lateral_px * noise.field("across", self.lateral_cell_px)
        y = torch.arange(height, device=scene.device)[:, None]
        y = y + self.lateral_px * noise.field("down", self.lateral_cell_px)
        column, row = x.round().long().clamp(0, width - 1), y.round().long().clamp(0, height - 1)
        return scene.flatten(1).gather(1, (row * width + column).flatten(1)).view(count, height, width)

    def _quantise(self, depth: Tensor) -> Tensor:
        product = self.focal_px * self.baseline_mm
        steps = (product / depth / self.disparity_step_px).round().clamp(min=1.0)
        return (product / (steps * self.disparity_step_px)).round()  # the device delivers whole mm

    def _unmatched(self, scene: Tensor, noise: _Noise) -> Tensor:
        """Where a match fails because the block straddles an edge."""
        jump = _local(scene, "max", self.edge_reach_px) - _local(scene, "min", self.edge_reach_px) > self.edge_jump_mm
        level = float(normals(np.array([max(min(1 - self.edge_failure, 1 - 1e-9), 1e-9)]))[0])
        return jump & (noise.field("fail", self.failure_cell_px) > level)

    def _grazing(self, scene: Tensor) -> Tensor:
        """Where the surface itself, away from edges, is seen at a flat angle."""
        pixel_mm = scene / self.focal_px
        across = (scene[:, :, 2:] - scene[:, :, :-2]).abs()
        down = (scene[:, 2:] - scene[:, :-2]).abs()
        slope = torch.maximum(F.pad(across, (1, 1)), F.pad(down, (0, 0, 1, 1))) / (2 * pixel_mm)
        steep = slope > float(np.tan(np.deg2rad(min(self.grazing_deg, 89.9))))
        return steep & (slope * 2 * pixel_mm < self.edge_jump_mm)

    def _shadow(self, scene: Tensor) -> Tensor:
        """Where a nearer surface further right keeps the projector's light away (rays would cross)."""
        disparity = self.focal_px * self.baseline_mm / scene
        ray = torch.arange(scene.shape[-1], device=scene.device) - disparity  # the projector's column
        right = torch.cat([ray[..., 1:], torch.full_like(ray[..., :1], torch.inf)], -1)
        nearest = right.flip(-1).cummin(-1).values.flip(-1)
        return nearest < ray - max(self.shadow_bridged_px, 0.5)


class _Noise:
    """Fields of normal noise that is shared by cells of some pixels, per image a function of (seed, index) alone."""

    def __init__(self, seed: int, index: NDArray[np.int64], like: Tensor) -> None:
        self._seed, self._index, self._like = seed, index, like

    def field(self, name: str, cell: float) -> Tensor:
        """Standard normal noise [B, H, W]: coarse noise, interpolated, scaled back to unit variance."""
        height, width = self._like.shape[1:]
        rows, columns = (max(int(np.ceil(n / max(cell, 1.0))) + 1, 2) for n in (height, width))
        draw = normals(uniforms(self._seed ^ _STREAMS[name], self._index, rows * columns))
        coarse = torch.from_numpy(draw).float().view(-1, 1, rows, columns).to(self._like.device)
        if cell <= 1:
            return coarse[:, 0, :height, :width]
        weight = torch.ones(1, 1, rows, columns, device=coarse.device)
        fine = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        return (fine / _spread(weight, (height, width)))[:, 0]


def _spread(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    """Standard deviation [1, 1, H, W] of bilinear interpolation of unit noise: root of the sum of squared weights."""
    profiles = []
    for count, target in zip(coarse.shape[2:], size, strict=True):
        place = torch.linspace(0, count - 1, target, device=coarse.device)
        share = place - place.floor()
        profiles.append((share**2 + (1 - share) ** 2).sqrt())
    return (profiles[0][:, None] * profiles[1])[None, None]


def _local(scene: Tensor, kind: str, reach: int) -> Tensor:
    """Largest or smallest depth within `reach` pixels."""
    sign = 1.0 if kind == "max" else -1.0
    return sign * F.max_pool2d(sign * scene[:, None], 2 * reach + 1, stride=1, padding=reach)[:, 0]


@torch.no_grad()
def record(simulator: HandSimulator, camera: KinectCamera, seed: int, indices: Sequence[int]) -> HandBatch:
    """Images `indices` as the camera records them: rendered at the sensor's pixels, recorded, cropped, resampled.

    Labels are those of the scene. Left hands are mirrored before the recording, so that shadows stay on their side.
    """
    parameters = simulator.sample(seed, indices)
    hand, labels = simulator.pose(parameters), simulator.labels(parameters)
    box = cube_box(labels.cube, simulator.camera)
    if bool(((box[:, 2:] - box[:, :2]) > WINDOW - 16).any()):
        raise ValueError(
            f"a crop of {float((box[:, 2:] - box[:, :2]).max()):.0f} pixels of the sensor found; at most {WINDOW - 16} "
            "expected; keep hands farther away (HandRanges.depth_mm), or the cube smaller"
        )
    origin = ((box[:, :2] + box[:, 2:]) / 2 - WINDOW / 2).floor()
    side = WINDOW
    window = torch.cat([origin, origin + side], 1)
    scene = HandBatch(simulator.depth(hand, window, (side, side)), labels, parameters)
    scene, origin = mirrored(scene, simulator.camera, simulator.size[1]), origin.clone()
    left = parameters.left
    origin[left, 0] = 2 * simulator.camera.cx - origin[left, 0] - side
    seen = camera(scene.depth, seed, parameters.index)
    cube = scene.labels.cube.clone()
    cube[:, :2] -= origin
    crop = crop_frame(seen, cube, simulator.size, simulator.camera)
    return replace(scene, depth=crop)
