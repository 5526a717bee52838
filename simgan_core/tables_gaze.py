"""Tables of 07_gaze_evaluation beside the paper's own: amount of data (table 2), methods (table 3), realism."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from simgan_core.evaluation.baselines import BASELINES
from simgan_core.evaluation.comparison import TITLES, Comparison
from simgan_core.evaluation.published import NOTE, TABLE_2, TABLE_3
from simgan_core.evaluation.realism_comparison import MEASURES, RealismComparison
from simgan_core.evaluation.statistics import Estimate

RIVALS = ("raw_augmented", "histogram", "fourier", "refined_augmented")
"""Arms beyond the paper: what one would try first."""
REDUCED = "ours, reduced budget"
SAME_IMAGES = "published, same test images"


def amount(comparison: Comparison) -> pd.DataFrame:
    """Table 2: share of images within 7 degrees by kind and amount of training images, ours beside the published."""
    rows = []
    for published in TABLE_2:
        within = comparison.within_7_deg(published.ours)
        ours = (within.value, within.low, within.high, within.seeds, within.n)
        rows.append((published.ours, TITLES[published.ours], *ours, published.value))
    names = ["arm", "title", "within 7° (%)", "low", "high", "seeds", "images", NOTE]
    return pd.DataFrame(rows, columns=names)


def methods(
    comparison: Comparison, reduced: Mapping[str, Estimate], others: Mapping[str, Estimate] | None = None
) -> pd.DataFrame:
    """Table 3: mean error by method; first ours, then the published rows, marked as such in the last column.

    `reduced` holds what was trained with the ablations' smaller budget; such rows compare with one another alone.
    `others` holds published estimators that were tested on the very same images.
    """
    paper = ["constant", *BASELINES, "raw", "refined"]
    rows = []
    for arm in [*paper, *RIVALS, "oracle"]:
        if arm in comparison.predicted:
            error = comparison.mean_error_deg(arm)
            source = "ours, as the paper" if arm in paper[1:] else "ours, beyond the paper"
            rows.append((TITLES[arm], error.value, error.low, error.high, error.seeds, error.n, source))
    for source, found in ((SAME_IMAGES, others or {}), (REDUCED, reduced)):
        for method, error in found.items():
            rows.append((method, error.value, error.low, error.high, error.seeds, error.n, source))
    published = [(f"{row.method}, {row.trained_on}", row.value, None, None, None, None, NOTE) for row in TABLE_3]
    names = ["method", "mean error (°)", "low", "high", "seeds", "images", "source"]
    table = pd.DataFrame([*rows, *published], columns=names)
    return table.astype({"seeds": "Int64", "images": "Int64", "low": float, "high": float})


def realism(found: RealismComparison) -> pd.DataFrame:
    """Each measure for raw and for refined renders, mean over seeds and hull of the seeds' intervals."""
    rows = []
    for measure, title in MEASURES.items():
        for kind in ("raw", "refined"):
            one = found.estimate(kind, measure)
            rows.append((title, kind, one.value, one.low, one.high, one.seeds, one.n))
    return pd.DataFrame(rows, columns=["measure", "images", "value", "low", "high", "seeds", "n"])
