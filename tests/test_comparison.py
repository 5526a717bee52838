"""The comparison of training data: arms, seeds, what is cached, and the differences with their intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simgan_core import tables
from simgan_core.config import Config, GazeConfig
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.evaluation import comparison
from simgan_core.evaluation.comparison import ARMS, Arm, Comparison, TrainingData, compare_arms
from simgan_core.evaluation.dependence import groups_of
from simgan_core.profiles import smoke

RAW = next(arm for arm in ARMS if arm.name == "raw")
CONSTANT = next(arm for arm in ARMS if arm.name == "constant")
CONFIG: Config = replace(smoke(), gaze=GazeConfig(steps=200, batch=16, width=0.2))


def write_eyes(path: Path, count: int, seed: int, *, labels: float = 1.0) -> Path:
    """Dark discs on grey whose place follows from gaze, as an iris' does; `labels` = -1 swaps the labels."""
    rng = np.random.default_rng(seed)
    gaze = rng.uniform(-0.3, 0.3, (count, 2)).astype(np.float32)
    y, x = np.mgrid[0:35, 0:55]
    centre = np.stack([17 - 30 * gaze[:, 0], 27 - 45 * gaze[:, 1]], 1)
    inside = (y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2 < 64
    images = np.where(inside, 20, 200).astype(np.uint8)[:, None]
    with StoreWriter(path, size=(35, 55), provenance={"made_by": "a test"}) as writer:
        writer.append(images, {"pitch": labels * gaze[:, 0], "yaw": labels * gaze[:, 1]})
    return path


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    synthetic = write_eyes(tmp_path / "synthetic", 256, 0)
    return TrainingData(synthetic, write_eyes(tmp_path / "test", 64, 1), refined={0: synthetic})


def test_an_estimator_learns_what_the_constant_cannot_know(data: TrainingData, tmp_path: Path) -> None:
    found = compare_arms(data, CONFIG, tmp_path / "out", seeds=[0], arms=[CONSTANT, RAW], workers=1, progress=False)
    assert found.mean_error_deg("raw").value < 0.6 * found.mean_error_deg("constant").value
    assert found.mean_error_deg("raw").n == 64 and found.truth.shape == (64, 2)


def test_swapped_labels_are_worse_than_no_knowledge(data: TrainingData, tmp_path: Path) -> None:
    swapped = replace(data, synthetic=write_eyes(tmp_path / "swapped", 256, 0, labels=-1.0))
    found = compare_arms(swapped, CONFIG, tmp_path / "out", seeds=[0], arms=[CONSTANT, RAW], workers=1, progress=False)
    assert found.mean_error_deg("raw").value > 1.2 * found.mean_error_deg("constant").value


def test_side_by_side_gives_the_same_predictions_in_the_same_order(data: TrainingData, tmp_path: Path) -> None:
    arms, quick = [CONSTANT, RAW], replace(CONFIG, gaze=replace(CONFIG.gaze, steps=4))
    one, two = (
        compare_arms(data, quick, tmp_path / f"{n}", seeds=[3, 5], arms=arms, workers=n, progress=False) for n in (1, 2)
    )
    for arm, cnns in (("constant", 1), ("raw", comparison.CNNS_OF_A_SEED["smoke"])):
        assert one.predicted[arm].shape == (2 * cnns, 64, 2)
        np.testing.assert_allclose(one.predicted[arm], two.predicted[arm], atol=1e-5)
    assert not np.allclose(one.predicted["raw"][0], one.predicted["raw"][-1]), "seeds must differ"


def test_what_is_trained_is_kept_until_its_settings_change(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(CONFIG, gaze=replace(CONFIG.gaze, steps=2))

    def run(config: Config) -> Comparison:
        return compare_arms(data, config, tmp_path / "out", seeds=[0], arms=[RAW], workers=1, progress=False)

    first = run(quick)
    monkeypatch.setattr(comparison, "train_gaze_cnn", lambda *_, **__: pytest.fail("trained again"))
    np.testing.assert_array_equal(run(quick).predicted["raw"], first.predicted["raw"])
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        run(replace(quick, gaze=replace(quick.gaze, learning_rate=2e-3)))
    monkeypatch.setattr(comparison, "code_fingerprint", lambda source: f"edited {source.name}")
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        run(quick)


def test_only_the_oracle_reads_the_labelled_images_of_the_target(data: TrainingData, tmp_path: Path) -> None:
    oracle = replace(data, oracle=write_eyes(tmp_path / "target", 64, 2))
    opened = {arm.name: comparison._training_store(arm, 0, oracle) for arm in ARMS if oracle.serves(arm)}
    assert [name for name, path in opened.items() if path == oracle.oracle] == ["oracle"]
    assert not {name for name, path in opened.items() if path == oracle.test}
    assert (
        "oracle"
        not in compare_arms(
            data, CONFIG, tmp_path / "out", seeds=[0], arms=[CONSTANT, Arm("oracle", "Oracle")], progress=False
        ).predicted
    )


def test_missing_refined_images_are_named(data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no refined images for seed 1; found seeds \[0\]"):
        compare_arms(data, CONFIG, tmp_path / "out", seeds=[0, 1], arms=[Arm("refined", "Refined")], progress=False)


def test_differences_are_paired_and_keep_their_sign() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((300, 2), np.float32)
    worse = rng.normal(0, np.deg2rad(8), (3, 300, 2)).astype(np.float32)
    found = Comparison(truth, {"raw": worse, "refined": worse * 0.5}, (0, 1, 2))
    reduction, gain = found.reduction_percent("refined", "raw"), found.gain_points("refined", "raw")
    assert reduction.value == pytest.approx(50, abs=0.5) and reduction.high - reduction.low < 1, "pairs share images"
    assert gain.low > 0
    back = found.reduction_percent("raw", "refined")
    assert back.high < 0 and found.gain_points("raw", "refined").high < 0
    assert found.reduction_percent("raw", "raw").value == 0


def test_several_people_are_the_groups_of_the_intervals(tmp_path: Path) -> None:
    def store(name: str, provenance: dict[str, str], **columns: np.ndarray) -> Store:
        with StoreWriter(tmp_path / name, size=(4, 4), provenance=provenance) as writer:
            writer.append(np.zeros((300, 1, 4, 4), np.uint8), columns)
        return Store.open(tmp_path / name)

    person = np.repeat([0, 3], 150)
    two = groups_of(store("two", {}, person=person))
    assert two is not None and np.array_equal(two, person)
    assert groups_of(store("one", {}, person=np.zeros(300, int))) is None
    assert groups_of(store("renders", {}, identity=person)) is None, "every render is drawn anew"
    frames = groups_of(store("nyu", {"adapter": "nyu"}, pose=np.arange(300)))
    assert frames is not None and np.array_equal(np.unique(frames, return_counts=True)[1], [100, 100, 100])
    rng, truth = np.random.default_rng(0), np.zeros((300, 2), np.float32)
    worse = np.deg2rad(np.where(person, 5.2, 2.0)[:, None] + rng.normal(0, 0.05, (3, 300, 2))).astype(np.float32)
    plain = Comparison(truth, {"raw": worse, "refined": worse * 0.9}, (0, 1, 2))
    grouped = replace(plain, groups=person)
    for found in (lambda c: c.mean_error_deg("raw"), lambda c: c.within_7_deg("raw"),
                  lambda c: c.gain_points("refined", "raw")):  # fmt: skip
        assert found(grouped).high - found(grouped).low > 2 * (found(plain).high - found(plain).low)


def test_several_cnns_of_a_seed_count_as_one_seed() -> None:
    """Their errors are averaged, not their answers; and more of them is no more seeds."""
    truth = np.zeros((50, 2), np.float32)
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.1, (6, 50, 2)).astype(np.float32)  # three seeds, two CNNs each
    single = rng.normal(0, 0.1, (3, 50, 2)).astype(np.float32)
    found = Comparison(truth, {"raw": single, "refined": rows}, (0, 1, 2), cnns={"refined": 2})
    error = found.mean_error_deg("refined")
    of_cnns = found.errors_deg("refined").mean(axis=1)
    assert of_cnns.shape == (6,) and error.seeds == 3
    assert error.by_seed == pytest.approx(of_cnns.reshape(3, 2).mean(axis=1).tolist(), rel=1e-5)
    assert found.gain_points("refined", "raw").seeds == found.reduction_percent("refined", "raw").seeds == 3
    within = 100 * (found.errors_deg("refined") <= 7).mean()
    assert found.within_7_deg("refined").value == pytest.approx(within, rel=1e-5)
    assert found.of_first_seeds(["refined"], 1).predicted["refined"].shape == (2, 50, 2)
    table = tables.seeds(found)
    assert table.groupby("arm")["CNNs"].first().to_dict() == {"raw": 1, "refined": 2} and len(table) == 6


def test_arms_of_claims_train_several_cnns_where_the_profile_says_so(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "CNNS_OF_A_SEED", {"smoke": 2})
    data = replace(data, refined={0: data.synthetic, 1: data.synthetic})
    quick = replace(CONFIG, gaze=replace(CONFIG.gaze, steps=2))
    arms = [arm for arm in ARMS if arm.name in ("raw", "raw_augmented", "refined")]
    found = compare_arms(data, quick, tmp_path / "out", seeds=(0, 1), arms=arms, workers=1, progress=False)
    shapes = {arm: len(predicted) for arm, predicted in found.predicted.items()}
    assert shapes == {"raw": 4, "raw_augmented": 2, "refined": 4}
    answers = found.predicted["raw"]
    assert len({row.tobytes() for row in answers}) == 4, "each CNN has a seed of its own"
    with_committee = [*arms, *(arm for arm in ARMS if arm.committee_of)]
    monkeypatch.setattr(comparison, "train_gaze_cnn", lambda *_, **__: pytest.fail("a committee trains nothing"))
    joint = compare_arms(data, quick, tmp_path / "out", seeds=(0, 1), arms=with_committee, workers=1, progress=False)
    assert {name for name in joint.predicted if name.endswith("committee")} == {
        "raw_committee", "raw_augmented_committee", "refined_committee",
    }  # fmt: skip
    np.testing.assert_array_equal(joint.predicted["raw_committee"], comparison.committee(answers)[None])
    assert joint.seeds_of("raw_committee") == 1 and joint.mean_error_deg("raw_committee").seeds == 1
    assert not {arm for arm in tables.seeds(joint)["arm"] if arm.endswith("committee")}, "they are of no seed"
    monkeypatch.setattr(comparison, "CNNS_OF_A_SEED", {})
    one = compare_arms(data, quick, tmp_path / "out", seeds=(0,), arms=with_committee, workers=1, progress=False)
    np.testing.assert_array_equal(one.predicted["raw"], answers[:1])
    assert set(one.predicted) == set(shapes), "one CNN: nobody to answer with"


def test_a_committee_answers_by_the_mean_of_directions() -> None:
    """Two that err to opposite sides are right together; two that err alike are not."""
    truth = np.array([[0.1, -0.2], [-0.3, 0.25]], np.float32)
    aside = np.float32(0.1)
    opposite, alike = ([truth + [0, aside], truth - [0, aside]], [truth + [aside, 0], truth + [aside, 0]])
    rows = np.stack([comparison.committee(np.stack(both).astype(np.float32)) for both in (opposite, alike)])
    errors = Comparison(truth, {"committee": rows}, (0, 1)).errors_deg("committee").mean(axis=1)
    assert errors[0] < 0.1 and errors[1] == pytest.approx(np.rad2deg(aside), rel=0.01)
