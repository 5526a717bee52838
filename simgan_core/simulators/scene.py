"""A posed batch of eyes in the camera's frame: shape, lids, subdivision, head pose, perspective camera.

Legend: B images, V control vertices, W fine vertices. Camera frame: x right, y down, z away from the camera, mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.lids import pose_lids
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.shading import faces_around, vertex_normals


@dataclass(frozen=True)
class Pose:
    """Where a batch of eyes is: what its labels follow from, without the fine surface that is drawn."""

    control: Tensor  # [B,V,3]
    centre: Tensor  # [B,3] of the eyeball
    eye_rotation: Tensor  # [B,3,3] eyeball frame -> camera frame
    head_rotation: Tensor  # [B,3,3] head frame -> camera frame
    focal: Tensor  # [B] in pixels of the canvas
    height: int  # of the canvas: the frame times the supersampling
    width: int

    def project(self, points: Tensor) -> Tensor:
        """Project [B, n, 3] to canvas pixels and depth [B, n, 3]; the optical axis meets the canvas in its middle."""
        scale = self.focal[:, None] / points[..., 2]
        x = points[..., 0] * scale + self.width / 2
        y = points[..., 1] * scale + self.height / 2
        return torch.stack([x, y, points[..., 2]], -1)


@dataclass(frozen=True)
class Scene(Pose):
    """A posed batch with its skin."""

    vertices: Tensor  # [B,W,3] skin
    normals: Tensor  # [B,W,3]


def gaze_rotation(pitch: Tensor, yaw: Tensor, roll: Tensor | None = None) -> Tensor:
    """Rotations [B, 3, 3] that take (0, 0, -1), straight at the camera, to the gaze vector of pitch and yaw [B].

    The result's third column is minus (-cos p sin y, -sin p, -cos p cos y); `roll` turns about that direction first.
    """
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    cp, sp, cy, sy = pitch.cos(), pitch.sin(), yaw.cos(), yaw.sin()
    about_x = torch.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).view(-1, 3, 3)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    rotation = compose(about_y, about_x)
    if roll is None:
        return rotation
    cr, sr = roll.cos(), roll.sin()
    return compose(rotation, torch.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).view(-1, 3, 3))


def rotate(rotation: Tensor, points: Tensor) -> Tensor:
    """Apply [B, 3, 3] to [B, n, 3]. Written out: the rounding of a matrix product may depend on the batch's size."""
    x, y, z = points.unsqueeze(-2).unbind(-1)
    r = rotation[:, None]
    return r[..., 0] * x + r[..., 1] * y + r[..., 2] * z


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Matrix product of rotations [B, 3, 3], written out for the same reason."""
    return rotate(first, second.transpose(1, 2)).transpose(1, 2)


def _few_neighbours(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Columns int64 [K, W] and weights [K, W, 1] of the non-zero entries of each row, padded with weight 0."""
    most = int((matrix != 0).sum(1).max())
    columns = matrix.abs().topk(most, dim=1).indices.sort(dim=1).values
    return columns.T.contiguous(), matrix.gather(1, columns).T[..., None].contiguous()


class Poser:
    """Turns parameters into scenes for one set of assets and one canvas (height, width in samples)."""

    def __init__(self, assets: EyeAssets, canvas: tuple[int, int], camera_distance_mm: float) -> None:
        self._assets = assets
        self._canvas = canvas
        self._distance = camera_distance_mm
        self._neighbours, self._weights = _few_neighbours(assets.subdivision)
        # double precision: products of matrices then round to the same floats whatever the batch's size
        self._components = assets.components.double().flatten(1)
        self._faces = faces_around(assets.triangles.cpu(), len(assets.subdivision)).to(assets.mean.device)

    def mean_surface(self) -> tuple[Tensor, Tensor]:
        """Fine vertices and normals [W, 3] of the mean shape, head frame."""
        fine = self._subdivide(self._assets.mean[None])[0]
        return fine, vertex_normals(fine[None], self._assets.triangles, self._faces)[0]

    def _subdivide(self, control: Tensor) -> Tensor:
        """Fine vertices [B, W, 3] of control vertices [B, V, 3]: a few weighted ones each, not a dense product."""
        fine = control.index_select(1, self._neighbours[0]) * self._weights[0]
        for neighbour, weight in zip(self._neighbours[1:], self._weights[1:], strict=True):
            fine.addcmul_(control.index_select(1, neighbour), weight)
        return fine

    def place(self, parameters: EyeParameters) -> Pose:
        """Place a batch: the midpoint of the corners, moved by `parameters.shift`, lies on the optical axis."""
        return self._place(parameters)[0]

    def pose(self, parameters: EyeParameters) -> Scene:
        """Place a batch and subdivide its skin."""
        pose, control = self._place(parameters)
        fine = self._subdivide(control)
        head = pose.head_rotation
        return Scene(
            **vars(pose),
            vertices=rotate(head, fine) + pose.centre[:, None],
            normals=rotate(head, vertex_normals(fine, self._assets.triangles, self._faces)),
        )

    def _place(self, parameters: EyeParameters) -> tuple[Pose, Tensor]:
        """The pose, and the control vertices [B, V, 3] with their lids set, still in the head's frame."""
        assets = self._assets
        head = gaze_rotation(*parameters.head.unbind(-1))
        eye = gaze_rotation(*(parameters.gaze + parameters.kappa).unbind(-1))
        axis = -compose(head.transpose(1, 2), eye)[:, :, 2]  # where the eye looks, in the head's frame
        shape = (parameters.shape.double() @ self._components).view(len(parameters), -1, 3).float() + assets.mean
        aim = (shape[:, assets.inner_corner] + shape[:, assets.outer_corner]) / 2
        aim = aim + functional.pad(parameters.shift, (0, 1))
        pitch = -axis[:, 1].clamp(-1, 1).asin()
        control = pose_lids(shape, assets, axis, pitch, parameters.lid_open, parameters.lid_gain)
        centre = torch.tensor([0.0, 0.0, self._distance], device=aim.device) - rotate(head, aim[:, None])[:, 0]
        height, width = self._canvas
        pose = Pose(
            control=rotate(head, control) + centre[:, None],
            centre=centre,
            eye_rotation=eye,
            head_rotation=head,
            focal=width * self._distance / parameters.field_width,
            height=height,
            width=width,
        )
        return pose, control
