"""Recorded hands beside ours: published crops read as silhouettes, tables, and no number where files are missing."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from simgan_core import hand_recorded
from simgan_core.hand_recorded import (
    RecordedEdges,
    compare_with_recorded,
    crop_masks,
    fit_table,
    pose_fit,
    recorded_metrics,
    recorded_root,
)
from simgan_core.profiles import profile
from simgan_core.run_folder import RunFolder
from simgan_core.simulators.hand_fit import HandFit, RecordedFit

ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not all((ROOT / part).exists() for part in (hand_recorded.CROPS, hand_recorded.FRAME, hand_recorded.JOINTS)),
    reason=f"no crops, frame or joints of NYU in {ROOT}; set SIMGAN_DATA_ROOT",
)


def test_crops_on_white_and_on_black_are_read_alike(tmp_path: Path) -> None:
    y, x = np.mgrid[:160, :160]
    disk = (x - 80) ** 2 + (y - 80) ** 2 < 50**2
    for name, background in (("black", 0), ("white", 255)):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.where(disk, 120, background).astype(np.uint8))
    black, white = crop_masks(tmp_path)
    assert black.shape == (128, 128) and np.array_equal(black, white)
    assert black.mean() == pytest.approx(disk.mean(), abs=0.01)


def test_missing_files_give_no_number(tmp_path: Path) -> None:
    embedded, mini = (
        RunFolder.create(tmp_path / data, data=data, config=profile("smoke"), data_root=tmp_path)
        for data in ("embedded", "mini")
    )
    assert recorded_root(embedded) is None and recorded_root(mini) == tmp_path
    assert compare_with_recorded(None) is None and pose_fit(None, "smoke") is None
    assert recorded_metrics(None, None) == {}
    assert compare_with_recorded(tmp_path) is None and pose_fit(tmp_path, "smoke") is None


def test_the_table_of_edges() -> None:
    rng = np.random.default_rng(0)
    crops = rng.normal(0.3, 0.02, (20, 6))
    near, far = crops[:10] + 0.01, crops[:10] - 0.2
    edges = RecordedEdges(far, near, crops, crops[:1], {"clean": 0.1, "camera": 0.7, "frame": 0.4})
    table = edges.table().set_index("n")
    assert table.shape[0] == 4 and list(edges.table()["noise (mm)"].isna()) == [False, False, True, False]
    distances = edges.distances()
    assert distances["camera"].high < distances["clean"].low and distances["clean"].n == 20
    assert distances["clean"].low < distances["clean"].value < distances["clean"].high
    assert edges.table()["distance to crops"].tolist()[:2] == [distances["clean"].value, distances["camera"].value]


@needs_data
def test_the_stand_in_is_nearer_to_recorded_edges_than_renders_are() -> None:
    edges = compare_with_recorded(ROOT)
    assert edges is not None
    assert len(edges.crops) == 20 and len(edges.camera) == hand_recorded.RENDERS
    distances = edges.distances()
    assert distances["camera"].value < 0.7 * distances["clean"].value
    assert edges.noise["clean"] < edges.noise["frame"] / 3 < edges.noise["camera"]


def test_the_table_of_fits() -> None:
    error = torch.full((3, 14), 2.0, dtype=torch.float64)
    error[0, 0] = 44.0
    empty = torch.zeros(3, 0)
    fitted = RecordedFit(HandFit(empty, empty, empty, empty, error, ()), np.arange(3), "test")
    row = fit_table(fitted).iloc[0]
    assert set(recorded_metrics(fitted, None)) == {"hand.pose_fit.mean_error_mm"}
    assert row["frames"] == 3 and row["mean (mm)"] == pytest.approx(3.0)
    assert row["joints below 10 mm (%)"] == pytest.approx(100 * 41 / 42)
    assert hand_recorded.fit_error_mm(fitted).value == pytest.approx(3.0) and hand_recorded.fit_error_mm(fitted).n == 3


@pytest.mark.slow
@needs_data
def test_nyus_joints_are_fitted() -> None:
    fitted = pose_fit(ROOT, "smoke")
    assert fitted is not None and len(fitted.rows) == 6
    assert hand_recorded.fit_error_mm(fitted).value < 4
