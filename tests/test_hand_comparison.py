"""Table 4: arms, views, seeds, distances in the paper's pixels, what is cached, and paired differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_hands import toy_hand_store

from simgan_core.config_hand import HourglassConfig
from simgan_core.datasets.store import Store
from simgan_core.evaluation import hand_comparison
from simgan_core.evaluation.hand_comparison import (
    BOUND,
    HAND_ARMS,
    HandComparison,
    HandData,
    compare_hand_arms,
    joints_uv,
    rows_of_views,
    training_store,
)

QUICK = HourglassConfig(heatmap=8, stem_stride=4, features=8, depth=1, steps=2, batch=4)
RAW, REFINED, REAL, RAW_3, REFINED_3 = HAND_ARMS


@pytest.fixture
def data(tmp_path: Path) -> HandData:
    stores = {name: toy_hand_store(tmp_path / name, 6, seed).path for seed, name in enumerate(("s", "t", "r0", "r1"))}
    test = toy_hand_store(tmp_path / "test", 5, 9, views=1).path
    return HandData(stores["s"], stores["t"], test, {0: stores["r0"], 1: stores["r1"]})


def test_the_papers_five_kinds_of_training_data() -> None:
    assert [arm.name for arm in HAND_ARMS] == ["raw", "refined", "real", "raw_3views", "refined_3views"]
    assert [arm.views for arm in HAND_ARMS] == [1, 1, 1, 3, 3]


def test_only_real_opens_labels_of_the_target_and_nothing_the_test(data: HandData) -> None:
    opened = {arm.name: training_store(arm, 1, data) for arm in HAND_ARMS}
    assert [name for name, path in opened.items() if path == data.target] == ["real"]
    assert data.test not in opened.values()
    assert opened["refined"] == opened["refined_3views"] == data.refined[1]
    with pytest.raises(FileNotFoundError, match=r"no refined hands for seed 2; found seeds \[0, 1\]"):
        training_store(REFINED, 2, data)


def test_the_bound_needs_the_recorded_renders(data: HandData, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="renders as the target's camera records them; none were named"):
        training_store(BOUND, 0, data)
    recorded = tmp_path / "recorded"
    assert training_store(BOUND, 0, replace(data, recorded=recorded)) == recorded
    opened = [training_store(arm, 0, replace(data, recorded=recorded)) for arm in HAND_ARMS]
    assert recorded not in opened, "no arm of the paper sees the target's camera through renders"


def test_frontal_arms_see_frontal_images(data: HandData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = Store.open(data.synthetic)
    assert rows_of_views(store, 1).tolist() == [0, 3, 6, 9, 12, 15] and len(rows_of_views(store, 3)) == 18
    seen = {}

    def spy(images: np.ndarray, uv: np.ndarray, *args: object, **named: object) -> object:
        seen[len(images)] = (images.copy(), uv.copy())
        return original(images, uv, *args, **named)  # type: ignore[arg-type]

    original = hand_comparison.train_hourglass
    monkeypatch.setattr(hand_comparison, "train_hourglass", spy)
    compare_hand_arms(data, QUICK, tmp_path / "o", seeds=[0], arms=[RAW, RAW_3], workers=1, progress=False)
    images, uv = seen[6]
    assert np.array_equal(images, store.images()[::3]) and np.array_equal(uv, joints_uv(store)[::3])
    assert len(seen[18][0]) == 18


def test_side_by_side_gives_the_same_in_the_same_order(data: HandData, tmp_path: Path) -> None:
    arms, threads = [RAW, REFINED], torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have: sums over more threads round otherwise
    try:
        one, two = (
            compare_hand_arms(data, QUICK, tmp_path / f"{n}", seeds=[0, 1], arms=arms, workers=n, progress=False)
            for n in (1, 2)
        )
    finally:
        torch.set_num_threads(threads)
    for arm in ("raw", "refined"):
        assert one.predicted[arm].shape == (2, 5, 14, 2)
        np.testing.assert_allclose(one.predicted[arm], two.predicted[arm], atol=1e-3)
    assert not np.allclose(one.predicted["raw"][0], one.predicted["raw"][1]), "seeds must differ"


def test_what_is_trained_is_kept_until_its_settings_or_code_change(
    data: HandData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: HourglassConfig) -> HandComparison:
        return compare_hand_arms(data, config, tmp_path / "o", seeds=[0], arms=[RAW], workers=1, progress=False)

    first = run(QUICK)
    monkeypatch.setattr(hand_comparison, "train_hourglass", lambda *_, **__: pytest.fail("trained again"))
    np.testing.assert_array_equal(run(QUICK).predicted["raw"], first.predicted["raw"])
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        run(replace(QUICK, learning_rate=2e-3))
    edited = tmp_path / "hand_estimator.py"
    edited.write_text(hand_comparison.ESTIMATOR.read_text() + "\n# another estimator\n")
    monkeypatch.setattr(hand_comparison, "ESTIMATOR", edited)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        run(QUICK)


def moved(truth: np.ndarray, distance: np.ndarray) -> np.ndarray:
    predicted = np.repeat(truth[None], len(distance), axis=0)
    predicted[..., 0] += distance
    return predicted.astype(np.float32)


def test_distances_are_in_the_papers_pixels() -> None:
    truth = np.full((2, 14, 2), 28, np.float32)
    distance = np.zeros((1, 2, 14))
    distance[0, 0, :7] = 1.2  # 4.8 px of 224
    distance[0, 1, :7] = 1.3  # 5.2 px
    found = HandComparison(truth, {"raw": moved(truth, distance)}, (0,), 56)
    assert found.errors_px("raw").max() == pytest.approx(5.2, abs=1e-4)
    assert found.within("raw").value == pytest.approx(75)
    assert found.curve("raw", [0, 4.9, 5.3]) == pytest.approx([50, 75, 100])
    assert found.per_joint("raw") == pytest.approx([50] * 7 + [100] * 7)
    assert found.mean_error_px("raw").value == pytest.approx(2.5)
    assert found.area_percent("raw") == pytest.approx(100 * (1 - 2.5 / 20))


def test_differences_are_paired_and_keep_their_sign() -> None:
    rng = np.random.default_rng(0)
    truth = np.full((300, 14, 2), 28, np.float32)
    hard = rng.gamma(2, 0.6, (1, 300, 1)) * rng.uniform(0.5, 1.5, (3, 300, 14))
    found = HandComparison(truth, {"raw": moved(truth, hard), "refined": moved(truth, 0.8 * hard)}, (0, 1, 2), 56)
    gain, back = found.gain_points("refined", "raw"), found.gain_points("raw", "refined")
    assert gain.low > 0 and back.high < 0 and gain.value == pytest.approx(-back.value)
    assert gain.high - gain.low < found.within("raw").high - found.within("raw").low, "images are paired"
    assert found.gain_points("raw", "raw").value == 0
