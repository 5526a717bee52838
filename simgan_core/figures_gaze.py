"""Figures of 07_gaze_evaluation beside those of `figures.py`: the table of methods as a picture, realism."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from simgan_core.evaluation.published import NOTE
from simgan_core.evaluation.realism_comparison import MEASURES, RealismComparison
from simgan_core.figures import COLOURS
from simgan_core.tables_gaze import OTHER_TRAINING, REDUCED, SAME_IMAGES

_SOURCES = {"ours, as the paper": "#2b5fa6", "ours, beyond the paper": "#3d7a4e", SAME_IMAGES: "#7a4e8c"}
_SOURCES |= {OTHER_TRAINING: "#5fa8c8", REDUCED: "#c8643b", NOTE: "#9aa4ae"}


def methods_figure(table: pd.DataFrame) -> Figure:
    """`tables_gaze.methods` as a picture: mean errors with intervals; published rows are hollow."""
    figure, axes = plt.subplots(figsize=(8.6, 0.34 * len(table) + 1))
    for place, row in enumerate(table.itertuples(index=False)):
        _, value, low, high, _, _, source = row
        colour, published = _SOURCES[str(source)], source == NOTE
        if not published:
            axes.plot([low, high], [place, place], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(value, place, "o", color=colour, ms=6, mfc="white" if published else colour)
        axes.text((value if published else high) + 0.25, place, f"{value:.1f}°", va="center", fontsize=8.5)
    for source in table["source"].unique():
        colour = _SOURCES[source]
        axes.plot([], [], "o", color=colour, mfc="white" if source == NOTE else colour, label=source)
    axes.set_yticks(range(len(table)), list(table["method"]), fontsize=8.5)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("mean angular error (°), 95 % interval")
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncol=2, frameon=False)
    return figure


def realism_figure(found: RealismComparison) -> Figure:
    """One panel per measure: raw and refined, every seed as a dot, its 95 % interval as a bar."""
    figure, grid = plt.subplots(1, len(MEASURES), figsize=(3.5 * len(MEASURES), 2.9), squeeze=False)
    for axes, (measure, title) in zip(grid[0], MEASURES.items(), strict=True):
        for place, (kind, colour) in enumerate((("raw", COLOURS["synthetic"]), ("refined", COLOURS["refined"]))):
            estimates = (found.raw if kind == "raw" else found.refined)[measure]
            for index, one in enumerate(estimates):
                x = place + 0.12 * (index - (len(estimates) - 1) / 2)
                axes.plot([x, x], [one.low, one.high], color=colour, lw=4, alpha=0.35, solid_capstyle="butt")
                axes.plot(x, one.value, "o", color=colour, ms=5)
        axes.axhline(0.5 if measure == "auc" else 0.0, color="#6b7683", lw=1, ls=":")
        axes.set_xticks([0, 1], ["raw", "refined"])
        axes.set_xlim(-0.6, 1.6)
        axes.set_title(title.replace(" (", "\n("), fontsize=9)
    return figure
