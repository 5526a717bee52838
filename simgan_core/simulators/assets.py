"""Everything an eye is rendered from, as data: one interface for UnityEyes' own assets and for procedural ones.

Shape legend: V control vertices, W fine vertices, F triangles, K shape components, L lid loops, S skins, I irises,
E environments, N lashes, R points along a lash strip.

Eye frame: the axes of MPIIGaze's camera when the head looks straight at it: x right in the image, y down, z away from
the camera, millimetres, origin at the centre of the eyeball. The eye is a left eye as in UnityEyes' mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class EyeballGeometry:
    """Two spheres and a flat iris behind a refracting cornea (lengths in mm; UnityEyes' eyeball by default)."""

    radius_mm: float = 12.05
    cornea_radius_mm: float = 7.8
    cornea_apex_mm: float = 13.03
    limbus_radius_mm: float = 5.6
    iris_plane_mm: float = 10.2
    refractive_index: float = 1.336
    pupil_radius_mm: float = 2.75  # of the pupil as painted in the iris textures
    texture_per_mm: float = 0.0242


@dataclass(frozen=True)
class LashAssets:
    """Lash strips: textured ribbons that grow from the lid margin.

    A strip is a ribbon over the ten vertices of one lid of loop 0, `length_mm` deep, lifted and curled; its
    texture runs along the lid in u and from the root (v = 1) to the tip (v = 0) in v.
    """

    upper_alpha: Tensor  # uint8 [N,h,w], coverage; root at the bottom row
    lower_alpha: Tensor  # uint8 [N,h,w]; root at the bottom row
    upper_length_mm: float = 7.0
    lower_length_mm: float = 3.0


@dataclass(frozen=True)
class EyeAssets:
    """One simulator's shapes and textures; see the module's text for axes and letters."""

    name: str  # 'unityeyes', 'procedural', 'procedural-target'
    mean: Tensor  # [V,3] control vertices, mm, eye frame
    components: Tensor  # [K,V,3] mm per one standard deviation of shape coefficient k
    subdivision: Tensor  # [W,V] dense: fine = subdivision @ control
    triangles: Tensor  # [F,3] int64 into W
    corner_uv: Tensor  # [F,3,2] in [0,1], v down, into the skin textures
    lid_loops: Tensor  # [L,20] int64 into V; loop 0 = inner margin, then outwards; columns j < 10 upper lid
    lid_strength: Tensor  # [L] share of the lid's rotation that each loop follows
    inner_corner: int  # control vertex
    outer_corner: int  # control vertex
    skin: Tensor  # uint8 [S,T,T,3] sRGB
    skin_look_down: Tensor  # uint8 [S,T,T,3]; the same as `skin` where there is none
    displacement: Tensor  # uint8 [S,T,T]
    iris: Tensor  # uint8 [I,t,t,3] eyeball texture; coordinate = 0.5 + texture_per_mm * (x, y)
    iris_probability: Tensor  # [I], sums to 1
    lashes: LashAssets
    eyeball: EyeballGeometry
    environments: Tensor  # [E,9,3] order-2 spherical-harmonic irradiance coefficients, linear RGB

    def to(self, device: torch.device | str) -> EyeAssets:
        """Return a copy whose tensors lie on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        lashes = replace(
            self.lashes,
            upper_alpha=self.lashes.upper_alpha.to(device),
            lower_alpha=self.lashes.lower_alpha.to(device),
        )
        return replace(self, **moved, lashes=lashes)
