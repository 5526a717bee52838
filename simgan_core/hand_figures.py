"""Figures of 08_hand_pose: strips of depth hands with close-ups of edges, table 4 as a picture, curves, skeletons.

Images are uint8 [N, 1, H, W] (0 background, nearer is brighter), joints (u, v) in pixels of the image, distances in
pixels of the paper's 224 x 224 crop. Each function returns a matplotlib figure; none opens a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from simgan_core.evaluation.depth_edges import BINS, WIDTH, edge_band
from simgan_core.evaluation.hand_comparison import AREA_UP_TO_PX, HAND_TITLES, WITHIN_PX, HandComparison
from simgan_core.hand_crop import BONES_14, JOINTS_14
from simgan_core.images import tensor_of

Images = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]
HAND_COLOURS = {
    "raw": "#c8643b", "refined": "#2b5fa6", "real": "#3d7a4e", "raw_3views": "#dd9a78", "refined_3views": "#7fa3cf",
    "recorded": "#8a6fa8",
}  # fmt: skip
MARK = "#ffd23f"
DEPTH = "bone"
DISTANCES_PX = np.linspace(0, AREA_UP_TO_PX, 81)


def hand_strip(same_hands: Mapping[str, Images], others: Mapping[str, Images], *, columns: int = 6) -> Figure:
    """Two lines per row: whole crops, and below each the close-up of its busiest piece of edge (framed above).

    Columns are spread over all images, as a store may show several hands in turn. Rows of `same_hands` show one image
    per column and share the first row's windows; `others` have their own.
    """
    rows = [*same_hands.items(), *others.items()]
    figure, grid = plt.subplots(2 * len(rows), columns, figsize=(1.3 * columns + 1.2, 2.66 * len(rows)), squeeze=False)
    first = next(iter(same_hands.values()))
    for line, (name, images) in enumerate(rows):
        framed = first if name in same_hands else images
        for column, place in enumerate(np.linspace(0, len(images) - 1, columns).astype(int)):
            top, left, side = busiest_window(framed[place])
            whole, close = grid[2 * line, column], grid[2 * line + 1, column]
            _show(whole, images[place, 0])
            whole.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec=MARK, lw=1))
            _show(close, images[place, 0, top : top + side, left : left + side])
        axes = grid[2 * line, 0]
        axes.text(-0.1, -0.05, name, transform=axes.transAxes, ha="right", va="center", fontsize=9.5)
    return figure


def _show(axes: Axes, image: Array | NDArray[np.uint8]) -> None:
    axes.imshow(image, vmin=0, vmax=255, cmap=DEPTH)
    axes.set_axis_off()


def busiest_window(image: Images) -> tuple[int, int, int]:
    """Top, left and side of the window (a quarter of the image's side) with the most pixels of the edge band."""
    band = edge_band(image[None])[0].astype(np.float64)
    side = max(8, image.shape[-1] // 4)
    total = np.pad(band.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(int(counts.argmax()), counts.shape)
    return int(top), int(left), side


def edge_histograms(counts: Mapping[str, Array]) -> Figure:
    """Distributions of the local change around the silhouette, cumulative: what the edge distance compares."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    colours = ("#c8643b", "#2b5fa6", "#8a6fb0", "#3d7a4e")
    levels = WIDTH * (np.arange(BINS) + 1)
    for (name, values), colour in zip(counts.items(), colours, strict=False):
        pooled = values.reshape(-1, BINS).sum(axis=0).cumsum()
        axes.plot(levels, 100 * pooled / max(1.0, pooled[-1]), color=colour, label=name)
    axes.set(xlabel="strength of the change (levels of 255)", ylabel="% of edge pixels", xlim=(0, 130))
    axes.legend(fontsize=8, loc="lower right")
    return figure


def hand_arms_figure(comparison: HandComparison, distance_px: float = WITHIN_PX) -> Figure:
    """Table 4: percentage of joints within the distance, with 95 % intervals; ticks are single seeds."""
    names = list(comparison.predicted)
    figure, axes = plt.subplots(figsize=(8.2, 0.48 * len(names) + 1))
    ends: list[float] = []
    for place, name in enumerate(names):
        colour, estimate = HAND_COLOURS[name], comparison.within(name, distance_px)
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(estimate.value, place, "o", color=colour, ms=7)
        seeds = comparison.percent_within(name, distance_px).mean(axis=1)
        axes.plot(seeds, np.full(len(seeds), place + 0.22), "|", color=colour, ms=7)
        axes.text(estimate.high + 0.6, place, f"{estimate.value:.1f} %", va="center", fontsize=9)
        ends += [estimate.low, estimate.high, *seeds.tolist()]
    # room for the numbers at the right, also where no arm has any joint within the distance
    axes.set_xlim(min(ends) - 1, max(ends) + max(4.0, 0.12 * (max(ends) - min(ends))))
    axes.set_yticks(range(len(names)), [HAND_TITLES[name] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlabel(f"% of joints within {distance_px:g} px of the 224 x 224 crop; 95 % interval over seeds and images")
    axes.grid(axis="y", visible=False)
    return figure


def hand_curves(comparison: HandComparison, marked_px: float = WITHIN_PX) -> Figure:
    """The whole curve: percentage of joints within each distance, seeds pooled."""
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for name in comparison.predicted:
        curve = comparison.curve(name, DISTANCES_PX.tolist())
        axes.plot(DISTANCES_PX, curve, color=HAND_COLOURS[name], label=HAND_TITLES[name])
    axes.axvline(marked_px, color="#6b7683", lw=1, ls=":")
    axes.set(xlabel="distance d (px of the 224 x 224 crop)", ylabel="% of joints within d", xlim=(0, 20), ylim=(0, 100))
    axes.legend(fontsize=8, loc="lower right")
    return figure


def hand_joints_figure(comparison: HandComparison, distance_px: float = WITHIN_PX) -> Figure:
    """Percentage within the distance for every joint and arm."""
    names = list(comparison.predicted)
    figure, axes = plt.subplots(figsize=(9.4, 3.4))
    place = np.arange(len(JOINTS_14))
    for k, name in enumerate(names):
        at, width = bar_places(place, k, len(names))
        axes.bar(at, comparison.per_joint(name, distance_px), width, color=HAND_COLOURS[name], label=HAND_TITLES[name])
    axes.set_xticks(place, [joint.replace("_", " ") for joint in JOINTS_14], rotation=40, ha="right", fontsize=8)
    axes.set_ylabel(f"% within {distance_px:g} px")
    axes.legend(fontsize=7.5, ncols=2)
    axes.grid(axis="x", visible=False)
    return figure


def bar_places(groups: NDArray[Any], bar: int, bars: int) -> tuple[NDArray[np.float64], float]:
    """Where the `bar`-th of `bars` bars of each group stands, and how wide it is; groups are 1 apart."""
    step = 0.84 / bars
    return groups + (bar - (bars - 1) / 2) * step, 0.94 * step


def estimates(images: Images, truth: Array, predicted: Mapping[str, Array], *, columns: int = 6) -> Figure:
    """Test images with estimated skeletons, one row per arm; the truth is dotted. Joints [N, J, 2]."""
    figure, grid = plt.subplots(
        len(predicted), columns, figsize=(1.6 * columns + 1, 1.62 * len(predicted)), squeeze=False
    )
    for line, (name, joints) in zip(grid, predicted.items(), strict=True):
        for column, axes in enumerate(line):
            _show(axes, images[column, 0])
            for joints_of, colour, style in ((truth, "white", ":"), (joints, HAND_COLOURS[name], "-")):
                for a, b in BONES_14:
                    # Pixel centres are at half integers in the labels and at integers in the picture.
                    axes.plot(*(joints_of[column, [a, b]].T - 0.5), style, color=colour, lw=1.3)
        line[0].set_title(HAND_TITLES[name], fontsize=8.5, loc="left")
    return figure


def skeletons_3d(skeletons: Mapping[str, Array], *, azimuth_deg: float = -60.0) -> Figure:
    """Skeletons [14, 3] in mm (x right, y down, z away) side by side, seen from one direction."""
    figure = plt.figure(figsize=(3.6 * len(skeletons), 3.6))
    every = np.concatenate(list(skeletons.values()))
    middle, reach = (every.max(axis=0) + every.min(axis=0)) / 2, float(np.ptp(every, axis=0).max()) / 2
    for k, (name, joints) in enumerate(skeletons.items(), start=1):
        axes: Any = figure.add_subplot(1, len(skeletons), k, projection="3d")
        for a, b in BONES_14:
            x, y, z = joints[[a, b]].T
            axes.plot(x, z, -y, color="#2b5fa6", lw=1.6)  # the vertical axis of the picture points up
        axes.scatter(joints[:, 0], joints[:, 2], -joints[:, 1], color="#c8643b", s=14)
        axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[2] - reach, middle[2] + reach),
                 zlim=(-middle[1] - reach, -middle[1] + reach))  # fmt: skip
        axes.set_title(name, fontsize=9)
        axes.view_init(elev=12, azim=azimuth_deg)
        axes.tick_params(labelsize=6)
    return figure


def lift(images: Images, uv: Array, cube: Array) -> NDArray[np.float64]:
    """Estimated joints [N, J, 2] as points [N, J, 3] in mm: depth is that of the hand's surface nearest in the picture.

    A joint lies some millimetres under the skin, and behind whatever covers it; so this is for looking, not measuring.
    `cube` [N, 4]: u, v, d and side of the crops.
    """
    import torch

    from simgan_core.hand_crop import decode_depth, from_crop_pixels, uvd_to_xyz

    height, width = images.shape[-2:]
    cubes = torch.from_numpy(np.asarray(cube, np.float32))
    depth = decode_depth(tensor_of(images), cubes).numpy()
    uvd = np.concatenate([uv, np.zeros((*uv.shape[:2], 1))], axis=-1).astype(np.float32)
    for of_image, joints, middle in zip(depth, uvd, cube, strict=True):
        rows, columns = np.nonzero(of_image > 0)
        if not len(rows):
            joints[:, 2] = middle[2]
            continue
        distance = np.hypot(joints[:, 0, None] - columns - 0.5, joints[:, 1, None] - rows - 0.5)
        nearest = distance.argmin(axis=1)
        joints[:, 2] = of_image[rows[nearest], columns[nearest]]
    points = uvd_to_xyz(from_crop_pixels(torch.from_numpy(uvd), cubes, (height, width)))
    return np.asarray(points.numpy(), dtype=np.float64)


def hand_table_rows(comparison: HandComparison, distances_px: Sequence[float] = (3.0, 5.0, 10.0)) -> list[list[Any]]:
    """Table 4 as rows: arm, percentage within each distance, interval at 5 px, area of the curve, mean distance."""
    rows: list[list[Any]] = []
    for arm in comparison.predicted:
        at_five, mean = comparison.within(arm), comparison.mean_error_px(arm)
        within = [comparison.within(arm, distance).value for distance in distances_px]
        rows.append([HAND_TITLES[arm], *within, at_five.low, at_five.high, comparison.area_percent(arm), mean.value])
    return rows
