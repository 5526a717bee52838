"""Figures of the notebooks: sheets and strips of eyes, gaze distributions, training curves, errors.

Each function takes arrays and returns a matplotlib figure; none opens a file. Images are uint8 [N, C, H, W], gaze is
[N, 2] pitch and yaw in radians, errors are in degrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from simgan_core.evaluation.comparison import TITLES, Comparison

Images = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]
COLOURS = {"synthetic": "#c8643b", "refined": "#2b5fa6", "real": "#3d7a4e", "neutral": "#6b7683"}
ARM_COLOURS = {
    "constant": "#9aa4ae", "raw": "#c8643b", "raw_augmented": "#dd9a78", "refined": "#2b5fa6",
    "refined_augmented": "#7fa3cf", "oracle": "#3d7a4e", "raw_1x": "#e0b39c", "refined_1x": "#a3bddd",
}  # fmt: skip
SMALLEST_AVERAGE = 50
"""Real people are shown in published pictures only as averages over at least this many images."""


def use_style() -> None:
    """The look of all figures: quiet axes, no frame around pictures."""
    mpl.rcParams.update({
        "figure.dpi": 110, "savefig.dpi": 110, "savefig.bbox": "tight", "font.size": 10, "axes.titlesize": 10.5,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6eaee",
        "axes.axisbelow": True, "axes.edgecolor": "#6b7683", "figure.constrained_layout.use": True,
        "legend.frameon": False, "image.cmap": "gray", "image.interpolation": "nearest",
    })  # fmt: skip


def save_png(figure: Figure, path: Path, caption: str, *, max_bytes: int) -> Path:
    """Save a figure atomically; a picture above `max_bytes` is reduced to 256 colours.

    Raises:
        ValueError: it is still too large.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", metadata={"Description": caption})
    if partial.stat().st_size > max_bytes:
        text = PngInfo()
        text.add_text("Description", caption)
        with Image.open(partial) as picture:
            picture.convert("RGB").quantize(256).save(partial, format="PNG", pnginfo=text, optimize=True)
    if partial.stat().st_size > max_bytes:
        size = partial.stat().st_size
        partial.unlink()
        raise ValueError(f"{path.name} has {size} bytes; expected at most {max_bytes}. Show fewer or smaller images.")
    return partial.replace(path)


def show_image(axes: Axes, image: Images, title: str = "") -> None:
    """Draw one image [C, H, W] without axes."""
    pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, vmin=0, vmax=255)
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=8, pad=2)


def sheet(images: Images, *, columns: int = 8, gaze: Array | None = None, title: str = "") -> Figure:
    """Images in rows; with `gaze`, an arrow from the middle of each shows where it looks."""
    rows = -(-len(images) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(1.25 * columns, 0.84 * rows + 0.3), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, (axes, image) in enumerate(zip(grid.flat, images, strict=False)):
        show_image(axes, image)
        if gaze is not None:
            _gaze_arrow(axes, gaze[index], image.shape[1:])
    if title:
        figure.suptitle(title)
    return figure


def _gaze_arrow(axes: Axes, pitch_yaw: Array, size: Sequence[int]) -> None:
    """Project the gaze vector into the image: (-cos p sin y, -sin p), x to the right, y down."""
    height, width = size
    pitch, yaw = float(pitch_yaw[0]), float(pitch_yaw[1])
    length = 0.9 * width
    change = (-length * np.cos(pitch) * np.sin(yaw), -length * np.sin(pitch))
    start = (width / 2, height / 2)
    axes.annotate(
        "", xytext=start, xy=(start[0] + change[0], start[1] + change[1]), annotation_clip=False,
        arrowprops={"arrowstyle": "->", "color": "#ffd23f", "lw": 1.4, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def strip(rows: Mapping[str, Images], *, title: str = "") -> Figure:
    """Rows of corresponding images, one row per key: synthetic, refined, real."""
    columns = min(len(images) for images in rows.values())
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(1.3 * columns + 0.9, 0.88 * len(rows) + 0.2), squeeze=False
    )
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(line, images, strict=False):
            show_image(axes, image)
        line[0].text(-0.08, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9.5)
    if title:
        figure.suptitle(title)
    return figure


def nearest_average(queries: Images, pool: Images, *, count: int = SMALLEST_AVERAGE) -> Images:
    """For each query the average of the `count` images of `pool` that correlate with it best, without labels.

    Raises:
        ValueError: fewer than 50 images: single people must not be recognisable in a published picture.

    """
    if count < SMALLEST_AVERAGE or len(pool) < count:
        raise ValueError(f"{min(count, len(pool))} images to average; expected at least {SMALLEST_AVERAGE}.")
    flat_pool, flat_queries = _standardised(pool), _standardised(queries)
    best = np.argsort(-(flat_queries @ flat_pool.T), axis=1)[:, :count]
    averages = [pool[np.sort(chosen)].mean(axis=0) for chosen in best]
    return np.stack(averages).round().astype(np.uint8)


def _standardised(images: Images) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), dtype=np.float32)


def averages(groups: Mapping[str, Images]) -> Figure:
    """The mean image of each group and, below, its standard deviation per pixel."""
    figure, grid = plt.subplots(2, len(groups), figsize=(2.6 * len(groups), 3.3), squeeze=False)
    for column, (name, images) in enumerate(groups.items()):
        if len(images) < SMALLEST_AVERAGE:
            raise ValueError(f"{name}: {len(images)} images to average; expected at least {SMALLEST_AVERAGE}.")
        show_image(grid[0, column], images.mean(axis=0).astype(np.uint8), f"{name}: mean of {len(images):,}")
        spread = images.std(axis=0)
        grid[1, column].imshow(spread[0], vmin=0, vmax=90, cmap="magma")
        grid[1, column].set_axis_off()
        grid[1, column].set_title("standard deviation", fontsize=8, pad=2)
    return figure


def gaze_distributions(groups: Mapping[str, Array]) -> Figure:
    """Where each group looks: two-dimensional histograms of yaw and pitch on common axes, in degrees."""
    degrees = {name: np.degrees(np.asarray(gaze, dtype=np.float64)) for name, gaze in groups.items()}
    reach = max(float(np.abs(gaze).max()) for gaze in degrees.values()) * 1.05
    bins = [np.linspace(-reach, reach, 41)] * 2
    figure, grid = plt.subplots(
        1, len(groups), figsize=(3.5 * len(groups), 3.4), sharex=True, sharey=True, squeeze=False
    )
    for axes, (name, gaze) in zip(grid[0], degrees.items(), strict=True):
        axes.hist2d(gaze[:, 1], gaze[:, 0], bins=bins, cmap="Blues")
        axes.plot(gaze[:, 1].mean(), gaze[:, 0].mean(), "+", color="#c8643b", ms=12, mew=2)
        axes.set_title(f"{name} (n = {len(gaze):,})")
        axes.set_xlabel("yaw (°)")
    grid[0, 0].set_ylabel("pitch (°)")
    return figure


def intensity_profiles(groups: Mapping[str, Images]) -> Figure:
    """Mean grey level by image column and by row: where the domains differ in light and framing."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True)
    for (name, images), colour in zip(groups.items(), COLOURS.values(), strict=False):
        mean = images.mean(axis=(0, 1))
        left.plot(mean.mean(axis=0), color=colour, label=name)
        right.plot(mean.mean(axis=1), color=colour, label=name)
    left.set(xlabel="image column (px)", ylabel="mean grey level")
    right.set(xlabel="image row (px)")
    right.legend()
    return figure


def spectra(groups: Mapping[str, Images]) -> Figure:
    """Radial power spectra: how much detail of each size the images hold, mean over images, logarithmic."""
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    for (name, images), colour in zip(groups.items(), COLOURS.values(), strict=False):
        frequency, power = radial_spectrum(images)
        axes.loglog(frequency, power, color=colour, label=f"{name} (n = {len(images):,})")
    axes.set(xlabel="spatial frequency (cycles per pixel)", ylabel="power")
    ticks = [0.03, 0.05, 0.1, 0.2, 0.4]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend()
    return figure


def radial_spectrum(images: Images, *, bins: int = 24) -> tuple[Array, Array]:
    """Mean power of [N, C, H, W] images in rings of spatial frequency: frequencies (cycles per pixel) and power."""
    grey = images.mean(axis=1) / 255.0
    window = np.outer(np.hanning(grey.shape[1]), np.hanning(grey.shape[2]))
    power = (np.abs(np.fft.fft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    radius = np.hypot(np.fft.fftfreq(grey.shape[1])[:, None], np.fft.fftfreq(grey.shape[2])[None, :])
    edges = np.linspace(1 / grey.shape[2], 0.5, bins + 1)
    ring = np.digitize(radius.ravel(), edges) - 1
    inside = (ring >= 0) & (ring < bins)
    counts = np.bincount(ring[inside], minlength=bins)
    sums = np.bincount(ring[inside], weights=power.ravel()[inside], minlength=bins)
    kept = counts > 0
    return ((edges[1:] + edges[:-1]) / 2)[kept], sums[kept] / counts[kept]


def landmarks(images: Images, annotations: pd.DataFrame, *, columns: int = 4) -> Figure:
    """Large images with their labels drawn in: lid margin, outline of the iris, pupil centre, in pixels."""
    rows = -(-len(images) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(2.5 * columns, 1.68 * rows))
    for axes, image, (_, label) in zip(grid.flat, images, annotations.iterrows(), strict=False):
        show_image(axes, image)
        # Labels have the corner of the first pixel at 0, pictures its centre.
        lid, iris = (np.asarray(label[f"{part}_landmarks"]).reshape(-1, 2) - 0.5 for part in ("lid", "iris"))
        axes.plot(*np.vstack([lid, lid[:1]]).T, "-", color="#ffd23f", lw=1)
        axes.plot(*np.vstack([iris, iris[:1]]).T, "-", color="#5fc8e8", lw=1)
        axes.plot(label["pupil_u"] - 0.5, label["pupil_v"] - 0.5, "+", color="#ff5d5d", ms=9, mew=1.6)
        axes.set(xlim=(-0.5, image.shape[2] - 0.5), ylim=(image.shape[1] - 0.5, -0.5))
    return figure


def change_map(before: Images, after: Images) -> Figure:
    """Where the refiner changes images: mean signed and mean absolute change per pixel, in grey levels."""
    change = after.astype(np.float32).mean(axis=1) - before.astype(np.float32).mean(axis=1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.6))
    reach = float(np.abs(change.mean(axis=0)).max())
    for axes, values, limits, cmap, title in (
        (left, change.mean(axis=0), (-reach, reach), "RdBu_r", "mean change"),
        (right, np.abs(change).mean(axis=0), (0, None), "magma", "mean absolute change"),
    ):
        shown = axes.imshow(values, vmin=limits[0], vmax=limits[1], cmap=cmap)
        axes.set_axis_off()
        axes.set_title(f"{title} (grey levels of 255)", fontsize=9)
        figure.colorbar(shown, ax=axes, shrink=0.85)
    return figure


def curves(log: pd.DataFrame, panels: Mapping[str, Mapping[str, str]], *, x: str = "iteration") -> Figure:
    """Training curves: per panel (title), columns of `log` and their labels; thin raw lines, thick running means."""
    figure, grid = plt.subplots(1, len(panels), figsize=(4.1 * len(panels), 3), squeeze=False)
    colours = list(COLOURS.values())
    for axes, (title, columns) in zip(grid[0], panels.items(), strict=True):
        for colour, (column, label) in zip(colours, columns.items(), strict=False):
            values = log[[x, column]].dropna()
            axes.plot(values[x], values[column], color=colour, lw=0.7, alpha=0.35)
            smooth = values[column].rolling(max(1, len(values) // 15), min_periods=1, center=True).mean()
            axes.plot(values[x], smooth, color=colour, lw=1.8, label=label)
        axes.set(title=title, xlabel=x)
        axes.legend(fontsize=8)
    return figure


def training_curves(log: pd.DataFrame, *, real_name: str) -> Figure:
    """Losses of R, accuracy of D per class and distance from the input over an adversarial training."""
    accuracies = {"real": real_name, "fresh": "refined, fresh", "history": "refined, history"}
    known = {f"accuracy_{name}": label for name, label in accuracies.items() if f"accuracy_{name}" in log}
    panels = {
        "losses of R (sums over the image)": {
            "loss_adversarial": "adversarial",
            "loss_regularisation": "λ · self-regularisation",
        },
        "D: patches told rightly": known,
        "refined minus input": {"refined_minus_input": "mean |R(x) − x|, images in [−1, 1]"},
    }
    return curves(log, panels)


def arms_figure(comparison: Comparison, *, reference: Mapping[str, float] | None = None) -> Figure:
    """Mean error of each arm with its 95 % interval, and the single seeds; `reference`: vertical lines."""
    names = list(comparison.predicted)
    figure, axes = plt.subplots(figsize=(8.2, 0.48 * len(names) + 1))
    for place, name in enumerate(names):
        colour, estimate = ARM_COLOURS.get(name, COLOURS["neutral"]), comparison.mean_error_deg(name)
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(estimate.value, place, "o", color=colour, ms=7)
        seeds = comparison.seed_errors_deg(name).mean(axis=1)
        axes.plot(seeds, np.full(len(seeds), place + 0.22), "|", color=colour, ms=7)
        axes.text(estimate.high + 0.12, place, f"{estimate.value:.2f}°", va="center", fontsize=9)
    for name, value in (reference or {}).items():
        axes.axvline(value, color="#6b7683", lw=1, ls=":")
        axes.text(value, -0.75, name, fontsize=8, color="#6b7683", ha="center")
    axes.set_yticks(range(len(names)), [TITLES.get(name, name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("mean angular error (°), 95 % interval over seeds and images; ticks: single seeds")
    axes.grid(axis="y", visible=False)
    return figure


def cumulative_errors(errors: Mapping[str, Array], *, marked_deg: float = 7.0) -> Figure:
    """Share of images within an angle (the paper's figure 8), errors [seeds, N] pooled over seeds."""
    figure, axes = plt.subplots(figsize=(7, 3.8))
    angles = np.linspace(0, 20, 201)
    for name, values in errors.items():
        share = [100 * float((values <= angle).mean()) for angle in angles]
        axes.plot(angles, share, color=ARM_COLOURS.get(name, COLOURS["neutral"]), label=TITLES[name])
    axes.axvline(marked_deg, color="#6b7683", lw=1, ls=":")
    axes.set(xlabel="angular error (°)", ylabel="% of test images", xlim=(0, 20), ylim=(0, 100))
    axes.legend(fontsize=8, loc="lower right")
    return figure


def error_histograms(errors: Mapping[str, Array]) -> Figure:
    """Histograms of the angular error, one panel per arm on common axes, the mean marked."""
    figure, grid = plt.subplots(1, len(errors), figsize=(3.3 * len(errors), 2.7), sharey=True, squeeze=False)
    bins = np.linspace(0, 20, 41)
    for axes, (name, values) in zip(grid[0], errors.items(), strict=True):
        colour = ARM_COLOURS.get(name, COLOURS["neutral"])
        axes.hist(np.clip(values.ravel(), 0, 20), bins=bins, color=colour, density=True)
        axes.axvline(float(values.mean()), color="#1d2733", lw=1.2)
        axes.set_title(f"{TITLES[name]}\nmean {values.mean():.2f}°", fontsize=9)
        axes.set_xlabel("error (°), last bin: 20 and more")
    grid[0, 0].set_ylabel("density")
    return figure


def error_by_gaze(truth: Array, errors: Mapping[str, Array], *, smallest: int = 5) -> Figure:
    """Mean error by gaze direction; cells with fewer than `smallest` images stay empty."""
    degrees = np.degrees(np.asarray(truth, dtype=np.float64))
    pitch_bins, yaw_bins = (np.linspace(low, high, 13) for low, high in np.percentile(degrees, [1, 99], axis=0).T)
    counts, _, _ = np.histogram2d(degrees[:, 1], degrees[:, 0], bins=[yaw_bins, pitch_bins])
    figure, grid = plt.subplots(1, len(errors), figsize=(3.6 * len(errors) + 0.6, 3.3), sharey=True, squeeze=False)
    for axes, (name, values) in zip(grid[0], errors.items(), strict=True):
        sums, _, _ = np.histogram2d(
            degrees[:, 1], degrees[:, 0], bins=[yaw_bins, pitch_bins], weights=values.mean(axis=0)
        )
        with np.errstate(invalid="ignore"):
            cells = np.where(counts >= smallest, sums / counts, np.nan)
        mesh = axes.pcolormesh(yaw_bins, pitch_bins, cells.T, vmin=0, vmax=12, cmap="magma_r")
        axes.set(title=TITLES[name], xlabel="yaw (°)")
        axes.grid(visible=False)
    grid[0, 0].set_ylabel("pitch (°)")
    figure.colorbar(mesh, ax=grid[0, -1], label="mean error (°)")
    return figure
