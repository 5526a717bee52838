"""Hand errors against published results and known answers, intervals of video frames, and errors that name the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simgan_core.datasets.errors import DataError
from simgan_core.evaluation.hand import (
    PCK_UP_TO_MM,
    block_means,
    evaluate_hand,
    evaluate_hand_files,
    pck_area,
    pck_curve,
)
from simgan_core.hand_crop import Intrinsics

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
TRUTH = DATA_ROOT / "nyu" / "test_groundtruth_uvd.npz"
PUBLISHED = {"ICCVW17_NYU_DeepPrior++": 12.24, "CVPR17_NYU_3DCNN": 14.11, "CVWW15_NYU_Prior": 20.75}


@pytest.mark.skipif(not TRUTH.is_file(), reason=f"no {TRUTH}; set SIMGAN_DATA_ROOT")
@pytest.mark.parametrize(("name", "error_mm"), PUBLISHED.items())
def test_published_predictions_have_their_known_error(name: str, error_mm: float) -> None:
    file = TRUTH.parent / "published_predictions" / f"{name}.npz"
    report = evaluate_hand_files(TRUTH, file)
    assert report.mean_error_mm == pytest.approx(error_mm, abs=5e-3)
    assert report.mean_error_mm == pytest.approx(float(np.load(file)["mean_error_mm"]), abs=2e-5)
    assert (report.frames, report.joints) == (8252, 14)
    assert report.low < error_mm < report.high
    frames_alone = evaluate_hand_files(TRUTH, file, block=1)
    assert report.high - report.low > 2 * (frames_alone.high - frames_alone.low), "neighbours of a video resemble"


def joints(frames: int = 6, count: int = 14) -> np.ndarray:
    rng = np.random.default_rng(0)
    low, high = (150, 100, 600), (450, 380, 900)
    return rng.uniform(low, high, (frames, count, 3))


def moved_mm(truth: np.ndarray, distance_mm: np.ndarray) -> np.ndarray:
    """The joints pushed away from the camera's axis, along u, at the same depth, by that many mm."""
    predicted = truth.copy()
    predicted[..., 0] += distance_mm * 588.03 / truth[..., 2]
    return predicted


def test_report_of_known_errors() -> None:
    truth = joints(4)
    distance = np.full((4, 14), 5.0)
    distance[1, 3] = 39.0
    distance[2, 0] = 90.0
    report = evaluate_hand(truth, moved_mm(truth, distance), block=1)
    assert report.errors_mm == pytest.approx(distance)
    assert report.mean_error_mm == pytest.approx((54 * 5 + 39 + 90) / 56)
    assert [report.frames_within(d) for d in (4.9, 5.1, 40, 91)] == [0, 50, 75, 100]
    assert report.pck([5.1, 40, 91]) == pytest.approx([100 * 54 / 56, 100 * 55 / 56, 100])
    assert report.per_joint_mm()[[0, 3, 5]] == pytest.approx([105 / 4, 54 / 4, 5])
    assert report.max_error_mm == pytest.approx((5 + 39 + 90 + 5) / 4)
    assert report.low < report.mean_error_mm < report.high


def test_depth_counts_in_mm_and_moves_along_the_ray() -> None:
    truth = np.array([[[320.0, 240.0, 700.0]]])
    assert evaluate_hand(truth, truth + [0, 0, 30]).mean_error_mm == pytest.approx(30)
    corner = np.array([[[320.0 + 588.03, 240.0, 700.0]]])  # 45 degrees: moving away also moves sideways
    assert evaluate_hand(corner, corner + [0, 0, 30]).mean_error_mm == pytest.approx(30 * np.sqrt(2))


def test_the_camera_can_be_another() -> None:
    truth = joints()
    shifted = truth + [10, 0, 0]
    ours = evaluate_hand(truth, shifted).mean_error_mm
    half = evaluate_hand(truth, shifted, Intrinsics(2 * 588.03, 587.07, 320, 240)).mean_error_mm
    assert half == pytest.approx(ours / 2)


def test_area_is_that_under_the_curve() -> None:
    errors = np.random.default_rng(1).gamma(2, 12, 5000)
    distances = np.linspace(0, PCK_UP_TO_MM, 4001)
    numeric = np.trapezoid(pck_curve(errors, distances), distances) / PCK_UP_TO_MM
    assert pck_area(errors, PCK_UP_TO_MM) == pytest.approx(numeric, abs=0.05)
    assert pck_area(np.zeros(3), 80) == 100 and pck_area(np.full(3, 80.0), 80) == 0


def test_interval_of_unrelated_frames_has_the_width_of_theory() -> None:
    truth = joints(2000, 1)
    distance = np.random.default_rng(2).uniform(0, 20, (2000, 1))
    report = evaluate_hand(truth, moved_mm(truth, distance), block=1)
    assert (report.high - report.low) / 2 == pytest.approx(1.96 * distance.std() / np.sqrt(2000), rel=0.08)


def test_blocks_are_consecutive_and_weigh_alike() -> None:
    assert block_means(np.arange(10.0), 5) == pytest.approx([2, 7])
    assert len(block_means(np.arange(205.0), 100)) == 2
    assert block_means(np.arange(3.0), 100) == pytest.approx([1])
    truth = joints(3)
    assert evaluate_hand(truth, truth + 1).to_dict()["low"] is None, "a single block has no interval"


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (joints(6), joints(5), "every frame of the truth file"),
        (joints(6), joints(6, 13), "same frames and joints"),
        (joints()[..., :2], joints()[..., :2], r"\[frames, joints, 3\]"),
        (joints()[0], joints()[0], r"\[frames, joints, 3\]"),
        (np.zeros((0, 14, 3)), np.zeros((0, 14, 3)), r"\[frames, joints, 3\]"),
        (joints(), np.where(np.arange(3) == 1, np.nan, joints()), "84 of 84 joints of the predictions are not finite"),
        (joints(), joints() / 1000, "multiply metres"),
        (joints(), joints() * [1, 1, -1], "positive mm"),
        (joints(), joints().astype(str), "numbers expected"),
    ],
)
def test_bad_joints_are_refused(truth: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_hand(truth, predicted)


def test_files_are_named(tmp_path: Path) -> None:
    truth = joints()
    np.savez(tmp_path / "truth.npz", uvd=truth)
    np.savez(tmp_path / "predicted.npz", uvd=truth + [0, 0, 2])
    np.savez(tmp_path / "both.npz", uvd=truth, predicted=truth + [0, 0, 2])
    np.savez(tmp_path / "other.npz", joints=truth)
    np.savez(tmp_path / "short.npz", uvd=truth[:3])
    for first, second in (("truth", "predicted"), ("both", "both"), ("truth", "both")):
        report = evaluate_hand_files(tmp_path / f"{first}.npz", tmp_path / f"{second}.npz")
        assert 2 <= report.mean_error_mm < 2.5
    with pytest.raises(DataError, match=r"other.npz: found arrays \['joints'\]"):
        evaluate_hand_files(tmp_path / "truth.npz", tmp_path / "other.npz")
    with pytest.raises(DataError, match=r"none.npz: found no such file"):
        evaluate_hand_files(tmp_path / "none.npz", tmp_path / "predicted.npz")
    with pytest.raises(ValueError, match=r"short.npz: truth of shape \(6, 14, 3\) and predictions of shape \(3,"):
        evaluate_hand_files(tmp_path / "truth.npz", tmp_path / "short.npz")


def test_command_prints_one_json_object(tmp_path: Path) -> None:
    np.savez(tmp_path / "truth.npz", uvd=joints())
    np.savez(tmp_path / "predicted.npz", uvd=joints() + [0, 0, 2])
    command = [sys.executable, "-m", "simgan_core.cli", "evaluate", "hand"]
    files = [str(tmp_path / "truth.npz"), str(tmp_path / "predicted.npz")]
    done = subprocess.run([*command, *files, "--block", "1", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert 2 <= found["mean_error_mm"] < 2.5 and len(found["per_joint_error_mm"]) == 14
    assert found["frames_within_10_mm"] == 100 and found["pck_percent"][0] == 0
    bad = subprocess.run([*command, files[0], files[0]], capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and bad.stdout == "" and "found arrays ['uvd']; expected" in bad.stderr
