"""The two interactive views of 08_hand_pose; where nobody watches, a static figure stands in for each."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simgan_core.evaluation.hand_comparison import HAND_TITLES, HandComparison
from simgan_core.hand_figures import HAND_COLOURS, bar_places, hand_arms_figure, lift, skeletons_3d

Images = NDArray[np.uint8]
Array = NDArray[np.floating[Any]]


def is_interactive() -> bool:
    """Whether a person sits before this notebook: JupyterLab lets a cell ask for input, a headless run does not."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


def _widgets() -> Any:
    """ipywidgets, which is there where JupyterLab is and not needed elsewhere."""
    return importlib.import_module("ipywidgets")


def threshold_slider(comparison: HandComparison) -> Figure | None:
    """Table 4 at any distance: a slider in JupyterLab, elsewhere the figures at 3, 5 and 10 px in one."""
    if is_interactive():
        widgets = _widgets()

        def show(distance_px: float) -> None:
            hand_arms_figure(comparison, distance_px)
            plt.show()

        slider = widgets.FloatSlider(5.0, min=1.0, max=20.0, step=0.5, description="d (px)")
        widgets.interact(show, distance_px=slider)
        return None
    return thresholds_figure(comparison)


def thresholds_figure(comparison: HandComparison, distances_px: tuple[float, ...] = (3.0, 5.0, 10.0)) -> Figure:
    """Percentage of joints within several distances, one group of bars each."""
    figure, axes = plt.subplots(figsize=(7.4, 3.2))
    place = np.arange(len(distances_px))
    for k, name in enumerate(comparison.predicted):
        found = [comparison.within(name, distance) for distance in distances_px]
        value = np.array([estimate.value for estimate in found])
        reach = np.array([[e.value - e.low, e.high - e.value] for e in found]).T
        at, width = bar_places(place, k, len(comparison.predicted))
        axes.bar(at, value, width, yerr=reach, color=HAND_COLOURS[name], label=HAND_TITLES[name], ecolor="#3a444f")
    axes.set_xticks(place, [f"{distance:g} px" for distance in distances_px])
    axes.set(ylabel="% of joints", ylim=(0, 100))
    axes.legend(fontsize=7.5)
    axes.grid(axis="x", visible=False)
    return figure


def skeleton_view(images: Images, truth_xyz: Array, predicted_uv: Array, cube: Array) -> Figure | None:
    """True and estimated skeleton in space: to be turned and leafed through in JupyterLab, elsewhere one hand.

    Images uint8 [N, 1, H, W], true joints [N, 14, 3] in mm, estimates [N, 14, 2] in pixels (lifted to the surface).
    """
    lifted = lift(images, predicted_uv, cube)

    def show(hand: int = 0, turn_deg: float = -60.0) -> Figure:
        both = {"truth": truth_xyz[hand], "estimate, on the surface": lifted[hand]}
        return skeletons_3d(both, azimuth_deg=turn_deg)

    if not is_interactive():
        return show()
    widgets = _widgets()

    def draw(hand: int, turn_deg: float) -> None:
        show(hand, turn_deg)
        plt.show()

    hands, turns = widgets.IntSlider(0, 0, len(images) - 1), widgets.IntSlider(-60, -180, 180, 5)
    widgets.interact(draw, hand=hands, turn_deg=turns)
    return None
