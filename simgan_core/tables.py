"""Tables of the notebooks: stores, settings, the gaze comparison, the scorecard. All return pandas frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from simgan_core.deviations import HAND_METHOD

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from simgan_core.config import Config
    from simgan_core.config_hand import HandConfig
    from simgan_core.datasets.store import Store
    from simgan_core.evaluation.comparison import Comparison
    from simgan_core.run_folder import Metric

VERDICT_COLOURS = {"supported": "#1a7f4b", "not supported": "#b3372f", "not evaluated": "#6b7683"}


def shown(table: pd.DataFrame) -> Styler:
    """A table to read: left-aligned, without index, numbers with two decimals, long texts wrapped."""
    cells = {"text-align": "left", "white-space": "normal", "max-width": "26em", "vertical-align": "top"}
    header = [{"selector": "th", "props": [("text-align", "left")]}]
    styler = table.style.hide(axis="index").set_properties(**cells)  # type: ignore[arg-type]
    if "verdict" in table:
        styler = styler.map(_verdict_style, subset=["verdict"])
    return styler.set_table_styles(header).format(precision=2, na_rep="–")  # type: ignore[arg-type]


def _verdict_style(verdict: Any) -> str:
    return f"color: white; background: {VERDICT_COLOURS[verdict]}"


def stores(named: Mapping[str, Store]) -> pd.DataFrame:
    """One row per store: how many images, their size, whether their gaze is known."""
    rows = [(name, len(s), f"{s.size[0]} × {s.size[1]}", "yes" if s.has_labels else "no") for name, s in named.items()]
    return pd.DataFrame(rows, columns=["store", "images", "height × width", "gaze labels"])


def settings(config: Config | HandConfig, sections: Sequence[str]) -> pd.DataFrame:
    """Every setting of these sections: here, in the paper, and where our value comes from."""
    rows = [
        (f"{section}.{field.name}", str(getattr(part, field.name)), field.metadata["paper"], field.metadata["source"])
        for section in sections
        for part in [getattr(config, section)]
        for field in fields(part)
    ]
    return pd.DataFrame(rows, columns=["setting", "here", "paper", "source"])


def hand_settings(config: HandConfig) -> pd.DataFrame:
    """Every setting of hands that is one of theirs alone or differs from the eyes', as `settings` has them."""
    own = [field for field in fields(config) if "paper" in field.metadata]
    rows = [(f.name, str(getattr(config, f.name)), f.metadata["paper"], f.metadata["source"]) for f in own]
    rows += list(settings(config, ["data", "estimator"]).itertuples(index=False, name=None))
    for name, paper in HAND_METHOD.items():
        value = reduce(getattr, name.split("."), config.method)
        rows.append((f"method.{name}", str(value), paper, "ours"))
    return pd.DataFrame(rows, columns=["setting", "here", "paper", "source"])


def metrics(named: Mapping[str, Metric]) -> pd.DataFrame:
    """Names and values."""
    rows = [(name, f"{metric.value:.4g}", metric.unit, metric.n) for name, metric in named.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "unit", "n"])


def arms(comparison: Comparison) -> pd.DataFrame:
    """The paper's tables 2 and 3: mean and median error, share within 7 degrees, with 95 % intervals of the first."""
    rows = []
    for arm in comparison.predicted:
        error, within = comparison.mean_error_deg(arm), comparison.within_7_deg(arm)
        median = float(np.median(comparison.errors_deg(arm)))
        rows.append((arm, error.value, error.low, error.high, median, within.value, error.seeds, error.n))
    names = ["arm", "mean error (°)", "low", "high", "median (°)", "within 7° (%)", "seeds", "images"]
    return pd.DataFrame(rows, columns=names)


def seeds(comparison: Comparison) -> pd.DataFrame:
    """Mean error of every arm and seed, over how many CNNs; committees, which are of all seeds, are not among them."""
    from simgan_core.evaluation.comparison import COMMITTEE_ARMS

    rows = [
        (arm, seed, comparison.cnns.get(arm, 1), float(error))
        for arm in comparison.predicted
        if arm not in COMMITTEE_ARMS
        for seed, error in zip(comparison.seeds, comparison.seed_errors_deg(arm).mean(axis=1), strict=False)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "CNNs", "mean error (°)"])


def bias(comparison: Comparison) -> pd.DataFrame:
    """Mean signed error of every arm in pitch and yaw, degrees, over seeds and images."""
    rows = []
    for arm, predicted in comparison.predicted.items():
        pitch, yaw = np.degrees((predicted - comparison.truth).mean(axis=(0, 1)))
        rows.append((arm, float(pitch), float(yaw)))
    return pd.DataFrame(rows, columns=["arm", "pitch (°)", "yaw (°)"])


def scorecard(claims: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The paper's claims with what was measured and the verdict."""
    from simgan_core.report import format_interval

    rows = [
        (f"{c['id']} {c['title']}", c["paper"], format_interval(c, "ours"), c["verdict"], c["notebook"]) for c in claims
    ]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours (95 % interval)", "verdict", "notebook"])
