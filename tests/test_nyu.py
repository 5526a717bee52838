"""NYU Hand Pose: the real frame, generated folders in the published layout, and broken files by name."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.nyu import FRAMES, find_frames, load_joints, mask_depth, nyu_root, prepare_nyu, read_depth
from simgan_core.hand_crop import (
    JOINTS_21,
    JOINTS_36,
    NYU_14_OF_36,
    crop_frame,
    cube_about,
    decode_depth,
    encode_depth,
    from_crop_pixels,
    paper_values,
    to_crop_pixels,
    xyz_to_uvd,
)
from simgan_core.simulators.hand_simulate import hand_labels

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
REAL = DATA_ROOT / "nyu" / "frames" / "depth_1_0000001.png"
TRUTH = DATA_ROOT / "nyu" / "test_groundtruth_uvd.npz"
needs_data = pytest.mark.skipif(not (REAL.is_file() and TRUTH.is_file()), reason=f"no {REAL}; set SIMGAN_DATA_ROOT")


def write_depth(path: Path, depth: np.ndarray) -> None:
    """A published frame: G * 256 + B, something else in R."""
    pixels = np.stack([depth % 256, depth // 256, np.full_like(depth, 7)], axis=-1).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)


def hand(row: int, view: int) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic depth of a slanted rectangle, and joints uvd [36, 3] on it."""
    left, top = 200 + 20 * row, 150 + 15 * view
    depth = np.full((480, 640), 2001, np.int64)
    depth[top : top + 90, left : left + 70] = 700 + 10 * row + np.arange(70)
    rng = np.random.default_rng(row)
    u, v = left + rng.integers(2, 68, 36), top + rng.integers(2, 88, 36)
    return depth, np.stack([u, v, depth[v, u]], axis=-1).astype(np.float64)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four train and two test frames, three views; the real ones are 3 mm nearer, with clutter outside the hand."""
    for split, count in (("train", 4), ("test", 2)):
        folder = tmp_path / "nyu" / split
        folder.mkdir(parents=True)
        uvd = np.zeros((3, count, 36, 3))
        for view in (1, 2, 3):
            for row in range(count):
                depth, uvd[view - 1, row] = hand(row, view)
                write_depth(folder / f"synthdepth_{view}_{row + 1:07d}.png", depth)
                real = np.where(depth < 2000, depth - 3, 760)  # an arm, as near as the hand
                real[240, 300] = 2001  # dropout
                write_depth(folder / f"depth_{view}_{row + 1:07d}.png", real)
        savemat(folder / "joint_data.mat", {"joint_uvd": uvd, "joint_xyz": uvd})
    return tmp_path


@needs_data
def test_the_real_frame_and_its_joints_fit_together() -> None:
    depth = read_depth(REAL)
    assert depth.shape == (480, 640) and 700 < depth[depth > 0].min() < depth.max() < 2000
    assert 0.02 < (depth == 0).float().mean() < 0.9, "2001 reads as no depth"
    uvd = torch.from_numpy(np.load(TRUTH)["uvd"][:1])
    surface = depth[uvd[0, :, 1].long(), uvd[0, :, 0].long()]
    assert ((uvd[0, :, 2] - surface > -5) & (uvd[0, :, 2] - surface < 40)).all(), "joints lie just under the skin"
    cube = cube_about(uvd)
    crop = crop_frame(depth[None], cube, (224, 224))
    assert 0.1 < (crop > 0).float().mean() < 0.6
    levels = encode_depth(crop, cube)
    values = paper_values(decode_depth(levels, cube))
    assert ((levels[:, 0] == 0) == (values == 0)).all()
    assert torch.allclose(values[values != 0], (crop - 2000)[crop > 0], atol=0.6), "8 bits keep depth - 2000 mm"


def test_depth_is_green_times_256_plus_blue(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(500, 1500, (480, 640))
    depth[0, :3] = 0, 2000, 2001
    write_depth(tmp_path / "depth_1_0000001.png", depth)
    found = read_depth(tmp_path / "depth_1_0000001.png").numpy()
    assert found[0, :3].tolist() == [0, 0, 0]
    assert np.array_equal(found[1:], depth[1:])


def test_published_splits() -> None:
    assert FRAMES == {"train": 72_757, "test": 8_252}


def test_views_and_frames_in_order(root: Path) -> None:
    frames = find_frames(root, "train", "real")
    assert [path.name for path in frames.files[:4]] == [
        "depth_1_0000001.png", "depth_2_0000001.png", "depth_3_0000001.png", "depth_1_0000002.png",
    ]  # fmt: skip
    assert len(frames) == 12 and frames.view[:4].tolist() == [1, 2, 3, 1] and frames.frame[:4].tolist() == [0, 0, 0, 1]
    uvd = load_joints(root / "nyu/train/joint_data.mat")
    assert torch.equal(frames.uvd[4], uvd[1, 1])
    frontal = find_frames(root, "test", "synthetic", views=[1], rows=[1])
    assert [path.name for path in frontal.files] == ["synthdepth_1_0000002.png"]
    with pytest.raises(ValueError, match="some of 1"):
        find_frames(root, "train", "real", views=[0])


def test_synthetic_frames_become_a_store(root: Path, tmp_path: Path) -> None:
    store = prepare_nyu(root, tmp_path / "out", split="train", kind="synthetic", size=(112, 112), progress=False)
    assert len(store) == 12 and store.size == (112, 112)
    labels = store.annotations()
    assert labels["view"].tolist() == [0, 1, 2] * 4 and labels["pose"].tolist() == np.repeat(range(4), 3).tolist()
    cube = torch.from_numpy(np.stack(labels["cube"].to_list()))
    values = paper_values(decode_depth(torch.from_numpy(store.images().copy()), cube))
    uvd = np.stack(labels["uvd"].to_list()).reshape(-1, 14, 3)
    inside = 0
    for image, joints in zip(values, uvd, strict=True):
        for u, v, d in joints:
            at = float(image[int(v), int(u)])
            inside += abs(at - (d - 2000)) < 4  # the surface is slanted: a crop's pixel is not the frame's
    assert inside > 0.9 * 12 * 14, "joints lie where the depth - 2000 is theirs"
    assert (values == 0).float().mean() > 0.5


def test_real_frames_are_cropped_by_the_synthetic_mask(root: Path, tmp_path: Path) -> None:
    stores = [
        prepare_nyu(root, tmp_path / kind, split="test", kind=kind, size=(64, 64), progress=False)  # type: ignore[arg-type]
        for kind in ("real", "synthetic")
    ]
    real, synthetic = (store.images() for store in stores)
    assert not (real[synthetic == 0] > 0).any(), "the arm is cut away"
    both = (real > 0) & (synthetic > 0)
    assert both.sum() > 0.95 * (synthetic > 0).sum()
    step = real[both].astype(int) - synthetic[both]
    assert np.median(step) in (2, 3), "3 mm nearer is about 2.5 levels more"
    unlabelled = prepare_nyu(root, tmp_path / "bare", split="test", kind="real", labels=False, progress=False)
    assert unlabelled.columns == []


def test_mask_keeps_the_real_depth() -> None:
    real, synthetic = torch.tensor([700.0, 0.0, 800.0]), torch.tensor([650.0, 650.0, 0.0])
    assert mask_depth(real, synthetic).tolist() == [700, 0, 0]


def test_the_fourteen_published_joints(root: Path, tmp_path: Path) -> None:
    store = prepare_nyu(root, tmp_path / "out", split="test", kind="synthetic", views=[2], progress=False)
    found = np.stack(store.annotations()["frame_uvd"].to_list()).reshape(-1, 14, 3)
    uvd = load_joints(root / "nyu/test/joint_data.mat")[1]
    assert np.allclose(found, uvd[:, list(NYU_14_OF_36)])


def test_further_joint_sets_in_pixels_and_mm(root: Path, tmp_path: Path) -> None:
    store = prepare_nyu(root, tmp_path / "out", split="test", kind="real", views=[1], size=(64, 64), progress=False)
    labels = hand_labels(store)
    uvd, cube = load_joints(root / "nyu/test/joint_data.mat")[0], torch.from_numpy(labels["cube"].astype(np.float32))
    assert torch.allclose(
        from_crop_pixels(torch.from_numpy(labels["uvd_36"].astype(np.float32)), cube, (64, 64)), uvd, atol=0.02
    )
    assert np.allclose(labels["uvd_36"][:, list(NYU_14_OF_36)], labels["uvd"], atol=1e-3)
    joints, names = labels["joints_21"], {name: k for k, name in enumerate(JOINTS_36)}
    for joint, point in (("thumb_tip", "TH_KNU3_A"), ("index_pip", "F4_KNU2_B"), ("little_mcp", "F1_KNU1_B")):
        assert np.array_equal(joints[:, JOINTS_21.index(joint)], labels["joints_36"][:, names[point]]), joint
    wrist = labels["joints_36"][:, [names["PALM_1"], names["PALM_2"]]].mean(axis=1)
    assert np.allclose(joints[:, 0], wrist, atol=1e-3)
    pixels = to_crop_pixels(xyz_to_uvd(torch.from_numpy(joints.astype(np.float32))), cube, (64, 64))
    assert np.allclose(labels["uvd_21"], pixels, atol=0.02)


def drop(folder: Path) -> None:
    (folder / "depth_2_0000003.png").unlink()


def drop_double(folder: Path) -> None:
    (folder / "synthdepth_2_0000003.png").unlink()


def cut(folder: Path) -> None:
    file = folder / "depth_2_0000003.png"
    file.write_bytes(file.read_bytes()[:-200])


def shrink(folder: Path) -> None:
    cv2.imwrite(str(folder / "depth_2_0000003.png"), np.full((240, 320, 3), 3, np.uint8))


def blank(folder: Path) -> None:
    cv2.imwrite(str(folder / "depth_2_0000003.png"), np.zeros((480, 640, 3), np.uint8))


def elsewhere(folder: Path) -> None:
    depth = np.full((480, 640), 2001)
    depth[:20, :20] = 700
    write_depth(folder / "synthdepth_2_0000003.png", depth)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (drop, "depth_2_0000003.png: found no such file"),
        (drop_double, "synthdepth_2_0000003.png: found no such file"),
        (cut, "depth_2_0000003.png: found .* not a whole image"),
        (shrink, "depth_2_0000003.png: found 240 x 320 pixels; expected 480 x 640"),
        (blank, "depth_2_0000003.png: found no depth between 0 and 2000 mm"),
        (elsewhere, "depth_2_0000003.png: found no depth within the cube"),
    ],
)
def test_broken_frames_are_named_and_nothing_is_written(root: Path, tmp_path: Path, break_it, message: str) -> None:  # type: ignore[no-untyped-def]
    break_it(root / "nyu/train")
    with pytest.raises(DataError, match=message):
        prepare_nyu(root, tmp_path / "out", split="train", kind="real", size=(32, 32), progress=False)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("uvd", "message"),
    [
        (np.ones((3, 4, 14, 3)), r"joint_uvd \(3, 4, 14, 3\)"),
        (np.ones((2, 4, 36, 3)), r"joint_uvd \(2, 4, 36, 3\)"),
        (np.where(np.arange(4)[:, None, None] == 2, np.nan, np.ones((3, 4, 36, 3))), "3 hands .* view 1, frame 3"),
        (np.zeros((3, 4, 36, 3)), "not in front of the camera"),
    ],
)
def test_broken_joints_are_named(tmp_path: Path, uvd: np.ndarray, message: str) -> None:
    path = tmp_path / "joint_data.mat"
    savemat(path, {"joint_uvd": uvd})
    with pytest.raises(DataError, match=f"joint_data.mat: found .*{message}"):
        load_joints(path)
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(DataError, match="unreadable"):
        load_joints(path)


def test_no_nyu_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no joint_data.mat"):
        nyu_root(tmp_path)
