"""Amount of data, methods and realism: what the tables and figures of 07 say, on small made-up results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from toy_eyes import toy_eyes, toy_store

from simgan_core import figures_gaze, tables_gaze
from simgan_core.config import GazeConfig
from simgan_core.evaluation import realism_comparison
from simgan_core.evaluation.baselines import BASELINES
from simgan_core.evaluation.comparison import ARMS, MAIN, Comparison, seeds_of
from simgan_core.evaluation.leave_one_out import TITLE
from simgan_core.evaluation.published import NOTE, TABLE_2, TABLE_3
from simgan_core.evaluation.realism_comparison import RealismComparison, compare_realism, over_seeds
from simgan_core.evaluation.statistics import Estimate
from simgan_core.gaze_estimator import train_gaze_cnn
from simgan_core.profiles import cpu, gpu


@pytest.fixture
def comparison() -> Comparison:
    """Every arm; side arms and committees have one row, the others two seeds. The error grows with the arm's place."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, np.deg2rad(1), (2, 80, 2)).astype(np.float32)
    rows = {arm.name: 1 if arm.side or arm.committee_of else 2 for arm in ARMS}
    predicted = {name: noise[:count] * (place + 1) for place, (name, count) in enumerate(rows.items())}
    return Comparison(np.zeros((80, 2), np.float32), predicted, (0, 1))


def test_the_papers_numbers_are_the_published_ones() -> None:
    assert [row.value for row in TABLE_3] == [16.5, 16.4, 15.4, 16.2, 13.9, 9.9, 11.2, 7.8]
    assert [row.value for row in TABLE_2] == [62.3, 64.9, 69.4, 87.2]
    assert {row.ours for row in (*TABLE_2, *TABLE_3)} - {""} <= {arm.name for arm in ARMS}


def test_amounts_stand_beside_the_published_ones(comparison: Comparison) -> None:
    table = tables_gaze.amount(comparison)
    assert list(table["arm"]) == ["raw_1x", "raw", "refined_1x", "refined"]
    assert set(table["seeds"]) == {1} and set(table["images"]) == {80}, "of the one seed that all four arms have"
    alone = comparison.predicted["raw"][:1]
    shared = tables_gaze.of_shared_seeds(comparison)
    np.testing.assert_array_equal(shared.predicted["raw"], alone)
    assert table["within 7° (%)"][1] == shared.within_7_deg("raw").value
    assert ((table["low"] <= table["within 7° (%)"]) & (table["within 7° (%)"] <= table["high"])).all()


def test_every_method_is_there_once_and_published_rows_say_so(comparison: Comparison) -> None:
    reduced = {"refiner with λ = 0": Estimate(9.0, 8.0, 10.0, 1, 80)}
    table = tables_gaze.methods(comparison, reduced)
    ours, published = table[table["source"] != NOTE], table[table["source"] == NOTE]
    assert len(published) == 8 and published["low"].isna().all() and published["images"].isna().all()
    assert ours["low"].notna().all() and ours["method"].is_unique
    assert {BASELINES[name].title for name in BASELINES} <= set(ours["method"])
    others = {"kNN": "ours, as the paper", "SVR": tables_gaze.OTHER_TRAINING, "CNN on raw": "ours, as the paper"}
    for method, source in others.items():
        assert set(table[table["method"].str.startswith(method) & table["seeds"].notna()]["source"]) >= {source}
    assert list(table[table["source"] == tables_gaze.REDUCED]["mean error (°)"]) == [9.0]
    fewer = comparison.only(name for name in comparison.predicted if name != "svr")
    assert len(tables_gaze.methods(fewer, reduced)) == len(table) - 1
    figure = figures_gaze.methods_figure(table)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(table["method"])
    plt.close(figure)


def test_committees_stand_beside_one_another_and_beside_a_published_network(comparison: Comparison) -> None:
    half = {name: 0.5 * answers for name, answers in comparison.predicted.items() if name.startswith("refined")}
    found = dataclasses.replace(comparison, predicted={**comparison.predicted, **half})
    published = 2 * found.predicted["refined_augmented_committee"][0]
    table = tables_gaze.committees(found, published).set_index(["committee", "beside"])
    title = {arm.name: arm.title for arm in ARMS}
    assert len(table) == 4 and set(table["seeds"]) == {1} and set(table["images"]) == {80}
    row = table.loc[(title["refined_committee"], title["raw_committee"])]
    assert row["reduction (%)"] == found.reduction_percent("refined_committee", "raw_committee").value
    lenet = table.loc[(title["refined_augmented_committee"], TITLE)]
    assert lenet["of the other (°)"] == pytest.approx(2 * lenet["mean error (°)"], rel=0.1) and lenet["low"] > 0
    assert len(tables_gaze.committees(found)) == 2, "no published network: two pairs of ours"
    singles = found.only(name for name in found.predicted if "committee" not in name)
    assert tables_gaze.committees(singles).empty, "one CNN: no committees"


def test_paired_differences_take_the_seeds_that_both_have(comparison: Comparison) -> None:
    assert comparison.gain_points("raw", "raw_1x").seeds == 1
    assert comparison.reduction_percent("refined", "raw").seeds == 2
    with_itself = comparison.reduction_percent("raw_1x", "raw_1x")
    assert (with_itself.value, with_itself.seeds) == (0, 1)


def test_a_part_of_the_comparison_keeps_its_order_and_skips_what_was_not_trained(comparison: Comparison) -> None:
    assert tuple(comparison.only(MAIN).predicted) == MAIN
    assert tuple(comparison.only(["refined", "nobody", "raw"]).predicted) == ("refined", "raw")


def test_side_arms_have_fewer_seeds_where_computing_is_dear() -> None:
    side, main = (next(arm for arm in ARMS if arm.name == name) for name in ("fourier", "refined"))
    assert list(seeds_of(side, range(3), cpu())) == [0] and list(seeds_of(side, range(5), gpu())) == [0, 1, 2, 3, 4]
    assert list(seeds_of(main, range(3), cpu())) == [0, 1, 2]


def test_the_hull_holds_every_seeds_interval() -> None:
    one, two = Estimate(0.6, 0.5, 0.7, 1, 90), Estimate(0.8, 0.75, 0.9, 1, 90)
    assert over_seeds([one, two]) == Estimate(0.7, 0.5, 0.9, 2, 90)


def test_realism_tells_equal_from_unequal_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = toy_eyes(64, 0)
    model = train_gaze_cnn(images, labels, GazeConfig(steps=20, batch=16, width=0.1), seed=0, progress=False)
    raw, real = toy_store(tmp_path / "raw", 120, 0), toy_store(tmp_path / "real", 120, 1, real=True)
    refined = {0: toy_store(tmp_path / "refined", 120, 2, real=True)}

    def measure() -> RealismComparison:
        return compare_realism(raw, real, refined, model, tmp_path / "out", steps=40, progress=False)

    found = measure()
    for name in realism_comparison.MEASURES:
        assert found.estimate("refined", name).value < found.estimate("raw", name).value, name
    assert found.estimate("raw", "auc").low > 0.8 and found.estimate("refined", "auc").low < 0.65
    assert found.estimate("refined", "patch_distance").value < 0.05 < found.estimate("raw", "patch_distance").low
    monkeypatch.setattr(realism_comparison, "fresh_discriminator", lambda *_, **__: pytest.fail("trained again"))
    assert measure() == found
    table = tables_gaze.realism(found)
    assert len(table) == 6 and list(table["images"]) == ["raw", "refined"] * 3
    plt.close(figures_gaze.realism_figure(found))
