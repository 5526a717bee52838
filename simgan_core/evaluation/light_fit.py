"""Fit the light across the face (`EyeRanges.falloff_*`) to real images, without a label of them.

Webcam pictures are lit by windows, lamps and screens from one side, by more than a directional light on a bare eye
region shows. A gaze network that never saw a shadowed eye white takes it for iris and errs towards the shadow: on real
eyes its error in yaw went with the slope of the light. A refiner sees a dozen pixels around each pixel and cannot mend
that. So the simulator multiplies its light by the exponential of a quadratic form of the position, and this module
finds the form's means and spreads: those with which renders have the real images' means and standard deviations of
slopes, curvatures and twist of the grey levels. Renders are made once; fields are laid over them in linear light.

Legend: N images, D renders, five terms x, y, xx, yy, xy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from simgan_core.evaluation.image_moments import Floats, moments, render_all
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.light import falloff_field
from simgan_core.simulators.ranges import FALLOFF, EyeParameters, EyeRanges
from simgan_core.simulators.shading import linear_to_srgb, srgb_to_linear
from simgan_core.simulators.simulate import finish

RENDERS = 800
FIRST_DRAW = 2_000_000  # of the stream: far from the images of any store
LARGEST = 1.0
"""Bound on each mean and spread: a factor of e at the edge of the frame."""
CLIP = 2.5
"""Standard deviations at which draws are cut, as in `ranges`."""
_DIM = 0.2  # exposure of the renders: nothing saturates, and equalisation takes no notice


@dataclass(frozen=True)
class LightFit:
    """Fitted ranges, and the mean square distance of the ten moments, in standard deviations of the real images."""

    ranges: EyeRanges
    distance_before: float
    distance_after: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: the distances, and means and spreads of the fitted terms."""
        distances = {"light_distance_before": self.distance_before, "light_distance_after": self.distance_after}
        return distances | {name: list(getattr(self.ranges, name)) for name in (f"falloff_{t}_normal" for t in FALLOFF)}


def light_terms(images: NDArray[np.uint8]) -> Floats:
    """Slopes, curvatures and twist [N, 5] of uint8 images [N, C, H, W] in grey levels: of the best quadratic's terms.

    Each is the projection of the image (mean over its channels) on a term, as if the terms were orthogonal.
    """
    grey = torch.from_numpy(np.ascontiguousarray(images)).float().mean(1)
    terms = falloff_field(torch.eye(len(FALLOFF)), (grey.shape[1], grey.shape[2])).log()[:, 0]
    terms = terms - terms.mean((1, 2), keepdim=True)  # a plain grey has no curvature
    norms = terms.square().mean((1, 2))
    found = torch.einsum("nhw,khw->nk", grey, terms) / (grey.shape[1] * grey.shape[2]) / norms
    return np.asarray(found.double().numpy())


def fit_light(
    simulator: EyeSimulator,
    real: NDArray[np.uint8],
    *,
    equalise: bool = True,
    renders: int = RENDERS,
    evaluations: int = 260,
) -> LightFit:
    """Fit `falloff_*_normal` of the simulator's ranges to real images [N, C, H, W].

    Args:
        simulator: with the ranges of everything else.
        real: photographs, equalised or not as `equalise` says of the renders.
        equalise: whether renders are histogram-equalised before they are compared.
        renders: eyes drawn once; more take time and noise out of the search.
        evaluations: of the distance, about 0.1 s each.

    Raises:
        ValueError: fewer than two real images.

    """
    if len(real) < 2:
        raise ValueError(f"{len(real)} real images found; at least 2 expected, better some hundred")
    size = (real.shape[2], real.shape[3])
    wanted = light_terms(real)
    target, unit = moments(wanted), np.tile(wanted.std(axis=0) + 1e-6, 2)
    indices = range(FIRST_DRAW, FIRST_DRAW + renders)
    linear = srgb_to_linear(render_all(simulator, indices, _evenly_lit))
    exposure = simulator.sample(0, list(indices)).exposure[:, None, None, None].cpu()
    draws = torch.from_numpy(np.random.default_rng(0).standard_normal((renders, len(FALLOFF))).clip(-CLIP, CLIP))

    def distance(values: Floats) -> float:
        mean, spread = torch.from_numpy(np.asarray(values, np.float64)).chunk(2)
        field = falloff_field((mean + draws * spread.abs()).float(), simulator.frame)
        lit = linear * field
        # Equalised images take no notice of the exposure; of others, slopes are compared at the ranges' own.
        level = 0.2 * (_DIM if equalise else exposure)
        lit = lit * (level / lit.mean((1, 2, 3), keepdim=True).clamp(min=1e-6))
        seen = light_terms(finish(linear_to_srgb(lit), size, equalise).numpy())
        return float((((moments(seen) - target) / unit) ** 2).mean())

    start = np.array([_of(simulator.ranges, term)[part] for part in (0, 1) for term in FALLOFF])
    first = np.where(start == 0, np.repeat([0.0, 0.2], len(FALLOFF)), start)  # a spread of none has no direction
    bounds = [(-LARGEST, LARGEST)] * len(FALLOFF) + [(0.0, LARGEST)] * len(FALLOFF)
    minimise: Any = minimize  # its stubs know every option of every method, and not this call
    options = {"maxfev": evaluations, "xtol": 0.02, "ftol": 0.005}
    best = minimise(distance, first, method="Powell", bounds=bounds, options=options).x
    found = {
        f"falloff_{term}_normal": (round(float(best[i]), 3), round(float(best[i + len(FALLOFF)]), 3))
        for i, term in enumerate(FALLOFF)
    }
    changes: Any = found
    return LightFit(replace(simulator.ranges, **changes), distance(start), distance(best))


def _of(ranges: EyeRanges, term: str) -> tuple[float, float]:
    low, high = getattr(ranges, f"falloff_{term}_normal")
    return float(low), float(high)


def _evenly_lit(drawn: EyeParameters) -> EyeParameters:
    """The same eyes without a field, dim enough that nothing saturates."""
    dim = torch.full_like(drawn.exposure, _DIM)
    return replace(drawn, exposure=dim, falloff=torch.zeros_like(drawn.falloff))
