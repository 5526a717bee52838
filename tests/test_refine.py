"""Refining arrays, stores and folders: labels and names go along, errors come before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_eyes import toy_eyes, toy_store

from simgan_core import refine
from simgan_core.checkpoints import load_refiner, save_refiner
from simgan_core.config import RefinerConfig, with_channels, with_overrides
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.open_images import open_images
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.models import Refiner
from simgan_core.profiles import cpu
from simgan_core.refine import refine_folder, refine_images, refine_store


@pytest.fixture
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(RefinerConfig(width=4, blocks=1)).eval()


def by_hand(refiner: Refiner, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        refined = refiner(torch.from_numpy(images).float() / 127.5 - 1)
    return ((refined + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def test_images_whatever_the_batch(refiner: Refiner) -> None:
    images, _ = toy_eyes(7, seed=0)
    refined = refine_images(refiner, images, batch=3)
    assert refined.dtype == np.uint8 and refined.shape == images.shape
    assert np.abs(refined.astype(int) - by_hand(refiner, images)).max() <= 1
    assert refine_images(refiner, images[:0]).shape == (0, 1, 35, 55)


def test_weights_file_refines_alike_on_its_own(refiner: Refiner, tmp_path: Path) -> None:
    config = with_overrides(cpu(), {"refiner.width": 4, "refiner.blocks": 1})
    save_refiner(refiner, tmp_path / "refiner.safetensors", config, seed=0, step=1)
    images, _ = toy_eyes(3, seed=0)
    for source in (tmp_path, tmp_path / "refiner.safetensors"):
        assert np.array_equal(refine_images(load_refiner(source), images), refine_images(refiner, images))


def test_store_keeps_every_annotation_in_order(refiner: Refiner, tmp_path: Path) -> None:
    images, labels = toy_eyes(23, seed=1)
    landmarks = np.arange(23 * 6, dtype=np.float32).reshape(23, 6)
    names = np.array([f"eye {i}" for i in range(23)])
    with StoreWriter(tmp_path / "s", size=(35, 55), provenance={"made": "by hand"}, shard_rows=10) as writer:
        columns = {"pitch": labels[:, 0], "yaw": labels[:, 1], "landmarks": landmarks, "name": names}
        writer.append(images, columns)
    store = Store.open(tmp_path / "s")
    refined = refine_store(refiner, store, tmp_path / "out", batch=4, progress=False)
    refined.verify()
    assert np.array_equal(refined.images(), refine_images(refiner, images))
    assert np.array_equal(refined.pitch_yaw(), labels)
    before, after = store.annotations(), refined.annotations()
    assert list(after.columns) == list(before.columns)
    assert list(after["name"]) == list(names)
    assert np.array_equal(np.stack(list(after["landmarks"])), landmarks)
    assert refined.provenance["refined_from"] == {"made": "by hand"}


def test_unlabelled_store(refiner: Refiner, tmp_path: Path) -> None:
    store = toy_store(tmp_path / "s", 9, 0, real=True)
    refined = refine_store(refiner, store, tmp_path / "out", batch=4, progress=False)
    assert len(refined) == 9 and refined.columns == []


def test_store_errors(refiner: Refiner, tmp_path: Path) -> None:
    store = toy_store(tmp_path / "s", 4, 0, channels=3)
    with pytest.raises(ValueError, match="found 3 channel"):
        refine_store(refiner, store, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    with StoreWriter(tmp_path / "large", size=(64, 96), channels=1, provenance={}) as writer:
        writer.append(np.zeros((2, 1, 64, 96), np.uint8))
    with pytest.raises(ValueError, match="large: found 64 x 96 pixels"):
        refine_store(refiner, Store.open(tmp_path / "large"), tmp_path / "out", progress=False)
    with pytest.raises(FileExistsError):
        refine_store(refiner, toy_store(tmp_path / "g", 4, 0), tmp_path / "s", progress=False)


def folder_of(path: Path, count: int = 3, channels: int = 1) -> Path:
    """Images in two folders with a JSON label each, as a simulator writes them."""
    images, labels = toy_eyes(count, seed=2, channels=channels)
    (path / "more").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        where = path / ("more" if number == 0 else ".")
        array = image[0] if channels == 1 else image.transpose(1, 2, 0)
        Image.fromarray(array).save(where / f"{number}.png")
        (where / f"{number}.json").write_text(json.dumps({"pitch_yaw": label.tolist()}))
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_keeps_names_and_labels(refiner: Refiner, tmp_path: Path, channels: int) -> None:
    source = folder_of(tmp_path / "in", channels=channels)
    out = refine_folder(refiner, source, tmp_path / "out")
    names = sorted(str(p.relative_to(source)) for p in source.rglob("*"))
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*")) == names
    images, _ = toy_eyes(3, seed=2)
    for number in range(3):
        where = "more" if number == 0 else "."
        refined = np.array(Image.open(out / where / f"{number}.png"))
        if number == 0:  # beside images of the folder itself: training did not see it, it may be a mask
            assert (out / where / f"{number}.png").read_bytes() == (source / where / f"{number}.png").read_bytes()
        else:
            assert np.array_equal(refined, refine_images(refiner, images[number : number + 1])[0, 0])
        label = f"{where}/{number}.json"
        assert (out / label).read_bytes() == (source / label).read_bytes()


def test_a_folder_without_images_of_its_own_has_them_in_subfolders(refiner: Refiner, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in")
    for number in (1, 2):
        (source / f"{number}.png").rename(source / "more" / f"{number}.png")
    out = refine_folder(refiner, source, tmp_path / "out")
    refined = np.array(Image.open(out / "more" / "1.png"))
    assert np.array_equal(refined, refine_images(refiner, toy_eyes(3, seed=2)[0][1:2])[0, 0])


def test_frames_of_unityeyes_are_refined_beside_a_picture_of_the_whole(refiner: Refiner, tmp_path: Path) -> None:
    """Training reads `imgs/` of such a folder whatever else lies in it."""
    source = folder_of(tmp_path / "in")
    (source / "more").rename(source / "imgs")
    (source / "imgs" / "0.json").write_text('{"eye_details": {}}')
    out = refine_folder(refiner, source, tmp_path / "out")
    assert (out / "imgs" / "0.png").read_bytes() != (source / "imgs" / "0.png").read_bytes()


def test_colour_refiner_gives_colour(tmp_path: Path) -> None:
    torch.manual_seed(0)
    refiner = Refiner(with_channels(with_overrides(cpu(), {"refiner.width": 4}), 3).refiner).eval()
    out = refine_folder(refiner, folder_of(tmp_path / "in"), tmp_path / "out")
    assert np.array(Image.open(out / "1.png")).shape == (35, 55, 3)


def test_jpeg_stays_jpeg(refiner: Refiner, tmp_path: Path) -> None:
    images, _ = toy_eyes(1, seed=2)
    (tmp_path / "in").mkdir()
    Image.fromarray(images[0, 0]).save(tmp_path / "in" / "a.JPG", quality=95)
    out = refine_folder(refiner, tmp_path / "in", tmp_path / "out")
    with Image.open(out / "a.JPG") as picture:
        assert picture.format == "JPEG" and picture.mode == "L"


def test_other_sizes_are_refused_or_resized(refiner: Refiner, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in")
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(source / "9.png")
    with pytest.raises(DataError, match=r"9.png: found 40 x 60 pixels; expected 35 x 55"):
        refine_folder(refiner, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = refine_folder(refiner, source, tmp_path / "out", resize_images=True)
    assert np.array(Image.open(out / "9.png")).shape == (35, 55)


def test_folder_errors_leave_nothing(refiner: Refiner, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in")
    whole = (source / "1.png").read_bytes()
    (source / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"1.png: found \d+ bytes that are not a whole image"):
        refine_folder(refiner, source, tmp_path / "out")
    (source / "1.png").write_bytes(whole)
    Image.fromarray(np.full((35, 55), 3776, np.uint16)).save(source / "deep.png")
    with pytest.raises(DataError, match=r"deep.png: found uint16 levels, 3776 to 3776; expected 8 bits"):
        refine_folder(refiner, source, tmp_path / "out")
    (source / "deep.png").unlink()
    with pytest.raises(DataError, match="no image files"):
        (tmp_path / "empty").mkdir()
        refine_folder(refiner, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no such folder"):
        refine_folder(refiner, tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="lies in"):
        refine_folder(refiner, source, source / "refined")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "in"]
    with pytest.raises(FileExistsError, match="not empty"):
        refine_folder(refiner, source, folder_of(tmp_path / "there"))


def test_a_folder_is_read_as_for_training(refiner: Refiner, tmp_path: Path) -> None:
    """Upright by EXIF; what macOS leaves beside a picture is none; bytes after a JPEG's end do no harm."""
    source, images = tmp_path / "in", toy_eyes(2, seed=2)[0][:, 0]
    source.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 3  # by half a turn
    Image.fromarray(images[0]).save(source / "0.jpg", quality=95, exif=turned)
    Image.fromarray(images[1]).save(source / "1.jpg", quality=95)
    with (source / "1.jpg").open("ab") as file:
        file.write(b"motion" * 100)
    (source / "._1.jpg").write_bytes(b"resource fork")
    store = open_images(source, cache=tmp_path / "cache")
    assert len(store) == 2 and np.abs(store.images()[0, 0, ::-1, ::-1].astype(int) - images[0]).mean() < 5
    out = refine_folder(refiner, source, tmp_path / "out", progress=False)
    expected = refine_images(refiner, store.images())[:, 0]
    for number in range(2):
        with Image.open(out / f"{number}.jpg") as picture:
            assert 0x0112 not in picture.getexif()
            assert np.abs(np.array(picture).astype(int) - expected[number]).mean() < 3
    assert (out / "._1.jpg").read_bytes() == b"resource fork"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 70, 110), np.uint8), "found 70 x 110 pixels; the refiner was trained on 35 x 55"),
        (np.zeros((2, 3, 35, 55), np.uint8), "found 3 channel"),
        (np.zeros((2, 35, 55), np.uint8), r"shape \(1, 35, 55\) found; .* add the missing axes"),
        (np.zeros((2, 1, 35, 55)), "float64 found; uint8, 0 to 255, expected"),
    ],
    ids=["size", "colour", "axes", "float"],
)
def test_what_r_was_not_trained_on_is_refused(refiner: Refiner, images: np.ndarray, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        refine_images(refiner, images)


def test_a_failure_half_way_leaves_nothing(refiner: Refiner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import simgan_core.refine as module

    calls = iter(range(10))

    def fails(*arguments: object) -> None:
        if next(calls) == 1:
            raise OSError("disk full")

    monkeypatch.setattr(module, "_write_picture", fails)
    with pytest.raises(OSError, match="disk full"):
        refine_folder(refiner, folder_of(tmp_path / "in"), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_unityeyes_images_are_refined_through_a_store(refiner: Refiner, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in")
    (source / "1.json").write_text('{"eye_details": {}}')
    with pytest.raises(DataError, match="simgan data import IN STORE"):
        refine_folder(refiner, source, tmp_path / "out", resize_images=True)
    assert not (tmp_path / "out").exists()


def test_pictures_of_a_folder_are_refined_together(
    refiner: Refiner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for k in range(9):
        Image.fromarray(np.full((35, 55), 20 * k, np.uint8)).save(tmp_path / "in" / f"{k}.png")
    alone = {k: refine_images(refiner, np.full((1, 1, 35, 55), 20 * k, np.uint8))[0, 0] for k in range(9)}
    calls = []
    monkeypatch.setattr(refine, "FOLDER_BATCH", 4)

    def counted(refiner: Refiner, images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return refine_images(refiner, images)

    monkeypatch.setattr(refine, "refine_images", counted)
    out = refine_folder(refiner, tmp_path / "in", tmp_path / "out", progress=False)
    assert calls == [4, 4, 1]
    for k, image in alone.items():
        assert np.abs(np.array(Image.open(out / f"{k}.png")).astype(int) - image).max() <= 1, "each under its own name"
