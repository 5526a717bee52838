"""MPIIGaze: mirrored right eyes, a split that follows from the row alone, the published .mat layout, broken files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.mpiigaze import (
    Eyes,
    day_files,
    full_root,
    load_day,
    load_mini,
    load_unlabelled,
    person_of,
    read_full,
    sample_list,
    split_mini,
)
from simgan_core.datasets.prepare import gaze_prior_ranges, held_back_person
from simgan_core.gaze import gaze_vector
from simgan_core.images import resize
from simgan_core.simulators.simulate import load_assets, simulate_eyes

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
REAL = DATA_ROOT / "mpiigaze" / "p00.npz"
PUBLISHED = DATA_ROOT / "mpiigaze" / "published_lenet_leave_one_out.npz"
needs_data = pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL}; set SIMGAN_DATA_ROOT")


def mini_arrays(count: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (count, 36, 60)).astype(np.uint8),
        "pitch_yaw": rng.uniform(-0.3, 0.3, (count, 2)).astype(np.float32),
        "half": (np.arange(count) >= count // 2).astype(np.uint8),
        "row": np.concatenate([np.arange(count // 2), 1500 + np.arange(count - count // 2)]).astype(np.int32),
    }


def write_mini(root: Path, **changes: np.ndarray) -> Path:
    (root / "mpiigaze").mkdir(parents=True, exist_ok=True)
    np.savez(root / "mpiigaze" / "p00.npz", **{**mini_arrays(), **changes})
    return root


def test_the_mini_file_is_read_as_it_lies_there(tmp_path: Path) -> None:
    raw, eyes = mini_arrays(), load_mini(write_mini(tmp_path))
    assert eyes.images.shape == (40, 1, 36, 60)
    assert np.array_equal(eyes.images[:, 0], raw["image"])
    assert np.array_equal(eyes.pitch_yaw, raw["pitch_yaw"])


@needs_data
def test_both_eyes_of_the_real_person_lie_as_the_renders_do(tmp_path: Path) -> None:
    """Mirroring the second half again, as it is tempting to do, turns noses to the temple; no label is read here."""
    eyes = load_mini(DATA_ROOT)
    assert len(eyes) == 1500
    assets = load_assets(DATA_ROOT / "unityeyes2")
    renders = simulate_eyes(240, tmp_path / "renders", assets=assets, size=(36, 60), progress=False)
    rendered = renders.images().mean(axis=0).squeeze()
    right = eyes.images[eyes.half == 1].mean(axis=0).squeeze()
    as_read, mirrored = (np.corrcoef(rendered.ravel(), x.ravel())[0, 1] for x in (right, right[:, ::-1]))
    assert as_read > mirrored + 0.1
    others = load_unlabelled(DATA_ROOT, eyes.images)
    assert [part.shape for part in others] == [(100, 1, 36, 60), (144, 1, 35, 55)]


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not there (SIMGAN_DATA_ROOT names the folder)")
def test_the_published_labels_have_right_eyes_mirrored_already() -> None:
    """Two eyes that look at one screen turn the same way; persons' mean yaws disagree in sign, so one is mirrored."""
    with np.load(PUBLISHED) as archive:
        others = archive["pitch_yaw"][1:]
    left, right = others.reshape(len(others), 2, -1, 2).mean(axis=2)[..., 1].T
    assert np.corrcoef(left, right)[0, 1] < -0.9


def test_unlabelled_eyes_are_turned_by_their_picture_alone(tmp_path: Path) -> None:
    left = np.zeros((36, 60), np.float32)
    left[:, :15], left[10:25, 20:40] = 80, 200  # dark corner towards one side only
    rng = np.random.default_rng(0)
    noisy = np.clip(left + rng.normal(0, 10, (12, 36, 60)), 0, 255).astype(np.uint8)
    sides = np.arange(12) % 2 == 1
    mixed = np.where(sides[:, None, None], noisy[:, :, ::-1], noisy)
    assert load_unlabelled(tmp_path, noisy[:, None]) == []
    write_mini(tmp_path)
    small = resize(torch.from_numpy(np.ascontiguousarray(mixed[:, None])), (35, 55)).numpy()[:, 0]
    file = tmp_path / "mpiigaze" / "unlabelled_mixed_subjects.npz"
    np.savez(file, image_36x60=mixed, image_35x55=small)
    turned, turned_small = load_unlabelled(tmp_path, noisy[:, None])
    assert turned.shape == (12, 1, 36, 60)
    for images in (turned, turned_small):
        assert (images[:, 0, :, :8].mean(axis=(1, 2)) > images[:, 0, :, -8:].mean(axis=(1, 2)) + 40).all()
    # Not resampled: an image of the working size is stored as it came, mirrored or not.
    as_it_came = np.where(sides[:, None, None], small[:, :, ::-1], small)
    assert np.array_equal(turned_small[:, 0], as_it_came)


def test_the_tested_person_is_known_by_the_published_labels() -> None:
    published = np.random.default_rng(0).normal(0, 0.1, (4, 50, 2)).astype(np.float32)
    row = np.array([3, 17, 40])
    assert person_of(published[2, row], row, published) == 2
    assert person_of(published[2, row] + 0.01, row, published) is None
    assert person_of(published[2, row], np.array([3, 17, 50]), published) is None


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not there (SIMGAN_DATA_ROOT names the folder)")
def test_another_persons_labels_leave_that_person_out_of_the_prior(tmp_path: Path) -> None:
    with np.load(PUBLISHED) as archive:
        published = archive["pitch_yaw"]
    row = np.arange(5, 900, 7)
    eyes = Eyes(np.zeros((len(row), 1, 36, 60), np.uint8), published[4, row], np.zeros(len(row), np.uint8), row)
    assert held_back_person(DATA_ROOT, eyes) == 4
    assert held_back_person(tmp_path, eyes) == 0
    prior = gaze_prior_ranges(DATA_ROOT, 4).gaze_prior
    assert prior is not None and len(prior) == 14 * 3000
    assert not (prior[:, None] == published[4, row[:3]]).all(axis=-1).any()


@needs_data
def test_the_person_at_hand_is_p00() -> None:
    assert held_back_person(DATA_ROOT, load_mini(DATA_ROOT)) == 0


def test_split_is_fixed_disjoint_and_follows_from_the_row_alone() -> None:
    every = np.arange(3000)
    train, test = split_mini(every)
    assert np.array_equal(np.sort(np.concatenate([train, test])), every)
    for eye in (every < 1500, every >= 1500):
        assert eye[train].sum() == eye[test].sum() == 750
    half = np.random.default_rng(0).permutation(3000)[:1500]  # another file, in another order
    in_test = half[split_mini(half)[1]]
    assert set(in_test) == set(test) & set(half)
    assert 0.45 < len(in_test) / 1500 < 0.55
    assert set(split_mini(every, seed=1)[1]) != set(test)
    assert test[:6].tolist() == [1, 3, 4, 6, 8, 11], "published numbers depend on this split"


@needs_data
def test_split_of_the_real_file_is_balanced() -> None:
    eyes = load_mini(DATA_ROOT)
    train, test = split_mini(eyes.row)
    assert len(train) + len(test) == 1500 and abs(len(train) - len(test)) < 100
    assert abs(eyes.half[test].mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((40, 35, 55), np.uint8)}, r"image uint8 \(40, 35, 55\); expected uint8 \[N, 36, 60\]"),
        ({"image": np.zeros((40, 36, 60), np.float32)}, "float32"),
        ({"image": np.zeros((0, 36, 60), np.uint8)}, "N > 0"),
        ({"pitch_yaw": np.zeros((39, 2), np.float32)}, r"\(39, 2\); expected \(40, 2\)"),
        ({"pitch_yaw": np.full((40, 2), np.nan, np.float32)}, "pitch_yaw of 40 images that is not finite"),
        ({"half": np.full(40, 2, np.uint8)}, "half 0 or 1"),
        ({"row": np.zeros(40, np.int32)}, "every row once"),
    ],
)
def test_broken_mini_files_are_named(tmp_path: Path, changes: Mapping[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        load_mini(write_mini(tmp_path, **changes))
    assert error.value.where.name == "p00.npz"


def test_missing_truncated_and_incomplete_mini_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"p00.npz: found no such file.*data/README.md"):
        load_mini(tmp_path)
    path = write_mini(tmp_path) / "mpiigaze" / "p00.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="unreadable"):
        load_mini(tmp_path)
    np.savez(path, image=mini_arrays()["image"])
    with pytest.raises(DataError, match=r"found arrays \['image'\]; expected .* image and pitch_yaw and half and row"):
        load_mini(tmp_path)


def write_full(root: Path, persons: int = 2, days: int = 2, frames: int = 4) -> Path:
    """A tiny MPIIGaze as published; of each day frames 0 (left) and 1 (both eyes) are in the evaluation subset."""
    rng = np.random.default_rng(0)
    (root / "Evaluation Subset" / "sample list for eye image").mkdir(parents=True)
    for person in range(persons):
        folder = root / "Data" / "Normalized" / f"p{person:02d}"
        folder.mkdir(parents=True)
        lines = []
        for day in range(1, days + 1):
            savemat(folder / f"day{day:02d}.mat", mat_content(rng, frames))
            lines += [f"day{day:02d}/0001.jpg left", f"day{day:02d}/0002.jpg left", f"day{day:02d}/0002.jpg right"]
        name = root / "Evaluation Subset" / "sample list for eye image" / f"p{person:02d}.txt"
        name.write_text("\n".join(lines) + "\n")
    return root


def mat_content(rng: np.random.Generator, frames: int, **changes: Any) -> dict[str, Any]:
    def eye() -> dict[str, Any]:
        angles = rng.uniform(-0.3, 0.3, (frames, 2))
        content = {
            "image": rng.integers(0, 256, (frames, 36, 60)).astype(np.uint8),
            "gaze": gaze_vector(angles),
            "pose": rng.uniform(-0.2, 0.2, (frames, 3)),
        }
        return {**content, **changes}

    names = np.array([[f"{i + 1:04d}.jpg"] for i in range(frames)], dtype=object)
    return {"data": {"left": eye(), "right": eye()}, "filenames": names}


def test_day_of_the_full_data_set(tmp_path: Path) -> None:
    content = mat_content(np.random.default_rng(1), 3)
    savemat(tmp_path / "day01.mat", content)
    eyes, names = load_day(tmp_path / "day01.mat")
    assert names == ["0001.jpg", "0002.jpg", "0003.jpg"]
    left, right = content["data"]["left"], content["data"]["right"]
    assert np.array_equal(eyes["left"].images[:, 0], left["image"])
    assert np.array_equal(eyes["right"].images[:, 0], right["image"][:, :, ::-1])
    assert gaze_vector(eyes["left"].pitch_yaw) == pytest.approx(left["gaze"], abs=1e-6)
    assert gaze_vector(eyes["right"].pitch_yaw) == pytest.approx(right["gaze"] * [-1, 1, 1], abs=1e-6)


def test_head_pose_of_the_full_data_set(tmp_path: Path) -> None:
    pose = np.array([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.2, 0.0]])
    savemat(tmp_path / "day01.mat", mat_content(np.random.default_rng(1), 3, pose=pose))
    eyes, _ = load_day(tmp_path / "day01.mat")
    # A turn about x tips the third axis to -y, so the face (its negative) looks down; about y likewise.
    assert eyes["left"].head == pytest.approx(np.array([[0, 0], [-0.2, 0], [0, 0.2]]), abs=1e-6)
    assert eyes["right"].head == pytest.approx(np.array([[0, 0], [-0.2, 0], [0, -0.2]]), abs=1e-6)


def test_one_frame_is_not_squeezed_away(tmp_path: Path) -> None:
    savemat(tmp_path / "day01.mat", mat_content(np.random.default_rng(1), 1))
    eyes, names = load_day(tmp_path / "day01.mat")
    assert len(eyes["left"]) == 1 and names == ["0001.jpg"]


def test_parts_of_the_full_data_set(tmp_path: Path) -> None:
    root = write_full(tmp_path / "MPIIGaze")
    assert full_root(tmp_path) == root and full_root(root) == root
    counts = {part: sum(len(eyes) for *_, eyes in read_full(root, part)) for part in ("all", "evaluation", "rest")}
    assert counts == {"all": 2 * 2 * 8, "evaluation": 2 * 2 * 3, "rest": 2 * 2 * 5}
    evaluation = list(read_full(root, "evaluation", [1]))
    assert [(person, day, eyes.row.tolist(), set(eyes.half)) for person, day, eyes in evaluation] == [
        (1, 1, [0, 1], {0}),
        (1, 1, [1], {1}),
        (1, 2, [0, 1], {0}),
        (1, 2, [1], {1}),
    ]
    columns = evaluation[0][2].annotations(1, 2)
    assert set(columns) >= {"pitch", "yaw", "head_pitch", "head_yaw", "person", "day", "half", "row"}
    assert sample_list(root, 0)[2] == ("day01", "0002.jpg", "right")


def test_broken_full_data_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected MPIIGaze"):
        full_root(tmp_path)
    root = write_full(tmp_path / "MPIIGaze")
    with pytest.raises(DataError, match="no days of p07"):
        day_files(root, [7])
    day = root / "Data" / "Normalized" / "p00" / "day01.mat"
    whole = day.read_bytes()
    listing = root / "Evaluation Subset" / "sample list for eye image" / "p00.txt"
    lines = listing.read_text()
    rng = np.random.default_rng(0)

    def fails(message: str) -> None:
        with pytest.raises(DataError, match=message):
            list(read_full(root, "evaluation"))

    for cut in (0, 100, len(whole) // 2):
        day.write_bytes(whole[:cut])
        fails(r"day01.mat: found an unreadable file")
    savemat(day, mat_content(rng, 4, gaze=np.full((4, 3), np.nan)))
    fails(r"day01.mat: found left.gaze of 4 images that is not finite, the first at 0")
    savemat(day, mat_content(rng, 4, image=np.zeros((4, 30, 60), np.uint8)))
    fails(r"left.image uint8 \(4, 30, 60\)")
    savemat(day, {"data": {"left": {"image": 1}}, "filenames": np.array([["a"]], dtype=object)})
    fails("unreadable")
    day.write_bytes(whole)
    listing.write_text(lines.replace("0002.jpg right", "0009.jpg right"))
    fails(r"day01.mat: found no frame 0009.jpg")
    listing.write_text(lines + "day01/0001.jpg both\n")
    fails(r"p00.txt: found line 7: 'day01/0001.jpg both'")
    listing.write_text(lines + "day33/0001.jpg left\n")
    fails("no day33")
    listing.write_text("")
    fails("empty list")
