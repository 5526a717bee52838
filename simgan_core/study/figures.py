"""Figures of notebook 06: people's shares, learning over trials, reaction times, hardest images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from simgan_core.figures import COLOURS, show_image
from simgan_core.study.analysis import MARGIN, Analysis
from simgan_core.study.pictures import decode_png
from simgan_core.study.scoring import PAPER, Share, clopper_pearson, over_subjects, per_subject

PARTS = 10  # of the main block, for the learning curve
SHEET_COLUMNS = 4


def stamp(analysis: Analysis) -> str:
    """A figure's title: who answered."""
    return "SIMULATED responders, not people" if analysis.answers.simulated else f"{analysis.subjects} people"


def shares(analysis: Analysis) -> Figure:
    """Share of right answers of each subject and of all, with intervals, beside the paper's and the control."""
    subjects = per_subject(analysis.main)
    columns = [subjects[name].tolist() for name in ("subject", "accuracy", "low", "high")]
    rows = [(subject, Share(*share), COLOURS["neutral"]) for subject, *share in zip(*columns, strict=True)]
    together = over_subjects(analysis.main)
    assert together is not None
    rows.append(("all", together, COLOURS["refined"]))
    if analysis.control is not None:
        rows.append(("control", analysis.control.share, COLOURS["synthetic"]))
    rows.append(("paper, all", clopper_pearson(PAPER.correct, PAPER.n), COLOURS["real"]))
    figure, axes = plt.subplots(figsize=(7, 0.28 * len(rows) + 1.2))
    axes.axvspan(50 - 100 * MARGIN, 50 + 100 * MARGIN, color="#eef2f6", zorder=0)
    axes.axvline(50, color=COLOURS["neutral"], lw=1)
    for place, (_, share, colour) in enumerate(rows):
        axes.plot([100 * share.low, 100 * share.high], [place, place], color=colour, lw=2)
        axes.plot(100 * share.value, place, "o", color=colour, ms=5, clip_on=False)
    axes.set_yticks(range(len(rows)), [str(name) for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="right answers (%), 95 % interval; shaded: 'cannot tell'", title=stamp(analysis))
    axes.grid(axis="y", visible=False)
    return figure


def learning(analysis: Analysis) -> Figure | None:
    """Share of right answers over the course of the main block; None where the order of trials is not known."""
    main = analysis.main
    if "trial" not in main:
        return None
    trials = pd.to_numeric(main["trial"]).groupby(main["subject"])
    before, of = trials.rank(method="first") - 1, trials.transform("size")
    part = (before * PARTS // of).to_numpy(int)
    right = (main["answer"] == main["truth"]).to_numpy()
    found = [clopper_pearson(int(right[part == k].sum()), int((part == k).sum())) if (part == k).any() else None
             for k in range(PARTS)]  # fmt: skip
    known = [(k, share) for k, share in enumerate(found) if share is not None]
    places = [(k + 0.5) * 100 / PARTS for k, _ in known]
    figure, axes = plt.subplots(figsize=(6, 2.8))
    axes.axhline(50, color=COLOURS["neutral"], lw=1)
    axes.fill_between(places, [100 * s.low for _, s in known], [100 * s.high for _, s in known], alpha=0.2, lw=0)
    axes.plot(places, [100 * s.value for _, s in known], "o-", color=COLOURS["refined"])
    axes.set(xlabel="trials done (% of the main block)", ylabel="right (%)", ylim=(0, 100), title=stamp(analysis))
    return figure


def reaction_times(analysis: Analysis) -> Figure | None:
    """Reaction times of right and wrong answers; None where none was measured."""
    main = analysis.main
    if "reaction_ms" not in main or main["reaction_ms"].notna().sum() == 0:
        return None
    seconds = pd.to_numeric(main["reaction_ms"]) / 1000
    right = main["answer"] == main["truth"]
    bins = np.linspace(0, float(seconds.quantile(0.98)), 25)
    figure, axes = plt.subplots(figsize=(6, 2.8))
    for name, chosen, colour in (("right", right, COLOURS["real"]), ("wrong", ~right, COLOURS["synthetic"])):
        own = seconds[chosen].dropna()
        if len(own):
            axes.hist(own, bins=bins.tolist(), histtype="step", lw=1.8, color=colour, density=True,
                      label=f"{name}: median {own.median():.2f} s")  # fmt: skip
    axes.set(xlabel="reaction time (s)", ylabel="density", title=stamp(analysis))
    axes.legend()
    return figure


def hardest_sheet(analysis: Analysis, pictures: Mapping[str, bytes], table: pd.DataFrame, title: str) -> Figure:
    """The images of `in_run.hardest`, each with its share of wrong answers; the title says who answered."""
    rows = max(1, -(-len(table) // SHEET_COLUMNS))
    figure, grid = plt.subplots(rows, SHEET_COLUMNS, figsize=(7, 1.35 * rows + 0.5), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, row in zip(grid.flat, table.itertuples(), strict=False):
        show_image(
            axes, decode_png(pictures[str(row.image)]), f"{100 * float(str(row.wrong)):.0f} % wrong of {row.shown}"
        )
    if table.empty:
        figure.text(0.5, 0.4, "no image was misjudged", ha="center")
    figure.suptitle(f"{title}; {stamp(analysis)}")
    return figure
