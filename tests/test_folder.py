"""Your own folder of images: order, resize rule, labels, colour, broken files, and the cache behind `open_images`."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.folder import prepare_folder
from simgan_core.datasets.store import Store, StoreWriter, open_images
from simgan_core.simulators.simulate import finish


def _folder(path: Path, count: int = 12, height: int = 80, width: int = 100) -> Path:
    path.mkdir()
    for i in range(count):
        image = np.full((height, width, 3), 10 * i, np.uint8)
        image[:, : width // 2, 2] = 200  # red, in OpenCV's order of channels
        cv2.imwrite(str(path / f"{i}.png"), image)
    (path / "notes.txt").write_text("not an image")
    return path


def test_images_keep_their_natural_order_and_names(tmp_path: Path) -> None:
    store = prepare_folder(_folder(tmp_path / "in"), tmp_path / "store", colour=True, progress=False)
    store.verify()
    assert (len(store), store.size, store.channels, store.has_labels) == (12, (35, 55), 3, False)
    assert store.annotations()["file"].tolist() == [f"{i}.png" for i in range(12)]
    images = store.images()
    assert (images[:, 1].mean(axis=(1, 2)) == 10 * np.arange(12)).all()
    assert (images[:, 0, :, 5] == 200).all() and (images[0, 0, :, -5] == 0).all(), "RGB, red on the left"


def test_crop_rule_keeps_the_aspect_ratio_and_the_centre(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = np.zeros((200, 110), np.uint8)
    image[65:135] = 255  # exactly the largest centred window of 35:55
    cv2.imwrite(str(tmp_path / "in" / "a.png"), image)
    cropped = prepare_folder(tmp_path / "in", tmp_path / "crop", progress=False).images()
    assert cropped.shape == (1, 1, 35, 55) and (cropped == 255).all()
    stretched = prepare_folder(tmp_path / "in", tmp_path / "stretch", rule="stretch", progress=False).images()
    assert (stretched[0, 0, 0] == 0).all() and (stretched[0, 0, 17] == 255).all()


def test_equalise_on_request(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.tile(np.linspace(100, 120, 55, dtype=np.uint8), (35, 1)))
    plain = prepare_folder(tmp_path / "in", tmp_path / "plain", progress=False).images()
    equalised = prepare_folder(tmp_path / "in", tmp_path / "equalised", equalise=True, progress=False).images()
    assert (plain.min(), plain.max()) == (100, 120) and (equalised.min(), equalised.max()) == (0, 255)


def test_equalised_eyes_are_framed_and_blurred_as_renders_are(tmp_path: Path) -> None:
    """36 x 60 pixels, equalised there, then 35 x 55: what a render's frame becomes, and one of MPIIGaze's as PNG."""
    (tmp_path / "in").mkdir()
    frame = np.random.default_rng(0).integers(40, 200, (36, 60), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), frame)
    found = prepare_folder(tmp_path / "in", tmp_path / "eyes", equalise=True, progress=False).images()[0, 0]
    as_render = finish(torch.from_numpy(frame)[None, None].float() / 255, (35, 55), True).numpy()[0, 0]
    assert np.abs(found.astype(int) - as_render).max() <= 1
    square = prepare_folder(tmp_path / "in", tmp_path / "square", size=(36, 36), equalise=True, progress=False).images()
    window = frame[:, 12:48]  # of other things than eyes: nothing is squeezed into a frame of eyes
    assert np.array_equal(square[0, 0] == 0, window == window.min())


def test_labels_csv_becomes_annotations(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "in", 3)
    (folder / "labels.csv").write_text("file,pitch,yaw\n2.png,0.2,-0.2\n0.png,0.0,0.0\n1.png,0.1,-0.1\n")
    store = prepare_folder(folder, tmp_path / "store", progress=False)
    assert store.pitch_yaw()[:, 0] == pytest.approx([0, 0.1, 0.2])


def test_only_the_columns_that_are_asked_for_are_looked_at(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 2)
    (folder / "labels.csv").write_text(",file,pitch,yaw,subject\n0,0.png,0.1,0.2,p01\n1,1.png,0.3,0.4,p02\n")
    everything = prepare_folder(folder, tmp_path / "all", progress=False)
    assert list(everything.annotations()["subject"]) == ["p01", "p02"]
    gaze = prepare_folder(folder, tmp_path / "gaze", labels=("pitch", "yaw"), progress=False)
    assert set(gaze.columns) == {"file", "pitch", "yaw"}
    (folder / "labels.csv").write_text("nothing of use")
    assert prepare_folder(folder, tmp_path / "none", labels=(), progress=False).columns == ["file"]


def test_blanks_and_a_byte_order_mark_in_labels_csv_are_no_part_of_a_name(tmp_path: Path) -> None:
    _folder(tmp_path / "images", count=2)
    (tmp_path / "images" / "labels.csv").write_text(
        "\ufefffile , pitch, yaw\r\n0.png , 0.1, -0.2\r\n1.png,0.3 ,0.4\r\n"
    )
    store = prepare_folder(tmp_path / "images", tmp_path / "store", progress=False)
    np.testing.assert_allclose(store.pitch_yaw(), [[0.1, -0.2], [0.3, 0.4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("file,pitch\n0.png,1\n", r"labels.csv: found no row for 2 of 3 images, the first 1.png"),
        ("file,pitch\n0.png,1\n1.png,\n2.png,3\n", "pitch = '' of 1.png; expected a finite number"),
        ("file,pitch\n0.png,1\n1.png,a\n2.png,3\n", "pitch = 'a' of 1.png"),
        ("file,pitch\n0.png,a\n1.png,b\n2.png,c\n", "pitch = 'a' of 0.png; expected a finite number"),
        ("file,age\n0.png,30\n1.png,old\n2.png,40\n", "age = 'old' of 1.png; expected a finite number"),
        ("file,subject\n0.png,a\n1.png,N/A\n2.png,c\n", "subject = 'a' of 0.png; expected a finite number"),
        ("name,pitch\n0.png,1\n", "column 'file'"),
        ("file,pitch\n0.png,1\n0.png,1\n1.png,1\n2.png,1\n", "several rows"),
        ("", r"columns \[\]"),
        ("file,pitch\n0.png,1,\n", r"labels.csv: found 3 values in row 1 \(0.png, 1, \); expected 2"),
        ("file,yaw,yaw\n0.png,1,2\n", "distinct names"),
        ("file,pitch\n0.png,10\n1.png,-20\n2.png,3\n", "labels.csv: found pitch of up to 20; expected radians"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    folder = _folder(tmp_path / "in", 3)
    (folder / "labels.csv").write_text(labels)
    with pytest.raises(DataError, match=message):
        prepare_folder(folder, tmp_path / "store", progress=False)
    assert not list(tmp_path.glob("store*"))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_empty_and_foreign_files_are_named(tmp_path: Path, suffix: str) -> None:
    folder = _folder(tmp_path / "in", 3)
    broken = folder / f"1{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (80, 100), dtype=np.uint8)
    whole = cv2.imencode(suffix, noise)[1].tobytes()
    for content in (whole[: len(whole) * 2 // 3], b"", b"hello"):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=rf"1\{suffix}: found {len(content)} bytes that are not a whole image"):
            prepare_folder(folder, tmp_path / "store", progress=False)
        assert not list(tmp_path.glob("store*"))


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for prepare in (lambda p: prepare_folder(p, tmp_path / "store"), lambda p: open_images(p, cache=tmp_path / "c")):
        with pytest.raises(DataError, match="empty: found no images"):
            prepare(tmp_path / "empty")
        with pytest.raises(DataError, match="nowhere: found no such folder"):
            prepare(tmp_path / "nowhere")


def test_open_images_prepares_once_and_follows_changes(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "in", 4)
    first = open_images(folder, (20, 30), cache=tmp_path / "cache")
    assert (len(first), first.size) == (4, (20, 30))
    stamp = (first.path / "store.json").stat().st_mtime_ns
    again = open_images(folder, (20, 30), cache=tmp_path / "cache")
    assert again.path == first.path and (again.path / "store.json").stat().st_mtime_ns == stamp
    (folder / "0.png").unlink()
    assert len(open_images(folder, (20, 30), cache=tmp_path / "cache")) == 3
    assert open_images(folder, (20, 31), cache=tmp_path / "cache").size == (20, 31)


def test_open_images_takes_a_store_of_the_right_form(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", size=(36, 60), provenance={}) as writer:
        writer.append(np.zeros((3, 1, 36, 60), np.uint8))
    assert isinstance(open_images(tmp_path / "s", (36, 60)), Store)
    with pytest.raises(DataError, match=r"36 x 60 with 1 channel\(s\); expected 35 x 55 with 1"):
        open_images(tmp_path / "s")
    with pytest.raises(DataError, match="with 3"):
        open_images(tmp_path / "s", (36, 60), colour=True)


def test_a_users_own_json_labels_do_not_make_a_folder_unityeyes(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((40, 60), 90, np.uint8))
        (folder / f"{name}.json").write_text('{"my_label": 3}')
    assert len(open_images(folder, cache=tmp_path / "cache")) == 2
    (folder / "a.json").write_text('{"eye_details": {}}')  # a UnityEyes label, and a broken one
    with pytest.raises(DataError, match=r"a\.json"):
        open_images(folder, cache=tmp_path / "cache")


def _prepare_at_once(folder: Path, cache: Path, barrier: Any, found: Any) -> None:
    barrier.wait(60)
    found.put(open_images(folder, cache=cache).checksum)


def test_processes_that_want_the_same_folder_wait_for_each_other(tmp_path: Path) -> None:
    """As `torchrun` has it: every process opens the same images at the same time."""
    folder, spawn = _folder(tmp_path / "in", 25), multiprocessing.get_context("spawn")
    barrier, found = spawn.Barrier(2), spawn.Queue()
    arguments = (folder, tmp_path / "cache", barrier, found)
    both = [spawn.Process(target=_prepare_at_once, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    checksums = {found.get(timeout=120) for _ in both}
    for process in both:
        process.join(60)
    assert len(checksums) == 1 and [process.exitcode for process in both] == [0, 0]


def test_a_damaged_or_outdated_copy_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = _folder(tmp_path / "in", 3), tmp_path / "cache"
    first = open_images(folder, cache=cache)
    (first.path / "images-00000.npy").unlink()  # as cleaners of temporary files do
    again = open_images(folder, cache=cache)
    again.verify()
    assert again.path == first.path
    monkeypatch.setattr("simgan_core.datasets.open_images.code_fingerprint", lambda _: "other code")
    assert open_images(folder, cache=cache).path != first.path


@pytest.mark.parametrize(("file", "cut"), [("provenance.json", None), ("store.json", 20), ("provenance.json", 20)])
def test_a_copy_without_its_whole_papers_is_made_again(tmp_path: Path, file: str, cut: int | None) -> None:
    folder, cache = _folder(tmp_path / "in", 3), tmp_path / "cache"
    path = open_images(folder, cache=cache).path / file
    whole = path.read_bytes()
    path.unlink() if cut is None else path.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=rf"{file}: found no (file|JSON).*damaged"):
        Store.open(path.parent)
    open_images(folder, cache=cache).verify()
    assert json.loads(path.read_text()).keys() == json.loads(whole).keys()


def test_pictures_are_kept_where_nobody_else_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path / "in", 3)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    kept = open_images(folder).path.parent
    assert kept.parent == tmp_path and kept.stat().st_mode & 0o777 == 0o700
    kept.chmod(0o777)  # as somebody who was there first would have it
    with pytest.raises(DataError, match="others can enter; expected a folder of your own"):
        open_images(folder)
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="not yours"):
        open_images(folder)
