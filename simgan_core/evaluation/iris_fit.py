"""Where is the iris? An ellipse fitted to its outer border, the limbus (section 3.1, where people drew the ellipses).

The iris is about 20 px wide in an eye image of 35x55, the lids hide much of it, and the pupil is seldom to be told from
it: so the limbus is fitted, from its sides and from below, where it is seen. Its centre is the pupil's centre within
0.05 px in the simulator. How good the fit is, `validate_fit` says against the simulator's own labels.

Steps: a disc darker than what lies beside it (correlation); the steepest rise along rays from its centre (sub-pixel); a
robust least-squares ellipse through these edges, whose size is held near an iris' since people's irises differ little.

Legend: N images, K rays, T samples along a ray. Positions are (u, v) in pixels, the first pixel's corner being 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simgan_core.images import tensor_of, to_grey

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

RADIUS = 9.1  # px at a width of 55: the limbus in the simulator's frame, which is fitted to MPIIGaze's
RADIUS_SD = 0.6  # px; of the simulator's limbus 0.5
ASPECT, ASPECT_SD = 1.05, 0.06  # height over width: the iris turned sideways is narrower
WIDTH = 55  # the width that these pixels belong to
SECTORS_DEG = ((-40, 50), (130, 220))  # of the rays, clockwise from image-right; the lids are above and below
RAY_STEP_DEG = 5
CENTRE_SD = 0.10  # of the image's width and height: eye images are cut out around the eye
CENTRED = 40.0  # grey levels that an iris one such distance off the middle must be darker by
APART = 0.5  # radii between the two starts
REACH = 0.4  # of the radius, inwards and outwards
SAMPLES = 65
ITERATIONS = 6
EDGE_SD_PX = 0.7  # how exactly a visible edge is found; edges further off than that count less and less
GROSS_PX = 3.0
MIN_CONTRAST = 18.0  # grey levels between the iris and what lies beside it
MIN_INLIERS = 0.45  # share of rays with an edge on the ellipse
MIN_SIDE_INLIERS = 0.25  # the same on the worse side: one side alone does not fix the centre


@dataclass(frozen=True)
class IrisFit:
    """Ellipses: `centre` [N, 2] (u, v) px and semi-`axes` [N, 2] (across, down) px, NaN where not `valid` [N]."""

    centre: Floats
    axes: Floats
    valid: Bools


@dataclass(frozen=True)
class FitQuality:
    """Fitted centres against labelled ones, of the `valid` among `n` images; pixels.

    An error above `GROSS_PX` is another thing taken for the iris, not noise: `typical_rmse_px` leaves those out.
    """

    bias_px: tuple[float, float]
    rmse_px: float
    rmse_across_px: float
    rmse_down_px: float
    median_px: float
    typical_rmse_px: float
    gross_percent: float
    valid: int
    n: int


def validate_fit(fit: IrisFit, truth: Floats) -> FitQuality:
    """Compare centres with labels [N, 2]. Raises ValueError on another shape or if nothing was found."""
    if truth.shape != fit.centre.shape:
        raise ValueError(f"labels {truth.shape} for {fit.centre.shape} centres found; one (u, v) per image expected")
    if not fit.valid.any():
        raise ValueError(
            f"no iris found in {len(truth)} images; expected eyes about {WIDTH} px wide, filling the image"
        )
    error = (fit.centre - truth)[fit.valid]
    across, down = np.sqrt(np.mean(error**2, axis=0))
    bias, distance = error.mean(axis=0), np.hypot(error[:, 0], error[:, 1])
    return FitQuality(
        bias_px=(float(bias[0]), float(bias[1])),
        rmse_px=float(np.hypot(across, down)),
        rmse_across_px=float(across),
        rmse_down_px=float(down),
        median_px=float(np.median(distance)),
        typical_rmse_px=float(np.sqrt(np.mean(distance[distance <= GROSS_PX] ** 2))),
        gross_percent=float(100 * np.mean(distance > GROSS_PX)),
        valid=int(fit.valid.sum()),
        n=len(truth),
    )


@torch.no_grad()
def fit_iris(images: Floats | NDArray[np.uint8]) -> IrisFit:
    """Fit every image's iris: uint8, or float in [-1, 1], [N, C, H, W] of eyes that fill the image."""
    grey = grey_levels(images)
    radius = RADIUS * grey.shape[-1] / WIDTH
    fits = [_fit_from(grey, start, radius) for start in _darkest_discs(grey, radius)]
    # A corner of the eye can be darker than a light iris, but it has no round border.
    border = torch.stack([(belongs * strength).sum(dim=1) for _, belongs, strength in fits])
    best, row = border.argmax(dim=0), torch.arange(len(grey))
    ellipse, belongs = (torch.stack([fit[part] for fit in fits])[best, row] for part in (0, 1))
    found = _is_found(grey, ellipse, belongs, radius)
    ellipse[~found] = torch.nan
    return IrisFit(ellipse[:, :2].numpy(), ellipse[:, 2:].numpy(), found.numpy())


def _worse_side(of_ray: Tensor) -> Tensor:
    """The lesser of the means over the rays to the right and to the left, [N, K] -> [N]."""
    half = of_ray.shape[1] // 2
    return torch.minimum(of_ray[:, :half].mean(dim=1), of_ray[:, half:].mean(dim=1))


def _fit_from(grey: Tensor, centre: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ellipses [N, 4] from a start [N, 2], how far each ray's edge belongs to them, and its strength, both [N, K]."""
    ellipse = torch.cat([centre, centre.new_tensor([[radius, radius * ASPECT]]).expand(len(centre), 2)], dim=1)
    belongs = strength = centre.new_zeros(len(centre), 0)
    for step in range(ITERATIONS):
        edges, strength = _edges(grey, ellipse, expected_sd=max(0.08, 0.25 / (1 + step)))
        ellipse, belongs = _robust_ellipse(edges, strength, ellipse, radius)
    return ellipse, belongs, strength


def grey_levels(images: Floats | NDArray[np.uint8]) -> Tensor:
    """Images as float32 grey levels 0 to 255, [N, 1, H, W]. Raises ValueError on another shape."""
    tensor = tensor_of(images)
    if tensor.ndim != 4:
        raise ValueError(f"images {tuple(tensor.shape)} found; [N, C, H, W] expected")
    levels = (tensor.float() + 1) * 127.5 if tensor.is_floating_point() else tensor.float()
    return to_grey(levels)


def sample(grey: Tensor, points: Tensor) -> Tensor:
    """Bilinear grey levels of [N, 1, H, W] at points [N, K, T, 2] (u, v): [N, K, T]; the border is repeated."""
    size = points.new_tensor([grey.shape[-1], grey.shape[-2]])
    values: Tensor = F.grid_sample(grey, points / size * 2 - 1, padding_mode="border", align_corners=False)
    return values[:, 0]


def _darkest_discs(grey: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Centres [N, 2] of the disc that is darkest against both its sides, and of the next one apart from it."""
    reach = round(radius + 4)
    v, u = torch.meshgrid(*(torch.arange(-reach, reach + 1, dtype=grey.dtype),) * 2, indexing="ij")
    distance = torch.hypot(u, v)
    band = v.abs() < 0.5 * radius
    inside = (distance < radius - 0.5) & band
    padded = F.pad(grey, (reach,) * 4, mode="replicate")
    sides = []
    for side in (u < 0, u > 0):
        beside = (distance > radius + 0.5) & (distance < radius + 3.5) & band & side
        kernel = (beside / beside.sum() - inside / inside.sum()).to(grey.dtype)
        sides.append(F.conv2d(padded, kernel[None, None]))
    # Both sides must be brighter: skin and a lid's crease are so on one side only.
    score = torch.minimum(*sides)[:, 0] + 0.5 * torch.maximum(*sides)[:, 0]
    height, width = grey.shape[-2:]
    row, column = torch.arange(height, dtype=grey.dtype) + 0.5, torch.arange(width, dtype=grey.dtype) + 0.5
    away = torch.hypot((row[:, None] - height / 2) / height, (column - width / 2) / width)
    score = score - CENTRED * (away / CENTRE_SD).square() / 2
    first = _position_of_maximum(score)
    near = torch.hypot(row[:, None] - first[:, 1, None, None], column - first[:, 0, None, None]) < APART * radius
    return first, _position_of_maximum(score.masked_fill(near, -torch.inf))


def _position_of_maximum(maps: Tensor) -> Tensor:
    """[N, H, W] -> (u, v) of the greatest value's pixel centre, [N, 2]."""
    best, width = maps.flatten(1).argmax(dim=1), maps.shape[-1]
    return torch.stack([best % width, torch.div(best, width, rounding_mode="floor")], dim=1).to(maps.dtype) + 0.5


def _rays(like: Tensor) -> Tensor:
    degrees = torch.cat([torch.arange(low, high + 1, RAY_STEP_DEG) for low, high in SECTORS_DEG])
    return torch.deg2rad(degrees.to(like.dtype))


def _edges(grey: Tensor, ellipse: Tensor, expected_sd: float) -> tuple[Tensor, Tensor]:
    """Where the grey level rises most along rays: points [N, K, 2] and how much, in grey levels per pixel, [N, K]."""
    angles = _rays(ellipse)
    scale = torch.linspace(1 - REACH, 1 + REACH, SAMPLES, dtype=ellipse.dtype)
    direction = torch.stack([angles.cos(), angles.sin()], dim=1)  # K 2
    spoke = ellipse[:, None, 2:] * direction  # N K 2
    points = ellipse[:, None, None, :2] + scale[:, None] * spoke[:, :, None]
    profile = sample(grey, points)
    rise = _smooth_derivative(profile) / (spoke.norm(dim=-1, keepdim=True) * (scale[1] - scale[0]))
    weight = torch.exp(-0.5 * ((scale - 1) / expected_sd) ** 2)
    score = rise.clamp(min=0) * weight
    peak = score[..., 1:-1].argmax(dim=-1, keepdim=True) + 1
    before, here, after = (score.gather(-1, peak + k) for k in (-1, 0, 1))
    offset = (before - after) / (2 * (before - 2 * here + after)).clamp(max=-1e-9)
    at = (scale[peak] + offset.clamp(-0.5, 0.5) * (scale[1] - scale[0]))[..., 0]
    return ellipse[:, None, :2] + at[..., None] * spoke, rise.gather(-1, peak)[..., 0].clamp(min=0)


def _smooth_derivative(profile: Tensor) -> Tensor:
    """Derivative of a Gaussian along the last axis, per sample; its width is about 0.7 px for an iris of 10 px."""
    offsets = torch.arange(-8, 9, dtype=profile.dtype)
    kernel = -offsets * torch.exp(-0.5 * (offsets / 5.5) ** 2)
    kernel = kernel / (kernel * -offsets).sum()
    return correlate(profile, kernel.flip(0))  # turned, to give a rise its positive sign


def correlate(profile: Tensor, kernel: Tensor) -> Tensor:
    """Correlation with an odd kernel along the last axis, whose ends are repeated.

    As a product with the matrix of what it makes of unit profiles, which a CPU does far faster than `conv1d`.
    """
    reach, length = len(kernel) // 2, profile.shape[-1]
    units = F.pad(torch.eye(length, dtype=profile.dtype)[:, None], (reach, reach), mode="replicate")
    return profile @ F.conv1d(units, kernel[None, None])[:, 0]


def _robust_ellipse(edges: Tensor, strength: Tensor, start: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Gauss-Newton with Cauchy weights: ellipses [N, 4] (u, v, across, down) and how far each edge belongs, [N, K]."""
    ellipse = start.clone()
    reliable = (strength / (strength.quantile(0.75, dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
    belongs = torch.zeros_like(strength)
    for _ in range(8):
        offset = (edges - ellipse[:, None, :2]) / ellipse[:, None, 2:]
        length = offset.norm(dim=-1).clamp(min=1e-6)
        residual = (length - 1) * radius  # about px
        slope = -offset / length[..., None] / ellipse[:, None, 2:] * radius
        jacobian = torch.cat([slope, slope * offset], dim=-1)  # N K 4
        belongs = 1 / (1 + (residual / EDGE_SD_PX) ** 2)
        weight = belongs * reliable / EDGE_SD_PX**2
        normal = torch.einsum("nki,nk,nkj->nij", jacobian, weight, jacobian)
        gradient = torch.einsum("nki,nk,nk->ni", jacobian, weight, residual)
        prior, pull = _size_prior(ellipse, radius)
        ellipse = ellipse - torch.linalg.solve(
            normal + prior + 1e-6 * torch.eye(4, dtype=normal.dtype), gradient + pull
        )
        ellipse[:, 2:] = ellipse[:, 2:].clamp(0.6 * radius, 1.5 * radius)
    return ellipse, belongs * (strength > 0)


def _size_prior(ellipse: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Normal matrix [4, 4] and gradient [N, 4] that hold width and aspect near an iris'."""
    sd = RADIUS_SD * radius / RADIUS
    of_width = ellipse.new_tensor([0.0, 0.0, 1.0, 0.0])
    of_aspect = ellipse.new_tensor([0.0, 0.0, -ASPECT, 1.0])
    aspect_sd = ASPECT_SD * radius
    matrix = torch.outer(of_width, of_width) / sd**2 + torch.outer(of_aspect, of_aspect) / aspect_sd**2
    pull = (ellipse @ of_width - radius)[:, None] * of_width / sd**2
    return matrix, pull + (ellipse @ of_aspect)[:, None] * of_aspect / aspect_sd**2


def _is_found(grey: Tensor, ellipse: Tensor, belongs: Tensor, radius: float) -> Tensor:
    """Whether an iris was found: inside the image, enough edges on both sides, darker than what is beside it."""
    size = ellipse.new_tensor([grey.shape[-1], grey.shape[-2]])
    inside = ((ellipse[:, :2] > 0) & (ellipse[:, :2] < size)).all(dim=1)
    good = belongs > 0.5
    sides = _worse_side(good.float())
    angles = _rays(ellipse)
    direction = torch.stack([angles.cos(), angles.sin()], dim=1)
    rings = ellipse[:, None, None, :2] + ellipse.new_tensor([0.75, 1.25])[:, None] * (
        ellipse[:, None, None, 2:] * direction[:, None]
    )
    levels = sample(grey, rings)
    lateral = (angles.sin().abs() < 0.5) & good
    contrast = ((levels[..., 1] - levels[..., 0]) * lateral).sum(dim=1) / lateral.sum(dim=1).clamp(min=1)
    dark = contrast > MIN_CONTRAST
    return inside & (good.float().mean(dim=1) >= MIN_INLIERS) & (sides >= MIN_SIDE_INLIERS) & dark
