"""The stores of a run: contents, separation of labels, reuse, and errors before any work."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_mpiigaze import write_full, write_mini
from test_unityeyes import _folder as write_unityeyes_folder

from simgan_core.config import Config, with_channels
from simgan_core.datasets import prepare as module
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.mpiigaze import load_mini, split_mini
from simgan_core.datasets.prepare import Prepared, prepare
from simgan_core.datasets.store import Store
from simgan_core.images import resize
from simgan_core.profiles import smoke

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA_ROOT / "unityeyes2" / "Assets").is_dir(), reason=f"no {DATA_ROOT}/unityeyes2; set SIMGAN_DATA_ROOT"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embedded stores, made once."""
    out = tmp_path_factory.mktemp("embedded")
    prepare("embedded", tiny(), None, out)
    return out


@pytest.fixture
def embedded(made: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "embedded"))


@pytest.fixture(autouse=True, scope="module")
def paint_assets_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "procedural_assets", functools.cache(module.procedural_assets))
        yield


def tiny() -> Config:
    config = smoke()
    return replace(config, data=replace(config.data, synthetic_images=12, real_images=10, test_images=8))


def stores(prepared: Prepared) -> dict[str, Store]:
    return {name: Store.open(getattr(prepared, name)) for name in ("synthetic", "real", "test", "oracle")}


def test_embedded(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare("embedded", tiny(), None, embedded)
    found = stores(prepared)
    assert prepared.real_is_standin
    assert {name: len(store) for name, store in found.items()} == {"synthetic": 12, "real": 10, "test": 8, "oracle": 10}
    assert not found["real"].has_labels and found["real"].columns == []
    assert not list(prepared.real.glob("*.parquet"))
    assert all(found[name].has_labels for name in ("synthetic", "test", "oracle"))
    assert np.array_equal(found["real"].images(), found["oracle"].images())
    assert not np.array_equal(found["test"].images()[:8], found["real"].images()[:8])
    assert found["test"].provenance["assets"] != found["synthetic"].provenance["assets"]

    # A second call makes nothing; another seed or another size makes what depends on it.
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("rendered again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "simulate_eyes", forbidden)
        assert stores(prepare("embedded", tiny(), None, embedded))["real"].checksum == found["real"].checksum
        with pytest.raises(AssertionError, match="rendered again"):
            prepare("embedded", tiny(), None, embedded, seed=1)
    changed = stores(prepare("embedded", tiny(), None, embedded, seed=1))
    assert not np.array_equal(changed["synthetic"].images(), found["synthetic"].images())


def test_a_damaged_store_is_made_again(embedded: Path) -> None:
    shard = embedded / "test" / "images-00000.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    (embedded / "synthetic" / "store.json").unlink()
    prepare("embedded", tiny(), None, embedded)
    assert shard.read_bytes() == whole and (embedded / "synthetic" / "store.json").is_file()


def test_code_that_changed_makes_the_store_again(embedded: Path) -> None:
    stamp = embedded / "synthetic.made_with.json"
    made_with = json.loads(stamp.read_text())
    stamp.write_text(json.dumps({**made_with, "code": ["another version"]}))
    time = (embedded / "synthetic" / "store.json").stat().st_mtime_ns
    prepare("embedded", tiny(), None, embedded)
    assert (embedded / "synthetic" / "store.json").stat().st_mtime_ns > time
    assert json.loads(stamp.read_text()) == made_with


def test_target_gaze_lies_inside_the_synthetic_range() -> None:
    ranges = module.target_ranges()
    prior = np.rad2deg(ranges.gaze_prior)
    low, high = np.array([ranges.gaze_pitch_deg, ranges.gaze_yaw_deg]).T
    assert (prior > low).all() and (prior < high).all() and len(prior) > 3000


@needs_data
def test_mini_on_the_real_files(tmp_path: Path) -> None:
    found = stores(prepare("mini", tiny(), DATA_ROOT, tmp_path))
    eyes = load_mini(DATA_ROOT)
    train, test = split_mini(eyes.row)
    counts = {name: len(store) for name, store in found.items()}
    assert counts == {"synthetic": 12, "real": len(train) + 244, "test": len(test), "oracle": len(train)}
    assert found["real"].columns == [] and found["synthetic"].provenance["assets"] == "unityeyes"
    assert found["synthetic"].provenance["ranges"]["gaze_prior"]["labels"] == 14 * 3000
    rows = {name: set(found[name].annotations(["row"])["row"]) for name in ("test", "oracle")}
    assert not rows["test"] & rows["oracle"] and rows["test"] == set(eyes.row[test])
    assert found["test"].pitch_yaw() == pytest.approx(eyes.pitch_yaw[test])
    frames = resize(module.torch.from_numpy(eyes.images[test]), (35, 55)).numpy()
    assert np.array_equal(found["test"].images(), frames)
    held_back = {image.tobytes() for image in found["test"].images()}
    assert not any(image.tobytes() in held_back for image in found["real"].images()[: len(train)])


@needs_data
def test_mini_with_other_rows_and_fewer_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_mini(tmp_path / "data", row=np.arange(2, 2 + 3 * 40, 3).astype(np.int32))
    (root / "unityeyes2").symlink_to(DATA_ROOT / "unityeyes2")
    found = stores(prepare("mini", tiny(), root, tmp_path / "out"))
    assert len(found["real"]) + len(found["test"]) == 40 and min(len(found["real"]), len(found["test"])) > 8
    assert found["synthetic"].provenance["ranges"].get("gaze_prior") is None and "uniform" in caplog.text


def test_full_from_a_unityeyes_folder(tmp_path: Path) -> None:
    write_full(tmp_path / "data" / "MPIIGaze")
    write_unityeyes_folder(tmp_path / "data" / "UnityEyes", 14)
    found = stores(prepare("full", tiny(), tmp_path / "data", tmp_path / "out"))
    assert {name: len(store) for name, store in found.items()} == {
        "synthetic": 12,
        "real": 20,
        "test": 12,
        "oracle": 20,
    }
    assert found["real"].columns == [] and set(found["test"].annotations(["person"])["person"]) == {0, 1}
    listing = tmp_path / "data" / "MPIIGaze" / "Evaluation Subset" / "sample list for eye image" / "p01.txt"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-1]))
    again = stores(prepare("full", tiny(), tmp_path / "data", tmp_path / "out"))
    assert (len(again["test"]), len(again["real"])) == (11, 21), "another sample list: made again"


def test_errors_come_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="'tiny' found; embedded, mini or full expected"):
        prepare("tiny", tiny(), None, out)
    with pytest.raises(ValueError, match="SIMGAN_DATA_ROOT"):
        prepare("mini", tiny(), None, out)
    with pytest.raises(ValueError, match="MPIIGaze is grey"):
        prepare("mini", with_channels(tiny(), 3), tmp_path, out)
    with pytest.raises(DataError, match=r"p00.npz: found no such file"):
        prepare("mini", tiny(), tmp_path, out)
    write_mini(tmp_path)
    with pytest.raises(DataError, match="simgan data fetch unityeyes2"):
        prepare("mini", tiny(), tmp_path, out)
    with pytest.raises(DataError, match="expected MPIIGaze"):
        prepare("full", tiny(), tmp_path, out)
    assert not out.exists()
