"""Figures of hands: close-ups where the edges are, skeletons in mm, and a stand-in for each interactive view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from toy_hands import CUBE, toy_hands

from simgan_core import hand_figures, hand_widgets, tables
from simgan_core.config_hand import hand_profile
from simgan_core.evaluation.hand_comparison import BOUND, HAND_ARMS, HandComparison
from simgan_core.hand_crop import encode_depth, to_crop_pixels, xyz_to_uvd


@pytest.fixture
def comparison() -> HandComparison:
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 46, (20, 14, 2)).astype(np.float32)
    predicted = {
        arm.name: truth + rng.normal(0, 1 + k / 4, (2, 20, 14, 2)).astype(np.float32)
        for k, arm in enumerate((*HAND_ARMS, BOUND))
    }
    return HandComparison(truth, predicted, (0, 1), 56)


def test_close_up_lies_on_the_edge() -> None:
    images = np.zeros((1, 1, 56, 56), np.uint8)
    images[..., 30:50, 5:14] = 150
    images[..., 30:50, 16:20] = 150  # the gap between two fingers holds the most edge
    top, left, side = hand_figures.busiest_window(images[0])
    assert side == 14 and 28 <= top <= 38 and left <= 16 <= left + side


def test_figures_draw(comparison: HandComparison) -> None:
    images, uv = toy_hands(6, 0)
    made = [
        hand_figures.hand_strip({"synthetic": images, "refined": images}, {"target": images}, columns=4),
        hand_figures.hand_arms_figure(comparison),
        hand_figures.hand_curves(comparison),
        hand_figures.hand_joints_figure(comparison),
        hand_figures.estimates(images, uv, {"raw": uv + 1, "real": uv}, columns=4),
        hand_widgets.thresholds_figure(comparison),
    ]
    assert len(made[0].axes) == 2 * 3 * 4
    assert [len(figure.axes) for figure in made[1:4]] == [1, 1, 1]
    rows = hand_figures.hand_table_rows(comparison)
    assert [row[0] for row in rows] == [arm.title for arm in (*HAND_ARMS, BOUND)]
    assert all(row[4] <= row[2] <= row[5] for row in rows), "the interval holds the value at 5 px"
    for figure in made:
        plt.close(figure)


@pytest.mark.parametrize("bars", [1, 2, 5, 6])
def test_bars_of_a_group_stand_side_by_side(bars: int) -> None:
    groups = np.arange(3)
    placed = [hand_figures.bar_places(groups, bar, bars) for bar in range(bars)]
    edges = np.array([[at - width / 2, at + width / 2] for at, width in placed])  # bars, 2, groups
    assert (edges[1:, 0] >= edges[:-1, 1]).all(), "no bar covers the next one"
    assert (edges[-1, 1][:-1] < edges[0, 0][1:]).all(), "nor the next group's"
    assert np.allclose(edges[:, :, 0].mean(), 0), "the group stands at its number"


@pytest.mark.filterwarnings("error")
def test_arms_without_any_joint_nearby_are_drawn(comparison: HandComparison) -> None:
    lost = {name: uv + 500 for name, uv in comparison.predicted.items()}
    figure = hand_figures.hand_arms_figure(HandComparison(comparison.truth, lost, (0, 1), 56))
    figure.set_layout_engine("constrained")
    figure.canvas.draw()
    assert all(axes.get_window_extent().width > 0 for axes in figure.axes)
    plt.close(figure)


def test_lifted_joints_lie_on_the_surface() -> None:
    cube = torch.tensor([CUBE])
    xyz = torch.tensor([[[x, y, 740.0] for x in (-40.0, 0.0, 40.0) for y in (-30.0, 20.0)]])
    uv = to_crop_pixels(xyz_to_uvd(xyz), cube, (112, 112))[..., :2].numpy()
    depth = torch.full((1, 112, 112), 740.0)
    depth[:, :10] = 0
    found = hand_figures.lift(encode_depth(depth, cube).numpy(), uv, cube.numpy())
    assert np.abs(found - xyz.numpy()).max() < 1.5, "mm; a level is 1.2"
    empty = hand_figures.lift(np.zeros((1, 1, 112, 112), np.uint8), uv, cube.numpy())
    assert np.allclose(empty[..., 2], CUBE[2])


def test_without_a_person_the_views_are_figures(comparison: HandComparison) -> None:
    assert not hand_widgets.is_interactive()
    slider = hand_widgets.threshold_slider(comparison)
    images, uv = toy_hands(3, 0)
    xyz = np.random.default_rng(0).normal((0, 0, 750), 40, (3, 14, 3))
    view = hand_widgets.skeleton_view(images, xyz, uv, np.tile(CUBE, (3, 1)))
    assert slider is not None and view is not None and len(view.axes) == 2
    plt.close("all")


def test_settings_of_hands_stand_beside_the_papers_for_hands() -> None:
    """Once they stood beside the paper's for eyes."""
    config = hand_profile("cpu")
    table = tables.hand_settings(config).set_index("setting")
    assert table.loc["method.training.pretrain_refiner", "paper"].startswith("500")
    assert table.loc["method.training.batch", "paper"] == "not given"
    assert table.loc["method.data.size", "here"] == str(config.method.data.size)
    assert {"wide", "discriminator_width", "data.poses", "estimator.stacks"} <= set(table.index)
