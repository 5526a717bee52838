"""The light of a batch: a surrounding, a directional light with cast shadows, a laptop's screen.

Legend: B images, C channels, n points per image, P pixels. Light is linear; directions are in the camera's frame.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simgan_core.simulators.assets import EyeAssets
from simgan_core.simulators.environments import harmonics
from simgan_core.simulators.ranges import EyeParameters
from simgan_core.simulators.scene import Scene
from simgan_core.simulators.shading import LIFT_MM, ShadowMap, luminance

# the screen as the eye sees it: direction, and half its width and height at distance 1; a laptop's camera is above it
_SCREEN_DIRECTION = (0.0, 0.2, -0.98)
_SCREEN_HALF = (0.25, 0.16)
_SHEEN = 0.12  # oily skin: strength and exponent of a broad highlight
_SHEEN_EXPONENT = 12
_PROBE_TILT = 0.5
_DARKEST = 0.02  # least irradiance: order-2 harmonics can undershoot


class SceneLight:
    """Evaluates the light of one batch."""

    def __init__(self, assets: EyeAssets, parameters: EyeParameters, scene: Scene, *, colour: bool) -> None:
        self._parameters = parameters
        coefficients = assets.environments.index_select(0, parameters.environment)
        self._coefficients = coefficients if colour else luminance(coefficients)
        self._centre = scene.centre
        self._shadow = ShadowMap.build(scene.vertices - scene.centre[:, None], parameters.light)
        self._ambient_table = self._linear_ambient()

    def _ambient(self, normals: Tensor) -> Tensor:
        """Irradiance / pi [B, n, C] from the surrounding at unit normals [B, n, 3]."""
        p = self._parameters
        cos, sin = p.environment_turn.cos()[:, None], p.environment_turn.sin()[:, None]
        x, y, z = normals.unbind(-1)
        basis = harmonics(torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1))
        total = basis[..., 0:1] * self._coefficients[:, None, 0]
        for band in range(1, 9):
            total = total + basis[..., band : band + 1] * self._coefficients[:, None, band]
        return p.ambient_intensity[:, None, None] * total.clamp(min=_DARKEST)

    def _linear_ambient(self) -> Tensor:
        """Ambient light near the direction to the camera as base and two slopes [B, 3C], from four probes around it."""
        probes = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], device=self._centre.device)
        probes = functional.normalize(functional.pad(_PROBE_TILT * probes, (0, 1), value=-1.0), dim=-1)
        seen = self._ambient(probes.expand(len(self._centre), -1, -1))
        reach = 2 * float(probes[0, 0])
        return torch.cat([seen.mean(1), (seen[:, 0] - seen[:, 1]) / reach, (seen[:, 2] - seen[:, 3]) / reach], -1)

    def on_skin(self, scene: Scene, visibility: Tensor) -> tuple[Tensor, Tensor]:
        """Diffuse light [B, W, C] and sheen [B, W, 1] at the skin's vertices; `visibility` [W] of the surrounding."""
        p, normals = self._parameters, scene.normals
        lifted = scene.vertices + LIFT_MM * normals - scene.centre[:, None]
        lit = 1 - p.shadow_strength[:, None] * (1 - self._shadow.lit(lifted))
        key = p.light_intensity[:, None] * lit
        screen_direction = torch.tensor(_SCREEN_DIRECTION, device=normals.device)
        screen = p.screen_intensity[:, None] * _cosine(normals, screen_direction)
        open_sky = visibility ** p.occlusion[:, None]
        diffuse = (self._ambient(normals) + screen[..., None]) * open_sky[..., None]
        diffuse = diffuse + (key * _cosine(normals, p.light[:, None]))[..., None]
        half = functional.normalize(p.light + torch.tensor([0.0, 0.0, -1.0], device=normals.device), dim=-1)
        sheen = _SHEEN * key * _cosine(normals, half[:, None]) ** _SHEEN_EXPONENT
        return diffuse, sheen[..., None]

    def across_skin(self, scene: Scene) -> Tensor:
        """Light along the skin's surface [B, 2] (head's x and y): what makes relief visible; rooms are bright above."""
        p = self._parameters
        key = (scene.head_rotation[:, :, :2] * (p.light * p.light_intensity[:, None])[:, :, None]).sum(1)
        return key + torch.tensor([0.0, -0.3], device=key.device)

    def on_eyeball(
        self, point: Tensor, normal: Tensor, image: Tensor, *, open_sky: Tensor, shade: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Diffuse light [P, C] and the lit share of the directional light [P] at points [P, 3] of images [P].

        `point` is relative to the eyeball's centre; `open_sky` [B] is the lids' view of the surrounding, `shade` [P]
        how closely skin encloses the point. Ambient light is linear in the normal here: on the little of the eyeball
        that lids leave open it differs from the harmonics by a few per cent and costs a fifth.
        """
        p = self._parameters
        base, slope_x, slope_y = self._ambient_table.index_select(0, image).chunk(3, -1)
        ambient = torch.addcmul(base, slope_x, normal[:, :1]).addcmul_(slope_y, normal[:, 1:2]).clamp_(min=_DARKEST)
        ambient += p.screen_intensity.index_select(0, image)[:, None]
        hidden = 1 - self._shadow.lit_at(point, image)
        lit = 1 - p.shadow_strength.index_select(0, image) * hidden
        cosine = _cosine(normal, p.light.index_select(0, image))
        key = p.light_intensity.index_select(0, image) * lit * cosine * (1 - 0.6 * shade)
        return ambient * (open_sky.index_select(0, image) * (1 - 0.8 * shade))[:, None] + key[:, None], lit

    def reflection(self, mirror: Tensor, image: Tensor, lit: Tensor) -> Tensor:
        """Brightness [P] of the light's and the screen's image in the tear film, seen along directions [P, 3]."""
        p = self._parameters
        size = p.glint_size.index_select(0, image)
        angle = (mirror * p.light.index_select(0, image)).sum(-1).clamp(-1, 1).acos()
        light = ((size - angle) / (0.4 * size) + 0.5).clamp(0, 1) * p.light_intensity.index_select(0, image) * lit
        off_x = (mirror[:, 0] - _SCREEN_DIRECTION[0]).abs() / _SCREEN_HALF[0]
        off_y = (mirror[:, 1] - _SCREEN_DIRECTION[1]).abs() / _SCREEN_HALF[1]
        screen = ((1.2 - torch.maximum(off_x, off_y)) / 0.4).clamp(0, 1) * (mirror[:, 2] < 0)
        glow = 1.5 * light + 0.25 * p.screen_intensity.index_select(0, image) * screen
        return p.glint.clamp(min=0).index_select(0, image) * glow


def falloff_field(coefficients: Tensor, frame: tuple[int, int]) -> Tensor:
    """Factor [B, 1, H, W] on the light across a frame (height, width): the exponential of a quadratic form.

    `coefficients` [B, 5] belong to x, y, xx, yy, xy with x right and y down from -1 to 1; the squares lose their mean.
    """
    height, width = frame
    y = torch.linspace(-1, 1, height, device=coefficients.device)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width, device=coefficients.device)[None].expand(height, width)
    terms = torch.stack([x, y, x * x - 1 / 3, y * y - 1 / 3, x * y])
    return (coefficients[:, :, None, None] * terms).sum(1, keepdim=True).exp()


def _cosine(normals: Tensor, direction: Tensor) -> Tensor:
    return (normals * direction).sum(-1).clamp(min=0)
