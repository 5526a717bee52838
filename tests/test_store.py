"""The store: round trips, atomicity, damage, flat memory layout, and batches that resume exactly."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.store import Batches, Store, StoreWriter, open_images
from simgan_core.images import to_uint8
from simgan_core.locks import alone

ROWS = 23


def _write(path: Path, *, shard_rows: int = 10, channels: int = 1, overwrite: bool = False) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, channels, 5, 7)).astype(np.uint8)
    pitch, landmarks = rng.uniform(-1.5, 1.5, ROWS).astype(np.float32), rng.normal(size=(ROWS, 4, 2)).astype(np.float32)
    names = np.array([f"image {i}" for i in range(ROWS)])
    with StoreWriter(
        path, size=(5, 7), channels=channels, provenance={"a": 1}, shard_rows=shard_rows, overwrite=overwrite
    ) as writer:
        for start in range(0, ROWS, 8):
            part = slice(start, start + 8)
            writer.append(
                torch.from_numpy(images[part]),
                {"pitch": pitch[part], "yaw": -pitch[part], "lid": landmarks[part], "name": list(names[part])},
            )
    return images


@pytest.mark.parametrize("shard_rows", [10, 8, 100, 1])
def test_round_trip_over_shards(tmp_path: Path, shard_rows: int) -> None:
    images = _write(tmp_path / "s", shard_rows=shard_rows, channels=3)
    store = Store.open(tmp_path / "s")
    store.verify()
    assert (len(store), store.size, store.channels, store.provenance) == (ROWS, (5, 7), 3, {"a": 1})
    assert np.array_equal(store.images(), images)
    for index in ([0], [22, 0, 9, 10, 9], [-1], slice(8, 12), slice(3, 5), slice(None, None, -3), []):
        assert np.array_equal(store.images(index), images[index]), index
    frame = store.annotations()
    assert list(frame.columns) == ["pitch", "yaw", "lid", "name"] and len(frame) == ROWS
    assert frame["name"].tolist() == [f"image {i}" for i in range(ROWS)]
    assert np.stack(frame["lid"].tolist()).shape == (ROWS, 8)
    assert list(store.annotations(["yaw"]).columns) == ["yaw"]
    assert np.array_equal(store.pitch_yaw()[:, 0], -store.pitch_yaw()[:, 1]) and store.pitch_yaw().shape == (ROWS, 2)
    with pytest.raises(IndexError, match="23"):
        store.images([23])


def test_shards_are_plain_memory_mapped_npy(tmp_path: Path) -> None:
    images = _write(tmp_path / "s", shard_rows=100)
    assert np.array_equal(np.load(tmp_path / "s" / "images-00000.npy"), images)
    store = Store.open(tmp_path / "s")
    view = store.images()
    assert np.shares_memory(view, store.images(slice(2, 4))), "mapped, not copied"
    view[:] = 0  # copy on write: the file stays
    Store.open(tmp_path / "s").verify()


def test_unlabelled_store(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", size=(2, 2), provenance={}) as writer:
        writer.append(np.zeros((3, 1, 2, 2), np.uint8), {})
    store = Store.open(tmp_path / "s")
    store.verify()
    assert not store.has_labels and store.columns == [] and len(store.annotations()) == 3
    assert not list((tmp_path / "s").glob("*.parquet"))
    with pytest.raises(DataError, match="no gaze labels"):
        store.pitch_yaw()
    with pytest.raises(DataError, match="expected iris"):
        store.annotations(["iris"])


def test_failure_leaves_nothing_and_keeps_the_old_store(tmp_path: Path) -> None:
    old = _write(tmp_path / "s")
    with pytest.raises(FileExistsError):
        _write(tmp_path / "s")
    with (
        pytest.raises(KeyboardInterrupt),
        StoreWriter(tmp_path / "s", size=(2, 2), provenance={}, overwrite=True) as writer,
    ):
        writer.append(np.zeros((3, 1, 2, 2), np.uint8))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert np.array_equal(Store.open(tmp_path / "s").images(), old)
    with StoreWriter(tmp_path / "s", size=(2, 2), provenance={}, overwrite=True) as writer:
        writer.append(np.zeros((3, 1, 2, 2), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["s"] and len(Store.open(tmp_path / "s")) == 3


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        (np.zeros((2, 1, 2, 3), np.uint8), {"pitch": [0, 0]}, r"uint8 \[B, 1, 2, 2\]"),
        (np.zeros((2, 1, 2, 2), np.float32), {"pitch": [0, 0]}, "uint8"),
        (np.zeros((2, 1, 2, 2), np.uint8), {"pitch": [0]}, "1 values of 'pitch' for 2 images"),
        (np.zeros((2, 1, 2, 2), np.uint8), {"pitch": [0, np.nan]}, "not finite at row 1"),
        (np.zeros((2, 1, 2, 2), np.uint8), {"yaw": [0, 0]}, "as in the first batch"),
    ],
)
def test_bad_batches_are_refused(tmp_path: Path, images: np.ndarray, annotations: dict, message: str) -> None:
    with pytest.raises(DataError, match=message), StoreWriter(tmp_path / "s", size=(2, 2), provenance={}) as writer:
        writer.append(np.zeros((1, 1, 2, 2), np.uint8), {"pitch": [0.5]})
        writer.append(images, annotations)
    assert not list(tmp_path.iterdir())


def test_empty_store_and_bad_provenance_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"), StoreWriter(tmp_path / "s", size=(2, 2), provenance={}):
        pass
    with pytest.raises(TypeError):
        StoreWriter(tmp_path / "s", size=(2, 2), provenance={"path": Path("x")})
    assert not list(tmp_path.iterdir())


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    _write(tmp_path / "s")
    shard = tmp_path / "s" / "images-00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"images-00001.npy.*changed"):
        Store.open(tmp_path / "s").verify()
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"images-00001.npy: found .* bytes"):
        Store.open(tmp_path / "s")
    shard.unlink()
    with pytest.raises(DataError, match="no file"):
        Store.open(tmp_path / "s")
    with pytest.raises(DataError, match="expected a store"):
        Store.open(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        Store.open(tmp_path / "nowhere")


def test_on_device_unless_too_large(tmp_path: Path) -> None:
    images = _write(tmp_path / "s")
    store = Store.open(tmp_path / "s")
    resident = store.on_device("cpu")
    assert resident is not None and np.array_equal(resident.numpy(), images)
    assert store.on_device("cpu", limit_gb=ROWS * 35 * 0.99e-9) is None


def test_batches_visit_each_image_once_per_epoch_in_new_orders(tmp_path: Path) -> None:
    images = _write(tmp_path / "s")
    store = Store.open(tmp_path / "s")
    batches = Batches(store, 7, seed=3)
    rows = np.concatenate([batches.next_with_index()[1] for _ in range(ROWS)])  # seven whole epochs
    epochs = rows.reshape(7, ROWS)
    assert (np.sort(epochs, axis=1) == np.arange(ROWS)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 7
    batch, index = batches.next_with_index()
    assert np.array_equal(to_uint8(batch).numpy(), images[index]) and batch.dtype == torch.float32
    assert not torch.equal(next(Batches(store, 7, seed=3)), next(Batches(store, 7, seed=4)))
    assert next(Batches(store, 50, seed=0)).shape == (50, 1, 5, 7), "a batch may be larger than the store"
    some = Batches(store, 4, seed=0, indices=[3, 5, 8])
    assert set(np.concatenate([some.next_with_index()[1] for _ in range(6)])) == {3, 5, 8}


def test_batches_resume_exactly(tmp_path: Path) -> None:
    _write(tmp_path / "s")
    store = Store.open(tmp_path / "s")
    whole = list(itertools.islice(Batches(store, 6, seed=1), 12))
    for k in (0, 1, 4, 5, 11):
        first = Batches(store, 6, seed=1)
        for _ in range(k):
            next(first)
        resumed = Batches(store, 6, seed=1)
        resumed.load_state_dict(first.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(whole[k:], itertools.islice(resumed, 12 - k), strict=True))
    with pytest.raises(ValueError, match="same data and seed"):
        Batches(store, 6, seed=2).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="at least one"):
        Batches(store, 0, seed=2)


def test_checksum_follows_the_content(tmp_path: Path) -> None:
    _write(tmp_path / "a")
    _write(tmp_path / "b")
    assert Store.open(tmp_path / "a").checksum == Store.open(tmp_path / "b").checksum
    _write(tmp_path / "b", shard_rows=5, overwrite=True)
    assert Store.open(tmp_path / "a").checksum != Store.open(tmp_path / "b").checksum


def test_a_copied_folder_of_images_is_no_other_data(tmp_path: Path) -> None:
    """A run resumes on another disk, where files have other dates."""
    for place, date in (("here", 1_700_000_000), ("there", 1_750_000_000)):
        (tmp_path / place).mkdir()
        cv2.imwrite(str(tmp_path / place / "a.png"), np.full((35, 55), 90, np.uint8))
        os.utime(tmp_path / place / "a.png", (date, date))
    here, there = (open_images(tmp_path / place, cache=tmp_path / "cache") for place in ("here", "there"))
    assert here.provenance != there.provenance and here.checksum == there.checksum


def test_a_mask_takes_its_images_and_nonsense_is_refused(tmp_path: Path) -> None:
    images = _write(tmp_path / "s")
    store, mask = Store.open(tmp_path / "s"), np.arange(ROWS) % 4 == 1
    assert np.array_equal(store.images(mask), images[mask])
    seen = Batches(store, 6, seed=0, indices=mask)
    assert seen.rows.tolist() == np.flatnonzero(mask).tolist()
    with pytest.raises(ValueError, match=f"a mask of 5 found; expected one truth value for each of {ROWS}"):
        store.images(mask[:5])
    with pytest.raises(ValueError, match="indices of float64 found"):
        store.images(np.array([0.0, 1.0]))


def test_spread_reaches_from_end_to_end(tmp_path: Path) -> None:
    _write(tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert store.spread(3).tolist() == [0, 11, ROWS - 1]
    assert store.spread(1000).tolist() == list(range(ROWS)), "no image twice"


def test_degrees_are_not_taken_for_radians(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", size=(5, 7), provenance={})
    with pytest.raises(DataError, match=r"pitch of up to 10; expected radians, 1.571 at most"), writer:
        writer.append(np.zeros((2, 1, 5, 7), np.uint8), {"pitch": np.array([-10.0, 3.0]), "yaw": np.array([15.0, 0.0])})
    assert not (tmp_path / "s").exists()


def test_a_lock_leaves_what_a_link_in_its_place_points_to(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years of work")
    (tmp_path / "s.lock").symlink_to(tmp_path / "thesis")
    with alone(tmp_path / "s.lock"):
        pass
    assert (tmp_path / "thesis").read_text() == "years of work"
