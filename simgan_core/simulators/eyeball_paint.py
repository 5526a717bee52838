"""The visible part of the eyeball: which samples it covers, its albedo, shade of the lids, tear film.

Legend: C channels, I irises, N candidate samples, P samples painted, h w canvas.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.eyeball import intersect
from simgan_core.simulators.light import SceneLight
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.scene import Scene, rotate
from simgan_core.simulators.shading import decode_texture, look_up, rotate_rows

_BLOCKS = 60  # shade is computed on blocks of samples, about this many across the canvas
_SCLERA_GLOSS = 0.15  # reflections on the sclera against those on the cornea
_MARGIN_SAMPLES = 2.0


class Eyeball:
    """Paints the eyeballs of one set of assets; `visibility` [W] is the skin's view of its surroundings."""

    def __init__(self, assets: EyeAssets, visibility: Tensor, *, colour: bool) -> None:
        self._assets = assets
        self._textures = decode_texture(assets.iris, colour=colour).half()
        at_lids = assets.subdivision[:, assets.lid_loops[1]].mean(1)
        self._visibility = (visibility * at_lids).sum() / at_lids.sum()

    def draw(self, scene: Scene, p: EyeParameters, light: SceneLight, canvas: Tensor, depth: Tensor) -> None:
        """Paint `canvas` [B*h*w, C] in place where the eyeball is nearer than `depth` [B*h*w]."""
        pixel, image, ray = self._candidates(scene, depth)
        to_eye = scene.eye_rotation.transpose(1, 2)
        origin = rotate(to_eye, -scene.centre[:, None])[:, 0].index_select(0, image)
        local_ray = rotate_rows(to_eye.flatten(1).index_select(0, image), ray)
        hit = intersect(origin, local_ray, self._assets.eyeball)
        seen = (hit.hit & (hit.distance * ray[:, 2] < depth.index_select(0, pixel))).nonzero()[:, 0]
        pixel, image, ray, on_cornea = (t.index_select(0, seen) for t in (pixel, image, ray, hit.cornea))
        normal = rotate_rows(scene.eye_rotation.flatten(1).index_select(0, image), hit.normal.index_select(0, seen))
        point = hit.distance.index_select(0, seen)[:, None] * ray - scene.centre.index_select(0, image)
        albedo, inside = self._albedo(hit.texture.index_select(0, seen), p, image)
        axis = -scene.eye_rotation[:, :, 2].index_select(0, image)
        facing = torch.where((inside & on_cornea)[:, None], axis, normal)  # the iris is flat behind the cornea
        shade = _enclosure(depth, pixel, scene.height, scene.width)
        diffuse, lit = light.on_eyeball(point, facing, image, open_sky=self._visibility**p.occlusion, shade=shade)
        mirror = ray - 2 * (ray * normal).sum(-1, keepdim=True) * normal
        gloss = light.reflection(mirror, image, lit) * (1 - shade) * torch.where(on_cornea, 1.0, _SCLERA_GLOSS)
        tears = p.wetness.index_select(0, image) * _tear_meniscus(depth, pixel, scene.height, scene.width)
        canvas[pixel] = albedo * diffuse + gloss[:, None] + tears[:, None] * diffuse

    def _candidates(self, scene: Scene, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Samples where the eyeball may be in front: flat index [N], image [N], unit ray [N, 3].

        They lie in the box of the projected lid margins, where no skin is nearer than the front of the sphere that
        holds the whole eyeball.
        """
        height, width = scene.height, scene.width
        margin = scene.project(scene.control[:, self._assets.lid_loops[0]])[..., :2]
        low, high = margin.amin(1) - _MARGIN_SAMPLES, margin.amax(1) + _MARGIN_SAMPLES
        x = torch.arange(width, device=depth.device) + 0.5
        y = torch.arange(height, device=depth.device) + 0.5
        in_x, in_y = (x >= low[:, :1]) & (x <= high[:, :1]), (y >= low[:, 1:]) & (y <= high[:, 1:])
        pixel = (in_y[:, :, None] & in_x[:, None]).flatten().nonzero()[:, 0]
        image = torch.div(pixel, height * width, rounding_mode="floor")
        inverse = 1 / scene.focal.index_select(0, image)
        ray_x = ((pixel % width).float() + (0.5 - width / 2)) * inverse
        ray_y = ((torch.div(pixel, width, rounding_mode="floor") % height).float() + (0.5 - height / 2)) * inverse
        x, y, z = scene.centre.index_select(0, image).unbind(-1)
        reach = self._assets.eyeball.cornea_apex_mm**2 - (ray_x * z - x) ** 2 - (ray_y * z - y) ** 2
        front = z - reach.clamp(min=0).sqrt() - 0.5
        near = (front < depth.index_select(0, pixel)).nonzero()[:, 0]
        ray = torch.stack([ray_x, ray_y, torch.ones_like(ray_x)], -1).index_select(0, near)
        return pixel.index_select(0, near), image.index_select(0, near), functional.normalize(ray, dim=-1)

    def _albedo(self, plane: Tensor, p: EyeParameters, image: Tensor) -> tuple[Tensor, Tensor]:
        """Albedo [P, C] at positions [P, 2] (mm) of the iris plane, and whether each is inside the limbus.

        The painted iris is stretched between the pupil's edge, wherever it is in this eye, and the limbus.
        """
        shape = self._assets.eyeball
        limbus, painted = shape.limbus_radius_mm, shape.pupil_radius_mm
        settings = torch.stack([p.iris_scale, p.pupil_radius, p.iris_tone, p.sclera_tone], -1).index_select(0, image)
        scale, pupil, iris_tone, sclera_tone = settings.unbind(-1)
        radius = plane.norm(dim=-1).clamp(min=1e-4)
        inner = radius / scale
        outside_pupil = painted + (inner - pupil) * ((limbus - painted) / (limbus - pupil))
        stretched = torch.where(inner < pupil, inner * (painted / pupil), outside_pupil)
        inside = inner < limbus
        read = torch.where(inside, stretched, radius + limbus * (1 - scale))
        uv = 0.5 + plane * (shape.texture_per_mm * read / radius)[:, None]
        albedo = look_up(self._textures, p.iris.index_select(0, image), uv, smooth=True)
        tone = torch.lerp(iris_tone, sclera_tone, ((inner - limbus) / 0.6 + 0.5).clamp(0, 1))
        return albedo * tone[:, None], inside


def _enclosure(depth: Tensor, pixel: Tensor, height: int, width: int) -> Tensor:
    """How closely skin encloses each sample [P], 0 to 1.

    A blurred mask of the skin, read a little higher up since light comes from above.
    """
    block = max(1, width // _BLOCKS)  # the same part of the frame whatever its size
    mask = functional.avg_pool2d(torch.isfinite(depth).float().view(-1, 1, height, width), block, ceil_mode=True)
    for axis in (2, 3):
        for reach in (1, 2, 4):
            padded = functional.pad(mask, (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0), mode="replicate")
            size = mask.shape[axis]
            mask = 0.25 * padded.narrow(axis, 0, size) + 0.5 * mask + 0.25 * padded.narrow(axis, 2 * reach, size)
    mask = 0.5 * mask + 0.5 * functional.pad(mask, (0, 0, 2, 0), mode="replicate")[:, :, :-2]
    if block > 2:  # otherwise blocks are no larger than pixels
        mask = functional.interpolate(mask, (height, width), mode="bilinear", align_corners=False)
        return mask.flatten().index_select(0, pixel)
    rows, columns = mask.shape[2:]
    column = torch.div(pixel % width, block, rounding_mode="floor")
    row = torch.div(torch.div(pixel, width, rounding_mode="floor") % height, block, rounding_mode="floor")
    image = torch.div(pixel, height * width, rounding_mode="floor")
    return mask.flatten().index_select(0, image * (rows * columns) + row * columns + column)


def _tear_meniscus(depth: Tensor, pixel: Tensor, height: int, width: int) -> Tensor:
    """Samples [P] (1 or 0) right above the skin of the lower lid, where tears stand: about 0.3 mm."""
    rise = max(1, round(width / 120))
    row = torch.div(pixel, width, rounding_mode="floor") % height
    below = depth.index_select(0, (pixel + rise * width).clamp(max=len(depth) - 1))
    return (torch.isfinite(below) & (row + rise < height)).float()
