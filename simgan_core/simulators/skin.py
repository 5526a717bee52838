"""Skin: light at the vertices, albedo and relief per sample.

Legend: C channels, S identities, T texels along a side, P samples, W vertices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.environments import sphere_directions
from simgan_core.simulators.light import SceneLight
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.raster import Fragments
from simgan_core.simulators.scene import Poser, Scene
from simgan_core.simulators.shading import ambient_visibility, decode_texture, look_up

_TEXTURE_MM = 65.0  # covered by a skin texture
_LOOK_DOWN_FULL = math.radians(30)  # UnityEyes blends its look-down textures by the square of pitch over 30 degrees
_RELIEF = 6.0  # change of brightness per difference of displacement between neighbours in a 512-texel texture


class Skin:
    """Shades the skin of one set of assets."""

    def __init__(self, assets: EyeAssets, poser: Poser, *, colour: bool, sample_mm: float) -> None:
        self._assets = assets
        self._channels = 3 if colour else 1
        self._textures = _pack(assets, colour)
        self._smooth = _TEXTURE_MM / assets.skin.shape[1] > sample_mm
        vertices, normals = poser.mean_surface()
        directions = sphere_directions(256)[0].float().to(vertices.device)
        facing = directions[directions[:, 2] < 0.3]  # a head is behind the eye
        self.visibility = ambient_visibility(vertices, normals, facing)  # [W] of the mean shape: sockets are darker

    def shade(self, scene: Scene, parameters: EyeParameters, fragments: Fragments, light: SceneLight) -> Tensor:
        """Linear colour [P, C] of the skin at `fragments`."""
        image, channels = fragments.image, self._channels
        diffuse, sheen = light.on_skin(scene, self.visibility)
        value = fragments.interpolate(torch.cat([diffuse, sheen], -1), self._assets.triangles)
        uv = fragments.interpolate_corners(self._assets.corner_uv)
        texel = look_up(self._textures, parameters.skin.index_select(0, image), uv, smooth=self._smooth)
        gaze_down = (scene.head_rotation[:, :, 1] * -scene.eye_rotation[:, :, 2]).sum(-1).clamp(-1, 1).asin()
        look_down = (gaze_down / _LOOK_DOWN_FULL).clamp(0, 1) ** 2
        tone = torch.stack([look_down, parameters.skin_tone], -1)
        across = light.across_skin(scene) * parameters.skin_bump[:, None]
        per_image = torch.cat([tone, across], -1).index_select(0, image)
        albedo = torch.lerp(texel[:, :channels], texel[:, channels : 2 * channels], per_image[:, :1])
        relief = texel[:, -2:-1] * per_image[:, 2:3] + texel[:, -1:] * per_image[:, 3:]
        return albedo * per_image[:, 1:2] * value[:, :-1] * (1 + relief).clamp_(0.3, 1.8) + value[:, -1:]


def _pack(assets: EyeAssets, colour: bool) -> Tensor:
    """Albedo, look-down albedo and how the relief tilts normals in one half-precision texture [S, T, T, 2C + 2].

    Skin that rises to the right leans to the left: a normal's tilt is the negative slope. Bright texels are raised.
    """
    packed = []
    for skin, down, height in zip(assets.skin, assets.skin_look_down, assets.displacement, strict=True):
        albedo = [decode_texture(texture, colour=colour) for texture in (skin, down)]
        relief = functional.avg_pool2d(height[None, None].float() / 255, 5, stride=1, padding=2)[0, 0]
        tilt_x = functional.pad(relief[:, :-2] - relief[:, 2:], (1, 1))
        tilt_y = functional.pad(relief[:-2] - relief[2:], (0, 0, 1, 1))
        tilts = _RELIEF * len(relief) / 512 * torch.stack([tilt_x, tilt_y], -1)
        packed.append(torch.cat([*albedo, tilts], -1).half())
    return torch.stack(packed)
