"""The eye simulator: parameters in, labelled images out, in batches, on any device.

Order of work for a batch: shape and lids -> camera -> rasterise skin -> eyeball by rays -> lashes -> exposure, sRGB.
Lighting is computed in linear values; images are sRGB-coded in [0, 1].

Legend: B images, C channels, H W frame, h w supersampled frame, V control and W fine vertices, P pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators import eyeball as ball
from simgan_core.simulators import lashes
from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.environments import harmonics, sphere_directions
from simgan_core.simulators.lids import pose_lids
from simgan_core.simulators.ranges import EyeParameters, EyeRanges, sample_parameters
from simgan_core.simulators.raster import Fragments, rasterise
from simgan_core.simulators.shading import (
    LIFT_MM,
    ShadowMap,
    ambient_visibility,
    faces_around,
    linear_to_srgb,
    look_up,
    luminance,
    rotate_rows,
    srgb_to_linear,
    vertex_normals,
)

_MEAN_LINEAR = 0.2  # average linear brightness of an image at exposure 1
_BACKGROUND = 0.02
_SCREEN = (0.0, 0.2, -0.98, 0.25, 0.16)  # a laptop's screen seen from the eye: direction, half width, half height


@dataclass(frozen=True)
class EyeLabels:
    """Labels of a batch; positions in pixels of the frame (x right, y down, corner of the first pixel = 0)."""

    gaze: Tensor  # [B,2] pitch, yaw in radians, camera frame
    gaze_vector: Tensor  # [B,3]
    head: Tensor  # [B,3] pitch, yaw, roll in radians
    pupil: Tensor  # [B,2]
    iris_landmarks: Tensor  # [B,32,2]
    lid_landmarks: Tensor  # [B,20,2]


@dataclass(frozen=True)
class EyeBatch:
    """Rendered images with their parameters and labels."""

    image: Tensor  # float [B,C,H,W] in [0,1], sRGB-coded, not equalised
    labels: EyeLabels
    parameters: EyeParameters


@dataclass(frozen=True)
class _Scene:
    """A posed batch in the camera's frame (mm)."""

    vertices: Tensor  # [B,W,3] skin
    normals: Tensor  # [B,W,3]
    control: Tensor  # [B,V,3]
    centre: Tensor  # [B,3] of the eyeball
    eye_rotation: Tensor  # [B,3,3] eyeball frame -> camera frame
    head_rotation: Tensor  # [B,3,3]
    focal: Tensor  # [B] pixels of the supersampled frame


def gaze_rotation(pitch: Tensor, yaw: Tensor, roll: Tensor | None = None) -> Tensor:
    """Rotations [B, 3, 3] that take (0, 0, -1), straight at the camera, to the gaze vector of pitch and yaw."""
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)
    cp, sp, cy, sy = pitch.cos(), pitch.sin(), yaw.cos(), yaw.sin()
    about_x = torch.stack([one, zero, zero, zero, cp, sp, zero, -sp, cp], -1).view(-1, 3, 3)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], -1).view(-1, 3, 3)
    rotation = about_y @ about_x
    if roll is None:
        return rotation
    cr, sr = roll.cos(), roll.sin()
    return rotation @ torch.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).view(-1, 3, 3)


def _rotate(rotation: Tensor, points: Tensor) -> Tensor:
    """Apply [B, 3, 3] to [B, n, 3]. Written out: a matrix product's rounding may depend on the batch's size."""
    x, y, z = points.unsqueeze(-2).unbind(-1)
    r = rotation[:, None]
    return r[..., 0] * x + r[..., 1] * y + r[..., 2] * z


class EyeSimulator:
    """Draws and renders eyes from `assets` within `ranges`.

    `frame` is (height, width) of the images, `supersample` the number of samples along each side of a pixel, `colour`
    chooses three channels instead of one.
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
            raise ValueError(f"frame {frame}, supersample {supersample}: expected at least 8 pixels and 1 sample")
        self.ranges = EyeRanges() if ranges is None else ranges
        self.frame, self.supersample, self.colour = frame, supersample, colour
        self.device = torch.device(device)
        self._cpu_assets = assets
        self.assets = assets.to(self.device)
        self._faces = faces_around(assets.triangles, len(assets.subdivision)).to(self.device)
        self._subdivision = self.assets.subdivision.double()
        self._components = self.assets.components.double().flatten(1)
        self._ribbons = lashes.Ribbons.of(self.assets.lashes)
        self._skin = _pack_skin(self.assets, colour)
        iris = srgb_to_linear(self.assets.iris.float() / 255)
        self._iris = (iris if colour else luminance(iris)).half()
        self._visibility = self._mean_visibility()
        pixel_mm = self.ranges.field_width_normal_mm[0] / (frame[1] * supersample)
        texel_mm = 65.0 / assets.skin.shape[1]  # the textures cover about 65 mm
        self._smooth = texel_mm > pixel_mm

    def _mean_visibility(self) -> Tensor:
        """Share of the surroundings [W] that each vertex of the mean shape sees: the socket is darker than the cheek."""
        fine = (self._subdivision @ self.assets.mean.double()).float()
        normals = vertex_normals(fine[None], self.assets.triangles, self._faces)[0]
        directions = sphere_directions(256)[0].float().to(self.device)
        return ambient_visibility(fine, normals, directions[directions[:, 2] < 0.3])

    def sample(self, seed: int, indices: Sequence[int]) -> EyeParameters:
        """Draw the parameters of images `indices` of stream `seed`; each depends on (seed, index) alone."""
        return sample_parameters(self._cpu_assets, self.ranges, seed, indices).to(self.device)

    @torch.no_grad()
    def render(self, parameters: EyeParameters) -> EyeBatch:
        """Render the images of `parameters`, all at once; memory grows with their number (about 2 MB each)."""
        parameters = parameters.to(self.device)
        height, width = (side * self.supersample for side in self.frame)
        scene = self._pose(parameters)
        screen = self._project(scene, scene.vertices)
        fragments = rasterise(screen, self.assets.triangles, height, width)
        shadow = ShadowMap.build(scene.vertices - scene.centre[:, None], parameters.light)
        count, channels = len(parameters), 3 if self.colour else 1
        canvas = torch.full((count * height * width, channels), _BACKGROUND, device=self.device)
        depth = torch.full((count * height * width,), torch.inf, device=self.device)
        canvas[fragments.pixel] = self._shade_skin(scene, parameters, fragments, shadow)
        depth[fragments.pixel] = fragments.depth
        self._draw_eyeball(scene, parameters, shadow, canvas, depth)
        canvas = canvas.view(count, height, width, channels)
        lashes.draw(canvas, self._project(scene, lashes.strips(scene.control, self.assets, scene.centre, parameters)),
                    self._ribbons, parameters)
        return EyeBatch(self._develop(canvas, parameters), self._labels(scene, parameters), parameters)

    def _pose(self, parameters: EyeParameters) -> _Scene:
        """Shape, lids, subdivision, head pose and camera."""
        assets = self.assets
        head = gaze_rotation(parameters.head[:, 0], parameters.head[:, 1], parameters.head[:, 2])
        eye = gaze_rotation(parameters.gaze[:, 0], parameters.gaze[:, 1])
        axis = -(head.transpose(1, 2) @ eye)[:, :, 2]  # where the eye looks, in the head's frame
        # double precision: products of matrices then round the same whatever the batch's size
        control = (parameters.shape.double() @ self._components).view(len(parameters), -1, 3).float() + assets.mean
        corners = (control[:, assets.inner_corner] + control[:, assets.outer_corner]) / 2
        pitch = -axis[:, 1].asin()
        control = pose_lids(control, assets, axis, pitch, parameters.lid_open, parameters.lid_gain)
        fine = torch.matmul(self._subdivision, control.double()).float()
        aim = corners + functional.pad(parameters.shift, (0, 1))
        centre = torch.tensor([0.0, 0.0, self.ranges.camera_distance_mm], device=self.device)
        centre = centre - _rotate(head, aim[:, None])[:, 0]
        normals = vertex_normals(fine, assets.triangles, self._faces)
        focal = self.frame[1] * self.supersample * self.ranges.camera_distance_mm / parameters.field_width
        return _Scene(
            vertices=_rotate(head, fine) + centre[:, None],
            normals=_rotate(head, normals),
            control=_rotate(head, control) + centre[:, None],
            centre=centre,
            eye_rotation=eye,
            head_rotation=head,
            focal=focal,
        )

    def _project(self, scene: _Scene, points: Tensor) -> Tensor:
        """Project [B, n, 3] (mm) to pixels of the supersampled frame and depth [B, n, 3]."""
        scale = scene.focal[:, None] / points[..., 2]
        x = points[..., 0] * scale + self.frame[1] * self.supersample / 2
        y = points[..., 1] * scale + self.frame[0] * self.supersample / 2
        return torch.stack([x, y, points[..., 2]], -1)

    def _ambient(self, parameters: EyeParameters, normals: Tensor) -> Tensor:
        """Irradiance / pi [B, n, C] from the surrounding at unit normals [B, n, 3]."""
        coefficients = self.assets.environments.index_select(0, parameters.environment)
        if not self.colour:
            coefficients = luminance(coefficients)
        cos, sin = parameters.environment_turn.cos()[:, None], parameters.environment_turn.sin()[:, None]
        x, y, z = normals.unbind(-1)
        basis = harmonics(torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1))
        total = basis[..., 0:1] * coefficients[:, None, 0]
        for band in range(1, 9):
            total = total + basis[..., band : band + 1] * coefficients[:, None, band]
        return parameters.ambient_intensity[:, None, None] * total.clamp(min=0.02)

    def _ambient_on_eye(self, parameters: EyeParameters, normal: Tensor, image: Tensor) -> Tensor:
        """The same [P, C] at normals [P, 3] of images [P] that point roughly at the camera: linear in the normal.

        Taken from the irradiance at four normals around the direction to the camera; on the little of the eyeball that
        the lids leave open it differs from the harmonics by a few per cent and costs a fifth.
        """
        tilt = 0.5
        probes = torch.tensor([[tilt, 0.0], [-tilt, 0.0], [0.0, tilt], [0.0, -tilt]], device=self.device)
        probes = functional.normalize(functional.pad(probes, (0, 1), value=-1.0), dim=-1)
        seen = self._ambient(parameters, probes.expand(len(parameters), -1, -1))
        reach = 2 * float(probes[0, 0])
        table = torch.cat([seen.mean(1), (seen[:, 0] - seen[:, 1]) / reach, (seen[:, 2] - seen[:, 3]) / reach], -1)
        base, slope_x, slope_y = table.index_select(0, image).chunk(3, -1)
        return torch.addcmul(base, slope_x, normal[:, :1]).addcmul_(slope_y, normal[:, 1:2]).clamp_(min=0.02)

    def _shade_skin(
        self, scene: _Scene, parameters: EyeParameters, fragments: Fragments, shadow: ShadowMap
    ) -> Tensor:
        """Linear colour [P, C] of skin: light at vertices, albedo and bump per pixel."""
        p = parameters
        cosine = (scene.normals * p.light[:, None]).sum(-1)
        lit = 1 - p.shadow_strength[:, None] * (1 - shadow.lit(scene.vertices + LIFT_MM * scene.normals - scene.centre[:, None]))
        key = (p.light_intensity[:, None] * lit * cosine.clamp(min=0))[..., None]
        screen_direction = functional.normalize(torch.tensor(_SCREEN[:3], device=self.device), dim=0)
        screen = p.screen_intensity[:, None] * (scene.normals * screen_direction).sum(-1).clamp(min=0)
        open_sky = self._visibility ** p.occlusion[:, None]
        light = (self._ambient(p, scene.normals) + screen[..., None]) * open_sky[..., None] + key
        # a broad sheen towards the camera: oily skin
        half = functional.normalize(p.light + torch.tensor([0.0, 0.0, -1.0], device=self.device), dim=-1)
        sheen = 0.12 * p.light_intensity[:, None] * lit * (scene.normals * half[:, None]).sum(-1).clamp(min=0) ** 12
        value = fragments.interpolate(torch.cat([light, sheen[..., None]], -1), self.assets.triangles)
        uv = fragments.interpolate_corners(self.assets.corner_uv)
        texel = look_up(self._skin, p.skin[fragments.image], uv, smooth=self._smooth)
        channels = 3 if self.colour else 1
        down = (-(scene.head_rotation.transpose(1, 2) @ scene.eye_rotation)[:, 1, 2]).clamp(-1, 1).asin()
        look_down = (down / 0.5236).clamp(0, 1) ** 2
        albedo = torch.lerp(texel[:, :channels], texel[:, channels : 2 * channels], look_down[fragments.image, None])
        toward = scene.head_rotation.transpose(1, 2) @ (p.light * p.light_intensity[:, None])[..., None]
        toward = toward[:, :2, 0] + torch.tensor([0.0, -0.3], device=self.device)  # rooms are brighter above
        slope = texel[:, 2 * channels :]
        bump = (slope * (toward * p.skin_bump[:, None])[fragments.image]).sum(-1, keepdim=True)
        tone = p.skin_tone[fragments.image, None]
        return albedo * tone * (value[:, :-1] * (1 + bump).clamp(0.3, 1.8)) + value[:, -1:]

    def _draw_eyeball(
        self, scene: _Scene, p: EyeParameters, shadow: ShadowMap, canvas: Tensor, depth: Tensor
    ) -> None:
        """Trace the pixels of the lid opening and paint those where the eyeball is in front."""
        height, width = (side * self.supersample for side in self.frame)
        pixel, image, ray = self._opening_rays(scene, depth, height, width)
        turn = scene.eye_rotation.transpose(1, 2).flatten(1)
        origin = _rotate(scene.eye_rotation.transpose(1, 2), -scene.centre[:, None])[:, 0]
        hit = ball.intersect(
            origin.index_select(0, image), rotate_rows(turn.index_select(0, image), ray), self.assets.eyeball
        )
        seen = (hit.hit & (hit.distance * ray[:, 2] < depth.index_select(0, pixel))).nonzero()[:, 0]
        pixel, image, ray, on_cornea = (t.index_select(0, seen) for t in (pixel, image, ray, hit.cornea))
        normal = rotate_rows(scene.eye_rotation.flatten(1).index_select(0, image), hit.normal.index_select(0, seen))
        point = hit.distance.index_select(0, seen)[:, None] * ray - scene.centre.index_select(0, image)
        shade = _occlusion(depth, pixel, height, width)
        lit = 1 - p.shadow_strength[image] * (1 - shadow.lit_at(point, image))
        albedo, inside = self._eyeball_albedo(hit.texture.index_select(0, seen), p, image)
        axis = -scene.eye_rotation[:, :, 2].index_select(0, image)
        upright = torch.where((inside & on_cornea)[:, None], axis, normal)
        light_direction = p.light.index_select(0, image)
        cosine = (upright * light_direction).sum(-1).clamp(min=0)
        around = self._visibility @ self.assets.subdivision[:, self.assets.lid_loops[1]].mean(1)
        open_sky = (around / self.assets.subdivision[:, self.assets.lid_loops[1]].mean(1).sum()) ** p.occlusion
        open_sky = open_sky[image] * (1 - 0.8 * shade)
        light = (self._ambient_on_eye(p, upright, image) + p.screen_intensity[image, None]) * open_sky[:, None]
        light = light + (p.light_intensity[image] * lit * cosine * (1 - 0.6 * shade))[:, None]
        mirror = ray - 2 * (ray * normal).sum(-1, keepdim=True) * normal
        gloss = self._reflection(mirror, p, image, lit) * (1 - shade) * torch.where(on_cornea, 1.0, 0.15)
        canvas[pixel] = albedo * light + gloss[:, None]
        depth[pixel] = 0

    def _opening_rays(self, scene: _Scene, depth: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels around the lid opening where the eyeball may be in front: flat index [N], image [N], unit ray [N, 3].

        A pixel qualifies inside the box of the projected lid margins where no skin lies nearer than the front of the
        sphere that holds the whole eyeball.
        """
        margin = self._project(scene, scene.control[:, self.assets.lid_loops[0]])[..., :2]
        low, high = margin.amin(1) - self.supersample, margin.amax(1) + self.supersample
        x = torch.arange(width, device=self.device) + 0.5
        y = torch.arange(height, device=self.device) + 0.5
        in_box = ((y >= low[:, 1:]) & (y <= high[:, 1:]))[:, :, None] & ((x >= low[:, :1]) & (x <= high[:, :1]))[:, None]
        pixel = in_box.flatten().nonzero()[:, 0]
        image = torch.div(pixel, height * width, rounding_mode="floor")
        inverse = 1 / scene.focal.index_select(0, image)
        ray_x = ((pixel % width).float() + (0.5 - width / 2)) * inverse
        ray_y = ((torch.div(pixel, width, rounding_mode="floor") % height).float() + (0.5 - height / 2)) * inverse
        x, y, z = scene.centre.index_select(0, image).unbind(-1)
        reach = self.assets.eyeball.cornea_apex_mm**2 - (ray_x * z - x) ** 2 - (ray_y * z - y) ** 2
        front = z - reach.clamp(min=0).sqrt() - 0.5
        near = (front < depth.index_select(0, pixel)).nonzero()[:, 0]
        ray = torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], -1).index_select(0, near)
        return pixel.index_select(0, near), image.index_select(0, near), functional.normalize(ray, dim=-1)

    def _eyeball_albedo(self, plane: Tensor, p: EyeParameters, image: Tensor) -> tuple[Tensor, Tensor]:
        """Albedo [P, C] at positions [P, 2] (mm) of the iris plane, and whether each is inside the limbus."""
        shape = self.assets.eyeball
        limbus, painted = shape.limbus_radius_mm, shape.pupil_radius_mm
        scale, pupil = p.iris_scale[image], p.pupil_radius[image]
        radius = plane.norm(dim=-1).clamp(min=1e-4)
        inner = radius / scale
        stretched = torch.where(
            inner < pupil, inner * (painted / pupil), painted + (inner - pupil) * (limbus - painted) / (limbus - pupil)
        )
        inside = inner < limbus
        read = torch.where(inside, stretched, radius + limbus * (1 - scale))
        uv = 0.5 + shape.texture_per_mm * plane * (read / radius)[:, None]
        albedo = look_up(self._iris, p.iris[image], uv, smooth=True)
        tone = torch.lerp(p.iris_tone[image], p.sclera_tone[image], ((inner - limbus) / 0.6 + 0.5).clamp(0, 1))
        return albedo * tone[:, None], inside

    def _reflection(self, mirror: Tensor, p: EyeParameters, image: Tensor, lit: Tensor) -> Tensor:
        """Mirror image [P] of the light and of the screen in the tear film."""
        size = p.glint_size[image]
        angle = (mirror * p.light[image]).sum(-1).clamp(-1, 1).acos()
        light = ((size - angle) / (0.4 * size) + 0.5).clamp(0, 1) * p.light_intensity[image] * lit
        x, y, z, half_width, half_height = _SCREEN
        off_x, off_y = (mirror[:, 0] - x).abs() / half_width, (mirror[:, 1] - y).abs() / half_height
        screen = ((1.2 - torch.maximum(off_x, off_y)) / 0.4).clamp(0, 1) * (mirror[:, 2] < 0)
        return p.glint[image].clamp(min=0) * (1.5 * light + 0.25 * p.screen_intensity[image] * screen)

    def _develop(self, canvas: Tensor, p: EyeParameters) -> Tensor:
        """Average the samples of each pixel, expose, encode: [B, C, H, W] in [0, 1]."""
        image = functional.avg_pool2d(canvas.permute(0, 3, 1, 2), self.supersample)
        mean = image.mean(3).mean(2).mean(1)  # one axis at a time: the same sums whatever the batch's size
        return linear_to_srgb(image * (_MEAN_LINEAR * p.exposure / mean.clamp(min=1e-3))[:, None, None, None])

    def _labels(self, scene: _Scene, p: EyeParameters) -> EyeLabels:
        shape = self.assets.eyeball
        to_camera = functional.normalize(_rotate(scene.eye_rotation.transpose(1, 2), -scene.centre[:, None])[:, 0], dim=-1)
        pupil = ball.pupil_centre_seen(to_camera, shape)[:, None]
        limbus = ball.limbus_points(32, p.iris_scale, shape)
        points = _rotate(scene.eye_rotation, torch.cat([pupil, limbus], 1)) + scene.centre[:, None]
        points = torch.cat([points, scene.control[:, self.assets.lid_loops[0]]], 1)
        pixels = self._project(scene, points)[..., :2] / self.supersample
        return EyeLabels(
            gaze=p.gaze,
            gaze_vector=-scene.eye_rotation[:, :, 2],
            head=p.head,
            pupil=pixels[:, 0],
            iris_landmarks=pixels[:, 1:33],
            lid_landmarks=pixels[:, 33:],
        )


def _occlusion(depth: Tensor, pixel: Tensor, height: int, width: int) -> Tensor:
    """How much skin surrounds each pixel [P], 0 to 1: a blurred mask, sampled a little higher since light is above."""
    block = max(1, width // 60)  # blur over the same part of the frame whatever its size
    mask = torch.isfinite(depth).float().view(-1, 1, height, width)
    mask = functional.avg_pool2d(mask, block, ceil_mode=True)
    for axis in (2, 3):
        for reach in (1, 2, 4):
            padded = functional.pad(mask, (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0), mode="replicate")
            size = mask.shape[axis]
            mask = 0.25 * padded.narrow(axis, 0, size) + 0.5 * mask + 0.25 * padded.narrow(axis, 2 * reach, size)
    rows, columns = mask.shape[2:]
    column = torch.div(pixel % width, block, rounding_mode="floor")
    row = torch.div(torch.div(pixel, width, rounding_mode="floor") % height, block, rounding_mode="floor")
    flat = mask.flatten()
    base = torch.div(pixel, height * width, rounding_mode="floor") * (rows * columns) + column
    return 0.5 * flat[base + row * columns] + 0.5 * flat[base + (row - 2).clamp(min=0) * columns]


def _pack_skin(assets: EyeAssets, colour: bool) -> Tensor:
    """Albedo, look-down albedo and the displacement's slopes in one half-precision texture [S, T, T, 2C + 2]."""
    packed = []
    for skin, down, height in zip(assets.skin, assets.skin_look_down, assets.displacement, strict=True):
        albedo = [srgb_to_linear(t.float() / 255) for t in (skin, down)]
        if not colour:
            albedo = [luminance(t) for t in albedo]
        relief = functional.avg_pool2d(height[None, None].float() / 255, 5, stride=1, padding=2)[0, 0]
        slope_x = functional.pad(relief[:, 2:] - relief[:, :-2], (1, 1))
        slope_y = functional.pad(relief[2:] - relief[:-2], (0, 0, 1, 1))
        texels = len(relief) / 512  # slopes are given per texel of a 512-pixel texture
        slopes = 6.0 * texels * torch.stack([slope_x, slope_y], -1)
        packed.append(torch.cat([*albedo, slopes], -1).half())
    return torch.stack(packed)
