"""The hand stores: what is in them, who holds labels, what is kept, and a smoke run from renders to table 4."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_nyu import root  # noqa: F401 (a fixture: generated folders in NYU's layout)

from simgan_core import hand_stages
from simgan_core.config_hand import HandConfig, HandDataConfig, hand_profile, smoke
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.prepare_hands import NAMES, prepare_hands
from simgan_core.datasets.store import Store
from simgan_core.evaluation.hand_comparison import joints_uv, rows_of_views
from simgan_core.run_folder import RunFolder

MESH = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data")) / "hand_mesh"
TINY: HandConfig = replace(smoke(), data=HandDataConfig(poses=4, target_poses=3, validation=2, test=4))


def test_embedded_stores(tmp_path: Path) -> None:
    prepared = prepare_hands("embedded", TINY, None, tmp_path)
    stores = {name: Store.open(tmp_path / name) for name in NAMES}
    assert {name: len(store) for name, store in stores.items()} == {
        "synthetic": 12, "target_labels": 9, "target": 9, "validation": 2, "test": 4,
    }  # fmt: skip
    assert prepared.is_standin and prepared.complete
    assert {name for name, store in stores.items() if not store.columns} == {"target"}, "R sees no label"
    assert np.array_equal(stores["target"].images(), stores["target_labels"].images())
    assert stores["synthetic"].annotations(["view"])["view"].tolist() == [0, 1, 2] * 4
    assert joints_uv(stores["test"]).shape == (4, 14, 2)
    for a, b in (("test", "validation"), ("test", "target"), ("validation", "target")):
        assert not (stores[a].images()[:2, None] == stores[b].images()[None, :2]).all(axis=(2, 3, 4)).any(), (a, b)
    assert prepared.recorded is not None
    recorded, frontal = Store.open(prepared.recorded), rows_of_views(stores["synthetic"], 1)
    assert np.array_equal(joints_uv(recorded), joints_uv(stores["synthetic"])[frontal]), "the same hands and poses"
    clean, seen = stores["synthetic"].images(frontal), recorded.images()
    assert (clean != seen).any(axis=(1, 2, 3)).all(), "every one went through the camera"
    assert ((clean > 0) == (seen > 0)).mean() > 0.95, "which moves edges, not hands"
    written = (tmp_path / "test" / "store.json").stat().st_mtime_ns
    prepare_hands("embedded", TINY, None, tmp_path)
    assert (tmp_path / "test" / "store.json").stat().st_mtime_ns == written, "nothing was out of date"
    other = replace(TINY, data=replace(TINY.data, test=5))
    prepare_hands("embedded", other, None, tmp_path)
    assert len(Store.open(tmp_path / "test")) == 5


def test_full_takes_nyus_splits(root: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "stores"
    config = replace(TINY, data=HandDataConfig(poses=2, target_poses=9, validation=2, test=9))
    prepared = prepare_hands("full", config, root, out)
    assert not prepared.is_standin and prepared.recorded is None
    counts = {name: len(Store.open(out / name)) for name in NAMES}
    # Of four training frames the last one is held back for validation.
    assert counts == {"synthetic": 6, "target_labels": 9, "target": 9, "validation": 1, "test": 2}
    frames = {
        name: set(Store.open(out / name).annotations(["pose"])["pose"]) for name in ("target_labels", "validation")
    }
    assert not frames["target_labels"] & frames["validation"]
    poses = Store.open(out / "synthetic").annotations(["pose"])["pose"]
    assert poses.max() - poses.min() == 2, "two of three frames, from end to end: one person follows the other"


@pytest.mark.skipif(not MESH.is_dir(), reason=f"no {MESH}; set SIMGAN_DATA_ROOT")
def test_mini_renders_the_mesh_and_a_stand_in(tmp_path: Path) -> None:
    config = replace(TINY, data=HandDataConfig(poses=2, target_poses=2, validation=2, test=2))
    prepared = prepare_hands("mini", config, MESH.parent, tmp_path)
    assert prepared.is_standin
    images, joints = Store.open(prepared.synthetic).images(), joints_uv(Store.open(prepared.synthetic))
    inside = [image[0, int(v), int(u)] > 0 for image, hand in zip(images, joints, strict=True) for u, v in hand
              if 0 <= u < 56 and 0 <= v < 56]  # fmt: skip
    assert np.mean(inside) > 0.7, "joints lie on the hand, but for thin fingers between pixels"


def test_without_meshes_mini_renders_the_procedural_hand_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(TINY, data=HandDataConfig(poses=2, target_poses=2, validation=2, test=2))
    mini = prepare_hands("mini", config, tmp_path, tmp_path / "mini")
    assert "the procedural hand alone" in caplog.text
    embedded = prepare_hands("embedded", config, None, tmp_path / "embedded")
    assert Store.open(mini.synthetic).checksum == Store.open(embedded.synthetic).checksum


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no joint_data.mat"):
        prepare_hands("full", TINY, tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="no data root"):
        prepare_hands("mini", TINY, None, tmp_path / "out")
    with pytest.raises(ValueError, match="embedded, mini or full expected"):
        prepare_hands("other", TINY, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="Did you mean 'cpu'"):
        hand_profile("cpuu")


def test_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simgan_core.cli", "data", "prepare", "--hands", "--json"]
    done = subprocess.run(
        [*command, "--profile", "smoke", "--out", str(tmp_path / "s")], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["is_standin"] is True and len(Store.open(found["synthetic"])) == 3 * smoke().data.poses


@pytest.mark.slow
def test_from_renders_to_table_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage with everything between; a second call trains nothing."""
    monkeypatch.setattr(hand_stages, "hand_profile", lambda _: TINY)
    hands = hand_stages.open_hands(RunFolder.open(tmp_path / "run", data="embedded", profile_name="smoke"))
    hand_stages.train_hand_refiners(hands, workers=1, progress=False)
    first = hand_stages.compare_hands(hands, workers=1, progress=False)
    assert set(first.predicted) == {"raw", "refined", "real", "raw_3views", "refined_3views", "recorded"}
    assert first.predicted["raw"].shape == (2, 4, 14, 2)
    images = hand_stages.frontal(hands.stores.synthetic, 3)
    local, whole = (hand_stages.refined_images(hands, kind, images, hands.seeds) for kind in ("local", "global"))
    assert local.shape == whole.shape == (2, 3, 1, 56, 56) and not np.array_equal(local, whole)
    assert np.array_equal(local[1], Store.open(hands.refined(1)).images()[[0, 3, 6]])

    monkeypatch.setattr(hand_stages, "refine_store", lambda *_, **__: pytest.fail("refined again"))
    hand_stages.train_hand_refiners(hands, workers=1, progress=False)
    again = hand_stages.compare_hands(hands, workers=1, progress=False)
    assert all(np.array_equal(first.predicted[arm], again.predicted[arm]) for arm in first.predicted)
