"""The eye simulator: parameters in, labelled images out, in batches, on any device.

Order of work for a batch: shape, lids, head and camera (`scene`) -> skin by z-buffer (`raster`, `skin`) -> eyeball by
rays (`eyeball`, `eyeball_paint`) -> lashes -> exposure and sRGB. Lighting is linear; images are sRGB-coded in [0, 1].

Legend: B images, C channels, H W frame, h w canvas = frame times supersampling, P samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.gaze import gaze_vector
from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.eyeball import limbus_points, pupil_centre_seen
from simgan_core.simulators.eyeball_paint import Eyeball
from simgan_core.simulators.lashes import Lashes
from simgan_core.simulators.light import SceneLight, falloff_field
from simgan_core.simulators.ranges import EyeParameters, EyeRanges, sample_parameters
from simgan_core.simulators.raster import rasterise
from simgan_core.simulators.scene import Pose, Poser, gaze_rotation, rotate
from simgan_core.simulators.shading import linear_to_srgb
from simgan_core.simulators.skin import Skin

__all__ = ["EyeBatch", "EyeLabels", "EyeSimulator", "gaze_rotation"]

_MEAN_LINEAR = 0.2  # average linear brightness of an image at exposure 1
_BACKGROUND = 0.02
_IRIS_LANDMARKS = 32


@dataclass(frozen=True)
class EyeLabels:
    """Labels of a batch; positions in pixels of the frame (x right, y down, corner of the first pixel = 0)."""

    gaze: Tensor  # [B,2] pitch, yaw in radians, camera frame
    gaze_vector: Tensor  # [B,3]
    head: Tensor  # [B,3] pitch, yaw, roll in radians
    pupil: Tensor  # [B,2] as seen through the cornea
    iris_landmarks: Tensor  # [B,32,2] around the limbus
    lid_landmarks: Tensor  # [B,20,2] along the lid margins: upper lid from the inner corner, then back along the lower


@dataclass(frozen=True)
class EyeBatch:
    """Rendered images with their parameters and labels."""

    image: Tensor  # float [B,C,H,W] in [0,1], sRGB-coded, not equalised
    labels: EyeLabels
    parameters: EyeParameters


class EyeSimulator:
    """Draws and renders eyes from `assets` within `ranges`.

    `frame` is (height, width) of the images, `supersample` the number of samples along each side of a pixel, `colour`
    chooses three channels instead of one. Raises ValueError for frames below 8 pixels.
    """

    def __init__(
        self,
        assets: EyeAssets,
        ranges: EyeRanges | None = None,
        *,
        frame: tuple[int, int] = (36, 60),
        supersample: int = 2,
        colour: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(frame) < 8 or supersample < 1:
            raise ValueError(
                f"frame {frame} with supersample {supersample} found; expected sides of at least 8 pixels and at least "
                "1 sample; pass e.g. frame=(36, 60), supersample=2"
            )
        self.ranges = EyeRanges() if ranges is None else ranges
        self.frame, self.supersample, self.colour = frame, supersample, colour
        self.device = torch.device(device)
        self._drawn_from = assets  # as given: parameters are drawn on the CPU
        self.assets = assets.to(self.device)
        canvas = (frame[0] * supersample, frame[1] * supersample)
        sample_mm = self.ranges.field_width_normal_mm[0] / canvas[1]
        self._poser = Poser(self.assets, canvas, self.ranges.camera_distance_mm)
        self._skin = Skin(self.assets, self._poser, colour=colour, sample_mm=sample_mm)
        self._eyeball = Eyeball(self.assets, self._skin.visibility, colour=colour)
        self._lashes = Lashes(self.assets)

    def sample(self, seed: int, indices: Sequence[int], ranges: EyeRanges | None = None) -> EyeParameters:
        """Draw the parameters of images `indices` of stream `seed`; each depends on (seed, index) alone.

        `ranges` other than the simulator's own may be given.
        """
        return sample_parameters(self._drawn_from, ranges or self.ranges, seed, indices).to(self.device)

    @torch.no_grad()
    def render(self, parameters: EyeParameters) -> EyeBatch:
        """Render the images of `parameters`, all at once; memory grows with their number (about 2 MB each at 36x60)."""
        parameters = parameters.to(self.device)
        scene = self._poser.pose(parameters)
        light = SceneLight(self.assets, parameters, scene, colour=self.colour)
        samples = len(parameters) * scene.height * scene.width
        canvas = torch.full((samples, 3 if self.colour else 1), _BACKGROUND, device=self.device)
        depth = torch.full((samples,), torch.inf, device=self.device)
        fragments = rasterise(scene.project(scene.vertices), self.assets.triangles, scene.height, scene.width)
        canvas[fragments.pixel] = self._skin.shade(scene, parameters, fragments, light)
        depth[fragments.pixel] = fragments.depth
        self._eyeball.draw(scene, parameters, light, canvas, depth)
        self._lashes.draw(scene, parameters, canvas)
        image = self._develop(canvas.view(len(parameters), scene.height, scene.width, -1), parameters)
        return EyeBatch(image, self._labels(scene, parameters), parameters)

    def _develop(self, canvas: Tensor, parameters: EyeParameters) -> Tensor:
        """Average the samples of each pixel, light them unevenly, expose, encode: [B, C, H, W] in [0, 1]."""
        image = functional.avg_pool2d(canvas.permute(0, 3, 1, 2), self.supersample)
        image = image * falloff_field(parameters.falloff, self.frame)
        mean = image.mean(3).mean(2).mean(1)  # one axis at a time: the same sums whatever the batch's size
        gain = _MEAN_LINEAR * parameters.exposure / mean.clamp(min=1e-3)
        return linear_to_srgb(image * gain[:, None, None, None])

    @torch.no_grad()
    def label(self, parameters: EyeParameters) -> EyeLabels:
        """The labels of `parameters` without their images: thousands a second."""
        return self._labels(self._poser.place(parameters), parameters)

    def _labels(self, pose: Pose, parameters: EyeParameters) -> EyeLabels:
        shape = self.assets.eyeball
        to_camera = rotate(pose.eye_rotation.transpose(1, 2), -pose.centre[:, None])[:, 0]
        to_camera = functional.normalize(to_camera, dim=-1)
        pupil = pupil_centre_seen(to_camera, shape)[:, None]
        limbus = limbus_points(_IRIS_LANDMARKS, parameters.iris_scale, to_camera, shape)
        on_eye = rotate(pose.eye_rotation, torch.cat([pupil, limbus], 1)) + pose.centre[:, None]
        margin = pose.control[:, self.assets.lid_loops[0]]
        pixels = pose.project(torch.cat([on_eye, margin], 1))[..., :2] / self.supersample
        return EyeLabels(
            gaze=parameters.gaze,
            gaze_vector=gaze_vector(parameters.gaze),
            head=parameters.head,
            pupil=pixels[:, 0],
            iris_landmarks=pixels[:, 1 : 1 + _IRIS_LANDMARKS],
            lid_landmarks=pixels[:, 1 + _IRIS_LANDMARKS :],
        )
