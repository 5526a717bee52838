"""Is the label kept? How far iris and lids move when an image is refined (section 3.1, claim C5).

Two instruments. *Ellipse fits* of the iris before and after, as in the paper, where people drew them: their distance
holds what R moved and the noise of two fits. *Contours*: grey profiles across the limbus and the lid margins, at the
points that the simulator labelled, are matched before and after; that is several times finer, but it sees only shifts
along the normal and needs the labels.

Legend: S seeds, N images, K points of a contour, T samples of a profile. Positions and shifts are (u, v) in pixels of
the image, the first pixel's corner being 0, as in the stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.store import Store
from simgan_core.evaluation.iris_fit import FitQuality, IrisFit, correlate, fit_iris, grey_levels, sample, validate_fit
from simgan_core.evaluation.statistics import NOT_NEGATIVE, Estimate, two_level_bootstrap

__all__ = [
    "ContourShift",
    "FitQuality",
    "IrisFit",
    "NoIrisError",
    "PupilShift",
    "contour_shift",
    "fit_iris",
    "iris_contour",
    "iris_shift",
    "lid_contour",
    "lid_shift",
    "pupil_labels",
    "pupil_shift",
    "validate_fit",
]

Floats = NDArray[np.floating[Any]]
Images = NDArray[Any]
Refined = Images | Store | Sequence[Images | Store]

LIMIT = 500  # images; the paper took 100
STEP_PX = 0.25  # between samples of a profile
HALF_WINDOW_PX = 3.0  # of a profile that is matched
SEARCH_PX = 3.0  # shifts that are tried either way
SMOOTHING_PX = 0.7  # of profiles along the normal; along the contour three of them, a pixel apart, are averaged
MIN_SLOPE = 4.0  # grey levels per pixel: a contour point without an edge cannot be followed
MIN_CORRELATION = 0.6  # of slopes before and after; below, the point is lost
CLEAR_OF_LID_PX = 1.5  # a limbus point nearer to a lid margin shows the lid's edge
RIDGE = 0.02  # points' worth of pull towards no translation, where the points do not fix one
MIN_POINTS = 4  # contour points that an image must show


class NoIrisError(ValueError):
    """No iris was found in the refined images where the synthetic ones had one."""


class NothingToFollowError(ValueError):
    """The synthetic images themselves show no iris that can be found; no refiner is to blame."""


@dataclass(frozen=True)
class PupilShift:
    """Distance between iris centres before and after; `distances_px` [S, n] of the n images usable with every seed."""

    mean_px: Estimate
    sd_px: float
    bias_px: tuple[float, float]  # mean shift: what turns every gaze label the same way
    lost_percent: float  # of the irises found before, how many are not found after
    distances_px: Floats

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, without the single distances."""
        return {"sd_px": self.sd_px, "bias_px": list(self.bias_px), "lost_percent": self.lost_percent} | (
            self.mean_px.to_dict()
        )


@dataclass(frozen=True)
class ContourShift:
    """Shifts of contour points along the normal; `translation_px` [S, n, 2] explains those of an image best."""

    mean_px: Estimate  # of |shift|, averaged over an image's points first
    sd_px: float  # of |shift| over points
    bias_px: tuple[float, float]
    lost_percent: float  # of the points with an edge before, how many find no counterpart after
    translation_px: Floats

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, without the single shifts."""
        return {"sd_px": self.sd_px, "bias_px": list(self.bias_px), "lost_percent": self.lost_percent} | (
            self.mean_px.to_dict()
        )


def pupil_labels(store: Store, limit: int | None = None) -> Floats:
    """The simulator's pupil centres [N, 2]. Raises DataError if the store has none."""
    return np.asarray(store.annotations(["pupil_u", "pupil_v"]).to_numpy(np.float64)[:limit])


def pupil_shift(synthetic: Images, refined: Refined) -> PupilShift:
    """How far the fitted iris centres of `synthetic` [N, C, H, W] move in `refined`: the same images, once per seed.

    Raises NoIrisError if irises are found before and none of them after, NothingToFollowError if none is found before,
    ValueError if shapes differ.
    """
    after = _as_arrays(refined, len(synthetic))
    before = fit_iris(synthetic)
    if not before.valid.any():
        raise NothingToFollowError(
            f"no iris found in {len(synthetic)} synthetic images; expected eyes framed as docs/selection.md says. "
            "Crop them so, or choose lambda by eye"
        )
    fits = [fit_iris(_same_shape(images, synthetic)) for images in after]
    usable = before.valid & np.all([fit.valid for fit in fits], axis=0)
    if not usable.any():
        raise NoIrisError(
            f"{int(before.valid.sum())} irises found in {len(synthetic)} synthetic images and none of them in all "
            "refined ones; the refiner destroyed them: raise lambda, or train longer"
        )
    shift = np.stack([(fit.centre - before.centre)[usable] for fit in fits])
    distances = np.linalg.norm(shift, axis=-1)
    lost = np.mean([1 - fit.valid[before.valid].mean() for fit in fits])
    return PupilShift(
        mean_px=two_level_bootstrap(distances, bounds=NOT_NEGATIVE),
        sd_px=float(distances.std(ddof=1)) if distances.size > 1 else 0.0,
        bias_px=_pair(shift.reshape(-1, 2).mean(axis=0)),
        lost_percent=float(100 * lost),
        distances_px=distances,
    )


def iris_shift(synthetic: Store, refined: Refined, limit: int = LIMIT) -> ContourShift:
    """Shift of the visible limbus of the first `limit` images; the store must have the simulator's landmarks."""
    points, normals, visible = iris_contour(synthetic, limit)
    return contour_shift(synthetic.images(slice(0, limit)), refined, points, normals, visible)


def lid_shift(synthetic: Store, refined: Refined, limit: int = LIMIT) -> ContourShift:
    """Shift of the lid margins of the first `limit` images; the store must have the simulator's landmarks."""
    points, normals, visible = lid_contour(synthetic, limit)
    return contour_shift(synthetic.images(slice(0, limit)), refined, points, normals, visible)


def iris_contour(store: Store, limit: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Limbus points [N, 32, 2], their outward normals and which of them no lid covers [N, 32]."""
    points, lids = _landmarks(store, "iris_landmarks", limit), _landmarks(store, "lid_landmarks", limit)
    visible = [
        [cv2.pointPolygonTest(lid, (float(u), float(v)), True) > CLEAR_OF_LID_PX for u, v in limbus]
        for limbus, lid in zip(points, lids.astype(np.float32), strict=True)
    ]
    return points, _normals(points), np.array(visible)


def lid_contour(store: Store, limit: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Lid margin points [N, 20, 2], their outward normals, and all of them as visible."""
    points = _landmarks(store, "lid_landmarks", limit)
    return points, _normals(points), np.ones(points.shape[:2], dtype=bool)


def _landmarks(store: Store, column: str, limit: int) -> Floats:
    rows = store.annotations([column])[column].to_numpy()[:limit]
    return np.stack(list(rows)).reshape(len(rows), -1, 2).astype(np.float64)


def _normals(points: Floats) -> Floats:
    """Unit normals of closed polygons [N, K, 2], away from their middle."""
    tangent = np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1)
    normal = np.stack([tangent[..., 1], -tangent[..., 0]], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    outward = np.sum(normal * (points - points.mean(axis=1, keepdims=True)), axis=-1, keepdims=True)
    return np.asarray(np.where(outward < 0, -normal, normal))


def contour_shift(
    synthetic: Images, refined: Refined, points: Floats, normals: Floats, visible: NDArray[np.bool_]
) -> ContourShift:
    """Shift of `points` [N, K, 2] along `normals`, by matching slopes of grey profiles; only `visible` [N, K] ones.

    Raises ValueError if no image shows enough points that can be followed.
    """
    before = _slopes(synthetic, points, normals)
    edge = visible & (np.abs(before[..., before.shape[-1] // 4 : -before.shape[-1] // 4]).max(axis=-1) > MIN_SLOPE)
    found = [
        _match(before, _slopes(_same_shape(images, synthetic), points, normals))
        for images in _as_arrays(refined, len(synthetic))
    ]
    followed = np.stack([edge & (correlation >= MIN_CORRELATION) for _, correlation in found])
    usable = (followed.sum(axis=-1) >= MIN_POINTS).all(axis=0)
    if not usable.any():
        raise ValueError(
            f"no image of {len(synthetic)} shows {MIN_POINTS} contour points before and after; "
            "check that both are the same images in the same order"
        )
    shifts = np.stack([shift for shift, _ in found])[:, usable]
    weights = followed[:, usable]
    per_image = (np.abs(shifts) * weights).sum(axis=-1) / weights.sum(axis=-1)
    translation = _translations(shifts, normals[usable], weights)
    return ContourShift(
        mean_px=two_level_bootstrap(per_image, bounds=NOT_NEGATIVE),
        sd_px=float(np.abs(shifts)[weights].std(ddof=1)),
        bias_px=_pair(translation.reshape(-1, 2).mean(axis=0)),
        lost_percent=float(100 * (1 - followed.sum() / max(1, len(found) * edge.sum()))),
        translation_px=translation,
    )


def _slopes(images: Images, points: Floats, normals: Floats) -> NDArray[np.float32]:
    """Slope of the grey level along the normals, [N, K, T], in grey levels per pixel; T covers window and search."""
    reach = round((HALF_WINDOW_PX + SEARCH_PX) / STEP_PX)
    along = torch.arange(-reach, reach + 1) * STEP_PX
    grey = grey_levels(images)
    at, normal = (torch.from_numpy(array).to(grey.dtype) for array in (points, normals))
    tangent = torch.stack([-normal[..., 1], normal[..., 0]], dim=-1)
    base = at[:, :, None] + along[:, None] * normal[:, :, None]
    beside = [sample(grey, base + offset * tangent[:, :, None]) for offset in (-1.0, 0.0, 1.0)]
    return np.asarray(_derivative(torch.stack(beside).mean(dim=0)).numpy())


def _derivative(profile: Tensor) -> Tensor:
    """Derivative of a Gaussian along the last axis, per pixel."""
    reach = round(3 * SMOOTHING_PX / STEP_PX)
    offsets = torch.arange(-reach, reach + 1) * STEP_PX
    kernel = offsets * torch.exp(-0.5 * (offsets / SMOOTHING_PX) ** 2)
    kernel = kernel / (kernel * offsets).sum()
    return correlate(profile, kernel)


def _match(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Shift [N, K] in pixels at which slopes [N, K, T] correlate best, between samples by a parabola; and how well."""
    search = round(SEARCH_PX / STEP_PX)
    template = torch.from_numpy(before)[..., search:-search]
    length = template.shape[-1]
    window = torch.hann_window(length + 2, periodic=False)[1:-1]
    pieces = torch.from_numpy(after).unfold(-1, length, 1)  # N K shifts T
    energy = (window * template.square()).sum(-1, keepdim=True) * (window * pieces.square()).sum(-1)
    correlation = (pieces @ (window * template)[..., None])[..., 0] / energy.clamp(min=1e-6).sqrt()
    best = correlation[..., 1:-1].argmax(dim=-1, keepdim=True) + 1
    left, here, right = (correlation.gather(-1, best + k)[..., 0] for k in (-1, 0, 1))
    curvature = (left - 2 * here + right).clamp(max=-1e-9)
    offset = ((left - right) / (2 * curvature)).clamp(-0.5, 0.5)
    inside = (here >= left) & (here >= right)  # else the best shift lies beyond the search
    shift = (best[..., 0] - search + offset) * STEP_PX
    return shift.numpy().astype(np.float64), torch.where(inside, here, -1.0).numpy()


def _translations(shifts: Floats, normals: Floats, weights: NDArray[np.bool_]) -> Floats:
    """Least-squares translation per image, [S, n, 2], of shifts [S, n, K] along normals [n, K, 2].

    A third unknown takes what moves the whole border in or out, as blur does: on a limbus of which one half shows it
    would pass for a translation otherwise.
    """
    design = np.concatenate([normals, np.ones((*normals.shape[:2], 1))], axis=-1)
    weighted = design * weights[..., None]
    matrix = np.einsum("snki,nkj->snij", weighted, design) + RIDGE * np.eye(3)
    solved = np.linalg.solve(matrix, np.einsum("snki,snk->sni", weighted, shifts)[..., None])[..., 0]
    return np.asarray(solved[..., :2])


def _as_arrays(refined: Refined, count: int) -> list[Images]:
    """One array of images per seed."""
    many = [refined] if isinstance(refined, (np.ndarray, Store)) else list(refined)
    if not many:
        raise ValueError("no refined images found; expected one array or store, or one per seed")
    return [part.images(slice(0, count)) if isinstance(part, Store) else part[:count] for part in many]


def _same_shape(images: Images, synthetic: Images) -> Images:
    if images.shape != synthetic.shape:
        raise ValueError(
            f"refined images {images.shape} and synthetic ones {synthetic.shape} found; the same images expected on "
            "both sides, in the same order"
        )
    return images


def _pair(values: Floats) -> tuple[float, float]:
    return float(values[0]), float(values[1])
