"""The published LeNet is compared on the very test images or not at all; offsets per eye are told apart."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from toy_eyes import SIZE

from simgan_core import tables_gaze
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.mpiigaze import load_mini
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.evaluation import leave_one_out as loo
from simgan_core.evaluation.comparison import Comparison
from simgan_core.evaluation.gaze import evaluate_gaze

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
PERSON = np.array([3, 3, 0, 14])
ROW = np.array([0, 2999, 7, 1500])


@pytest.fixture
def published() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.normal(0, 0.1, (15, 3000, 2)).astype(np.float32)
    return {"pitch_yaw": labels, "predicted": labels + rng.normal(0, 0.05, labels.shape).astype(np.float32)}


def labelled_store(path: Path, labels: np.ndarray, **more: np.ndarray) -> Store:
    with StoreWriter(path, size=SIZE, provenance={"toy": "test"}) as writer:
        writer.append(np.zeros((len(labels), 1, *SIZE), np.uint8), {"pitch": labels[:, 0], "yaw": labels[:, 1], **more})
    return Store.open(path)


def write(root: Path, **arrays: np.ndarray) -> None:
    (root / "mpiigaze").mkdir()
    np.savez(root / loo.FILE, **arrays)


def test_predictions_are_those_of_the_same_person_and_row(tmp_path: Path, published: dict[str, np.ndarray]) -> None:
    write(tmp_path, **published)
    store = labelled_store(tmp_path / "test", published["pitch_yaw"][PERSON, ROW], person=PERSON, row=ROW)
    found = loo.leave_one_out(tmp_path, store)
    assert found is not None and np.array_equal(found, published["predicted"][PERSON, ROW])
    comparison = Comparison(store.pitch_yaw().copy(), {"raw": np.zeros((2, 4, 2), np.float32)}, (0, 1))
    assert loo.beside(comparison, None) is comparison
    beside = loo.beside(comparison, found)
    assert list(beside.predicted) == ["raw", loo.ARM] and beside.errors_deg(loo.ARM).shape == (1, 4)
    swapped = labelled_store(tmp_path / "swapped", published["pitch_yaw"][PERSON, ROW[::-1]], person=PERSON, row=ROW)
    assert loo.leave_one_out(tmp_path, swapped) is None, "rows that mean something else"
    far = labelled_store(tmp_path / "far", published["pitch_yaw"][PERSON, ROW], person=PERSON, row=ROW + 2999)
    assert loo.leave_one_out(tmp_path, far) is None
    plain = labelled_store(tmp_path / "plain", published["pitch_yaw"][PERSON, ROW])
    assert loo.leave_one_out(tmp_path, plain) is None, "the stand-in has no persons"
    assert loo.leave_one_out(tmp_path / "nowhere", store) is None


def test_a_broken_file_is_named(tmp_path: Path, published: dict[str, np.ndarray]) -> None:
    write(tmp_path, pitch_yaw=published["pitch_yaw"])
    store = labelled_store(tmp_path / "test", published["pitch_yaw"][PERSON, ROW], person=PERSON, row=ROW)
    with pytest.raises(DataError, match="published_lenet_leave_one_out"):
        loo.leave_one_out(tmp_path, store)


def test_offsets_of_each_eye_are_found_and_taken_away() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.1, (200, 2)).astype(np.float32)
    half = np.arange(200) % 2
    offset = np.deg2rad(np.where(half, 2.0, -3.0)).astype(np.float32)[:, None] * np.array([0, 1], np.float32)
    predicted = {"exact": truth[None], "shifted": np.stack([truth + offset, truth + offset])}
    comparison = loo.beside(Comparison(truth, predicted, (0, 1)), truth + 2 * offset)
    table = tables_gaze.by_eye(comparison, half).set_index("arm")
    biases = table[["yaw bias, left eyes (°)", "yaw bias, right eyes (°)"]]
    assert biases.loc["shifted"].tolist() == pytest.approx([-3, 2], abs=0.01)
    assert biases.loc["lenet"].tolist() == pytest.approx([-6, 4], abs=0.01)
    assert table.loc["shifted", "mean error (°)"] == pytest.approx(2.5, abs=0.05)
    assert table["without these offsets (°)"].tolist() == pytest.approx([0, 0, 0], abs=0.01)


@pytest.mark.skipif(not (DATA_ROOT / loo.FILE).is_file(), reason=f"needs {loo.FILE} in {DATA_ROOT}")
def test_on_the_real_files_the_known_answer_comes_out_and_rows_join(tmp_path: Path) -> None:
    with np.load(DATA_ROOT / loo.FILE) as saved:
        errors = evaluate_gaze(saved["pitch_yaw"], saved["predicted"])
    assert errors.mean_error_deg == pytest.approx(6.328, abs=0.001)
    eyes = load_mini(DATA_ROOT)
    store = labelled_store(tmp_path / "test", eyes.pitch_yaw, person=np.zeros(len(eyes), np.int64), row=eyes.row)
    found = loo.leave_one_out(DATA_ROOT, store)
    assert found is not None
    assert evaluate_gaze(eyes.pitch_yaw, found).mean_error_deg == pytest.approx(errors.errors_deg[0].mean(), abs=0.2)
