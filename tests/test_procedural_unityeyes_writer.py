"""The UnityEyes-format writer: schema, frames, and the way back through the UnityEyes adapter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from simgan_core.datasets.unityeyes import prepare_unityeyes, read_label
from simgan_core.simulators import unityeyes_writer
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.procedural_assets import procedural_assets
from simgan_core.simulators.unityeyes_writer import write_unityeyes

SIZE = (150, 200)
SEED = 4
REFERENCE = (
    Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data")) / "unityeyes/imgs/1.json"
)


@pytest.fixture(scope="module")
def simulator() -> EyeSimulator:
    return EyeSimulator(procedural_assets(0, texture=128))


@pytest.fixture(scope="module")
def folder(simulator: EyeSimulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("writer") / "eyes"
    assert write_unityeyes(simulator, out, 4, SEED, size=SIZE, progress=False) == out / "imgs"
    return out


def test_pairs_of_colour_jpeg_and_json(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "imgs").iterdir())
    assert names == sorted(f"{n}.{kind}" for n in range(1, 5) for kind in ("jpg", "json"))
    image = cv2.imread(str(folder / "imgs" / "1.jpg"))
    assert image.shape == (*SIZE, 3)
    assert image[..., 2].mean() > image[..., 0].mean() + 5  # skin: more red than blue


def test_labels_return_through_the_adapter(folder: Path, simulator: EyeSimulator, tmp_path: Path) -> None:
    store = prepare_unityeyes(folder, tmp_path / "store", progress=False)
    truth = simulator.sample(SEED, range(1, 5))
    assert np.degrees(np.abs(store.pitch_yaw() - truth.gaze.numpy())).max() < 0.01
    head = store.annotations()[["head_pitch", "head_yaw", "head_roll"]].to_numpy()
    assert np.degrees(np.abs(head - truth.head.numpy())).max() < 0.01
    eyes = simulator.render(truth)  # the adapter's crop has MPIIGaze's scale: the pupil lands near our own frames'
    own = eyes.labels.pupil.numpy() * (55 / 60, 35 / 36)
    assert np.abs(store.annotations()[["pupil_u", "pupil_v"]].to_numpy() - own).max() < 8


def test_landmarks_lie_on_the_picture(folder: Path) -> None:
    """The iris' middle is darker than the lid margin's surroundings: v counts from the bottom, and is turned back."""
    for path in sorted((folder / "imgs").glob("*.json")):
        label = read_label(path, SIZE[0])
        grey = cv2.imread(str(path.with_suffix(".jpg")), cv2.IMREAD_GRAYSCALE).astype(float)
        v, u = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
        u0, v0 = label.iris.mean(axis=0)
        near = np.hypot(u - u0, v - v0)
        assert grey[near < 8].mean() < 0.7 * grey[near > 40].mean()
        outline = label.lid
        assert outline[:, 0].min() < u0 < outline[:, 0].max()
        assert outline[4, 1] < outline[12, 1]  # from the inner corner over the upper lid, back along the lower


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no {REFERENCE.name} of UnityEyes in the data root")
def test_schema_is_that_of_unityeyes(folder: Path) -> None:
    def outline(tree: object) -> object:
        if isinstance(tree, dict):
            return {name: outline(value) for name, value in tree.items()}
        if isinstance(tree, list):
            return [outline(tree[0])]
        assert isinstance(tree, str)
        return tree.count(",") + 1

    reference = json.loads(REFERENCE.read_text())
    written = json.loads((folder / "imgs" / "1.json").read_text())
    assert outline(written) == outline(reference)
    for points in ("interior_margin_2d", "caruncle_2d", "iris_2d"):
        assert len(written[points]) == len(reference[points])
    assert list(written) == list(reference)


def test_nothing_is_left_after_a_failure(
    simulator: EyeSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, *_: object) -> None:
        if path.name == "2.jpg":
            raise OSError("no space left")
        path.write_bytes(b"")

    monkeypatch.setattr(unityeyes_writer, "_write_jpeg", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_unityeyes(simulator, tmp_path / "eyes", 3, size=(60, 80), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_refuses_before_any_work(simulator: EyeSimulator, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="new folder expected"):
        write_unityeyes(simulator, tmp_path, 1)
    with pytest.raises(ValueError, match="count"):
        write_unityeyes(simulator, tmp_path / "a", 0)
    with pytest.raises(ValueError, match="quality"):
        write_unityeyes(simulator, tmp_path / "a", 1, quality=0)
    assert list(tmp_path.iterdir()) == []
