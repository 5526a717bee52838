"""Figures of the ablations (notebooks 03 to 05): errors per variant, accuracy of D, artefacts, sweeps, colour.

Each function takes arrays or results and returns a matplotlib figure. Images are uint8 [N, C, H, W], errors in degrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simgan_core.ablations import Ablation
from simgan_core.colour_eyes import FACTORS, PSIS, ColourResult, chroma, variant_name
from simgan_core.evaluation.artefacts import PatchModel
from simgan_core.evaluation.statistics import Estimate, two_level_bootstrap
from simgan_core.figures import COLOURS, show_image
from simgan_core.playground import StepViewer
from simgan_core.regularisation import Measured

Images = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
PALETTE = ("#2b5fa6", "#c8643b", "#3d7a4e", "#8a5aa8", "#6b7683")
ACCURACIES = {"accuracy_real": "target", "accuracy_fresh": "refined, fresh", "accuracy_history": "refined, history"}


def errors(ablation: Ablation, names: Sequence[str]) -> Figure:
    """Mean gaze error of each variant with its 95 % interval; grey lines join the variants of one seed."""
    figure, axes = plt.subplots(figsize=(1.7 * len(names) + 1.6, 3.2))
    places = np.arange(len(names))
    seeds = np.stack([ablation.errors_deg(name).mean(axis=1) for name in names])
    for of_seed in seeds.T:
        axes.plot(places, of_seed, "o-", color="#b9c2cb", lw=1, ms=3.5, zorder=1)
    for place, name in enumerate(names):
        estimate = ablation.mean_error_deg(name)
        _interval(axes, place, estimate, PALETTE[place % len(PALETTE)])
        axes.text(place + 0.09, estimate.value, f"{estimate.value:.2f}°", va="center", fontsize=9)
    axes.set_xticks(places, [ablation.title(name) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.2)
    axes.set_ylabel("mean gaze error (°)")
    axes.grid(axis="x", visible=False)
    return figure


def _interval(axes: Axes, place: float, estimate: Estimate, colour: str) -> None:
    axes.plot([place, place], [estimate.low, estimate.high], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
    axes.plot(place, estimate.value, "o", color=colour, ms=7)


def accuracies(logs: Mapping[str, Sequence[pd.DataFrame]], *, real_name: str = "target") -> Figure:
    """D's accuracy over the adversarial steps, one panel per kind of image: thin single seeds, thick their mean."""
    known = [column for column in ACCURACIES if any(column in log for of_seeds in logs.values() for log in of_seeds)]
    figure, grid = plt.subplots(1, len(known), figsize=(3.7 * len(known), 2.9), sharey=True, squeeze=False)
    for axes, column in zip(grid[0], known, strict=True):
        for colour, (title, of_seeds) in zip(PALETTE, logs.items(), strict=False):
            series = [log.set_index("iteration")[column].dropna() for log in of_seeds if column in log]
            for values in series:
                axes.plot(values.index, values, color=colour, lw=0.7, alpha=0.35)
            if series:
                mean = pd.concat(series, axis=1).mean(axis=1)
                axes.plot(mean.index, mean, color=colour, lw=2, label=title)
        axes.axhline(0.5, color="#6b7683", lw=1, ls=":")
        axes.set(title=real_name if column == "accuracy_real" else ACCURACIES[column], xlabel="iteration", ylim=(0, 1))
    grid[0, 0].set_ylabel("patches that D tells rightly")
    grid[0, 0].legend(fontsize=8, loc="lower left")
    return figure


def shares(percent: Mapping[str, Estimate], *, label: str) -> Figure:
    """Percentages with their 95 % intervals, one line each."""
    figure, axes = plt.subplots(figsize=(7.2, 0.5 * len(percent) + 1))
    for place, (colour, estimate) in enumerate(zip(_colours(len(percent)), percent.values(), strict=True)):
        axes.plot([estimate.low, estimate.high], [place] * 2, color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(estimate.value, place, "o", color=colour, ms=7)
        axes.annotate(f"{estimate.value:.1f}", (estimate.high, place), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(percent)), list(percent))
    axes.set_ylim(len(percent) - 0.5, -0.5)
    axes.set_xlim(left=min(0.0, *(e.low for e in percent.values())))
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return figure


def _colours(count: int) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(count)]


def sweep(measured: Sequence[Measured], *, chosen: str | None, oracle: str, allowed_px: float) -> Figure:
    """Gaze error, pupil shift and AUC over lambda, raw renders dotted; the rule's pick and the oracle's are marked."""
    raw, refiners = measured[0], list(measured[1:])
    places = range(len(refiners))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11.4, 3.3))
    for place, m in zip(places, refiners, strict=True):
        _interval(left, place, m.error_deg, COLOURS["refined"])
        _interval(right, place, m.auc, COLOURS["refined"])
        if m.shift is not None:
            _interval(middle, place, m.shift.mean_px, COLOURS["refined"])
    left.axhline(raw.error_deg.value, color=COLOURS["synthetic"], ls=":", label="raw renders")
    right.axhline(raw.auc.value, color=COLOURS["synthetic"], ls=":", label="raw renders")
    middle.axhline(allowed_px, color="#b3372f", ls="--", lw=1, label="allowed")
    for axes, text in ((left, "gaze error (°)"), (middle, "pupil shift (px)"), (right, "AUC of a fresh discriminator")):
        for place, m in zip(places, refiners, strict=True):
            if m.name == chosen:
                axes.axvspan(place - 0.3, place + 0.3, color="#3d7a4e", alpha=0.13, lw=0, label="rule without labels")
            if m.name == oracle:
                axes.axvline(place, color="#8a5aa8", lw=1, ls="-.", label="oracle: least error")
        axes.set_xticks(places, [f"{m.lambda_sum:g}" for m in refiners])
        axes.set(title=text, xlabel="λ (sums)")
        axes.grid(axis="x", visible=False)
        axes.legend(fontsize=7)
    middle.set_xticks(places, [f"{m.lambda_sum:g}\n{m.lost_percent:.0f} %" for m in refiners])
    middle.set_xlabel("λ (sums), and irises lost")
    middle.set_ylim(bottom=0)
    return figure


def colour_strip(rows: Mapping[str, Images], count: int = 8) -> Figure:
    """Rows of colour images, one row per key."""
    figure, grid = plt.subplots(len(rows), count, figsize=(1.2 * count + 1, 0.84 * len(rows) + 0.2), squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, image in zip(line, images, strict=False):
            show_image(axes, image)
        line[0].text(-0.08, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    return figure


def chroma_scatter(result: ColourResult, titles: Mapping[str, str], *, count: int = 300) -> Figure:
    """Mean chroma of single images: renders, target, and renders after each refiner in `titles` (first seed)."""
    figure, axes = plt.subplots(figsize=(5.4, 4))
    groups = {"renders": result.renders(), "warm target": result.target.images()}
    groups |= {title: result.refined[name][0] for name, title in titles.items()}
    colours = (COLOURS["synthetic"], COLOURS["real"], "#6b7683", COLOURS["refined"])
    for colour, (name, images) in zip(colours, groups.items(), strict=False):
        points = chroma(images[:count])
        axes.scatter(points[:, 0], points[:, 1], s=7, alpha=0.3, color=colour, lw=0)
        axes.plot(*points.mean(axis=0), "o", ms=9, color=colour, mec="white", label=name)
    axes.set(xlabel="red − green (grey levels)", ylabel="blue − green (grey levels)")
    axes.legend(fontsize=8)
    return figure


def colour_sweep(result: ColourResult, default_lambda: float) -> Figure:
    """Share of the colour gap that each psi closes, over lambda: image by image with interval, and of the mean colour.

    Lambda is that of the mean of channels; the identity's is a third of it (`colour_eyes.colour_variants`).
    """
    figure, axes = plt.subplots(figsize=(5.4, 3.4))
    for colour, (psi, title) in zip(("#6b7683", COLOURS["refined"]), PSIS.items(), strict=True):
        names = [variant_name(psi, factor) for factor in FACTORS]
        means = [two_level_bootstrap(result.closed_percent(name)) for name in names]
        for place, estimate in enumerate(means):
            _interval(axes, place, estimate, colour)
        axes.plot([estimate.value for estimate in means], color=colour, lw=1.5, label=f"{title}, image by image")
        whole = [result.mean_closed_percent(name) for name in names]
        axes.plot(whole, "s--", color=colour, lw=1, ms=4, label=f"{title}, mean colour")
    axes.set_xticks(range(len(FACTORS)), [f"{factor * default_lambda:g}" for factor in FACTORS])
    axes.set(xlabel="λ (sums)", ylabel="colour gap closed (%)", xlim=(-0.3, len(FACTORS) - 0.7))
    axes.axhline(0, color="#6b7683", lw=1, ls=":")
    axes.legend(fontsize=7.5)
    return figure


def distances(samples: Mapping[str, Floats], *, paper: tuple[float, float] = (1.1, 0.8)) -> Figure:
    """Histograms of pupil shifts in pixels beside the paper's mean and standard deviation."""
    figure, axes = plt.subplots(figsize=(6.4, 3))
    bins = np.linspace(0, 4, 41).tolist()
    for colour, (name, values) in zip(PALETTE, samples.items(), strict=False):
        text = f"{name}: {values.mean():.2f} ± {values.std(ddof=1):.2f} px"
        axes.hist(np.clip(values.ravel(), 0, 4), bins=bins, density=True, color=colour, alpha=0.6, label=text)
    mean, deviation = paper
    axes.axvspan(mean - deviation, mean + deviation, color="#6b7683", alpha=0.12, lw=0)
    axes.axvline(mean, color="#6b7683", lw=1.2, ls=":", label=f"paper: {mean} ± {deviation} px")
    axes.set(xlabel="shift of the fitted centre (px), last bin: 4 and more", ylabel="density")
    axes.legend(fontsize=8)
    return figure


def error_table(ablation: Ablation, names: Sequence[str]) -> pd.DataFrame:
    """Mean gaze error of each variant with its 95 % interval, over how many seeds and images."""
    found = [(ablation.title(name), ablation.mean_error_deg(name)) for name in names]
    rows = [(title, e.value, e.low, e.high, e.seeds, e.n) for title, e in found]
    return pd.DataFrame(rows, columns=["variant", "mean error (°)", "low", "high", "seeds", "images"])


def artefact_maps(patches: PatchModel, rows: Mapping[str, Images]) -> Figure:
    """How often each place of the image is part of an artefact, percent, one panel per kind of image."""
    maps = {title: patches.artefact_map(images) for title, images in rows.items()}
    highest = max(2.0, *(float(values.max()) for values in maps.values()))
    figure, grid = plt.subplots(1, len(maps), figsize=(3.3 * len(maps) + 0.6, 2.2), squeeze=False)
    for axes, (title, values) in zip(grid[0], maps.items(), strict=True):
        shown = axes.imshow(values, vmin=0, vmax=highest, cmap="magma")
        axes.set_title(title)
        axes.set_axis_off()
    figure.colorbar(shown, ax=grid[0, -1], label="% of images")
    return figure


def steps(viewer: StepViewer, *, sample: int, count: int = 6) -> Figure:
    """One sample over the steps of every training of a viewer: a column per step, the render first."""
    places = sorted({round(place) for place in np.linspace(0, len(viewer.iterations) - 1, count)})
    figure, grid = plt.subplots(
        len(viewer.refined),
        len(places) + 1,
        figsize=(1.5 * (len(places) + 1), 1.15 * len(viewer.refined)),
        squeeze=False,
    )
    for line, (title, refined) in zip(grid, viewer.refined.items(), strict=True):
        pictures = [("synthetic", viewer.renders[sample])]
        pictures += [(f"iteration {viewer.iterations[place]}", refined[place, sample]) for place in places]
        for axes, (text, picture) in zip(line, pictures, strict=True):
            axes.imshow(picture, vmin=0, vmax=255)
            axes.set_axis_off()
            axes.set_title(text, fontsize=8, pad=2)
        line[0].text(-0.08, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    return figure
