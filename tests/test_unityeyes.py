"""UnityEyes' folders: frame of the look vector, pixel positions, crop, and every way a pair can be broken."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.open_images import is_unityeyes
from simgan_core.datasets.store import open_images
from simgan_core.datasets.unityeyes import FRAME_WIDTH_MM, find_images, prepare_unityeyes, read_label
from simgan_core.gaze import gaze_vector

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
REAL = DATA_ROOT / "unityeyes" / "imgs" / "1.json"
needs_data = pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL}; set SIMGAN_DATA_ROOT")

HEIGHT, WIDTH, IRIS_PX = 480, 640, 70.0


def _tree(u: float, v: float, look: tuple[float, float, float] = (0.3, 0.2, -0.93)) -> dict[str, Any]:
    """A label as UnityEyes writes it for an eye at (u, v from the top)."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)

    def points(centre: tuple[float, float], radii: tuple[float, float], phase: np.ndarray) -> list[str]:
        x, y = centre[0] + radii[0] * np.cos(phase), HEIGHT - centre[1] + radii[1] * np.sin(phase)
        return [f"({a:.4f}, {b:.4f}, 9.0000)" for a, b in zip(x, y, strict=True)]

    return {
        "interior_margin_2d": points((u, v), (100, 40), angle[::2]),
        "caruncle_2d": points((u - 105, v), (5, 5), angle[:7]),
        "iris_2d": points((u + 10, v - 5), (IRIS_PX / 2, IRIS_PX / 2), angle),
        "eye_details": {"look_vec": f"({look[0]}, {look[1]}, {look[2]}, 0.0)", "iris_size": "1.0", "pupil_size": "0.1"},
        "head_pose": "(355.0, 203.0, 0.0)",
    }


def _folder(path: Path, count: int = 3) -> Path:
    (path / "imgs").mkdir(parents=True)
    for i in range(1, count + 1):
        u, v = 300.0 + 10 * i, 220.0 + 5 * i
        image = np.full((HEIGHT, WIDTH, 3), (60, 110, 180), np.uint8)
        cv2.ellipse(image, ((u, v), (200, 80), 0), (230, 230, 230), -1)
        cv2.ellipse(image, ((u + 10, v - 5), (IRIS_PX, IRIS_PX), 0), (20, 20, 20), -1)
        cv2.imwrite(str(path / "imgs" / f"{i}.jpg"), image)
        (path / "imgs" / f"{i}.json").write_text(json.dumps(_tree(u, v)))
    return path


def test_crop_scale_and_landmarks(tmp_path: Path) -> None:
    store = prepare_unityeyes(_folder(tmp_path / "in"), tmp_path / "s", progress=False)
    labels = store.annotations()
    assert (len(store), store.size) == (3, (35, 55)) and labels["file"].tolist() == ["1.jpg", "2.jpg", "3.jpg"]
    width = FRAME_WIDTH_MM * IRIS_PX / 11.2  # of the crop, in pixels of the photograph
    scale = 55 / width
    # The margin's middle is the centre of the crop; the iris lies 10 px right of it and 5 px above.
    assert labels["pupil_u"].to_numpy() == pytest.approx(27.5 + 10 * scale, abs=0.05)
    assert labels["pupil_v"].to_numpy() == pytest.approx(17.5 - 5 * scale * (35 / 55) * (60 / 36), abs=0.05)
    for image, row in zip(store.images(), labels.itertuples(), strict=True):
        v, u = np.nonzero(image[0] < 40)
        assert (u.mean() + 0.5, v.mean() + 0.5) == pytest.approx((row.pupil_u, row.pupil_v), abs=0.15)
        iris = np.asarray(row.iris_landmarks).reshape(32, 2)
        assert np.ptp(iris[:, 0]) == pytest.approx(IRIS_PX * scale, rel=0.01)
    assert len(np.asarray(labels["lid_landmarks"][0])) == 32


def test_look_vector_becomes_a_gaze_in_mpiigazes_axes(tmp_path: Path) -> None:
    store = prepare_unityeyes(_folder(tmp_path / "in"), tmp_path / "s", progress=False)
    gaze = gaze_vector(store.pitch_yaw().astype(np.float64))
    expected = np.array([0.3, -0.2, -0.93]) / np.linalg.norm([0.3, 0.2, 0.93])
    assert gaze == pytest.approx(np.tile(expected, (3, 1)), abs=1e-6)
    assert (store.pitch_yaw()[:, 0] > 0).all(), "y up in Unity: a positive y looks up"
    assert (store.pitch_yaw()[:, 1] < 0).all(), "x to image-right: negative yaw"


def test_grey_colour_and_fixed_crop(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "in")
    colour = prepare_unityeyes(folder, tmp_path / "c", colour=True, equalise=False, progress=False)
    assert colour.channels == 3 and (colour.images()[0, :, 1, 1].astype(int) - (180, 110, 60) < 4).all()
    fixed = prepare_unityeyes(folder, tmp_path / "f", crop_px=(84, 140), limit=2, progress=False)
    assert len(fixed) == 2
    assert fixed.annotations()["pupil_u"].to_numpy() == pytest.approx(27.5 + 10 * 55 / 140, abs=0.05)
    grey = prepare_unityeyes(folder, tmp_path / "g", progress=False).images()
    assert grey.min() == 0 or grey.max() == 255, "equalised"
    assert open_images(folder, cache=tmp_path / "cache").has_labels, "recognised as UnityEyes, not as a plain folder"


@needs_data
def test_real_label_agrees_with_its_own_iris() -> None:
    label = read_label(REAL, 480)
    assert label.gaze == pytest.approx(np.array([0.3404, -0.3879, -0.8566]), abs=1e-3)
    # The iris is a disc across the gaze: where its far side is, there the eye looks. Third coordinate = depth.
    iris = np.array([ast.literal_eval(text) for text in json.loads(REAL.read_text())["iris_2d"]])
    _, right, up = np.linalg.lstsq(np.c_[np.ones(len(iris)), iris[:, :2]], iris[:, 2], rcond=None)[0]
    assert np.sign(right) == np.sign(label.gaze[0]) and np.sign(up) == -np.sign(label.gaze[1])
    assert abs(right / up) == pytest.approx(abs(label.gaze[0] / label.gaze[1]), rel=0.05)
    assert np.rad2deg(label.head[:2]) == pytest.approx([4.923, -23.845], abs=1e-3)
    assert label.lid.shape == (16, 2) and label.iris.shape == (32, 2) and label.iris_size == pytest.approx(0.9349335)


@needs_data
def test_real_folders_that_cannot_be_used_say_why() -> None:
    with pytest.raises(DataError, match="found no images and 1 JSON files"):
        find_images(DATA_ROOT / "unityeyes")
    with pytest.raises(DataError, match=r"30\.json: found no usable entry 'eye_details'"):
        prepare_unityeyes(DATA_ROOT / "unityeyes2", "unused", progress=False)
    assert not Path("unused").exists()


def _edit(tree: dict[str, Any], **changes: Any) -> str:
    details = {**tree["eye_details"], **changes.pop("eye_details", {})}
    return json.dumps({**tree, "eye_details": details, **changes})


TREE = _tree(310.0, 225.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no usable entry"),
        (json.dumps({k: v for k, v in TREE.items() if k != "iris_2d"}), "'iris_2d'"),
        (_edit(TREE, eye_details={"look_vec": "(nan, 0, -1, 0)"}), "look_vec"),
        (_edit(TREE, eye_details={"look_vec": "(1e999, 0, -1, 0)"}), "look_vec of shape"),
        (_edit(TREE, eye_details={"look_vec": "(0, 0, 0, 0)"}), "unit vector"),
        (_edit(TREE, eye_details={"iris_size": "big"}), "big"),
        (_edit(TREE, eye_details={"iris_size": "0"}), "iris_size '0'; expected a number above 0"),
        (_edit(TREE, eye_details={"iris_size": "nan"}), "iris_size 'nan'"),
        (_edit(TREE, iris_2d=["(200.0, 200.0, 0.0)"] * 32), "the eye's frame is 0 pixels wide"),
        (_edit(TREE, interior_margin_2d=[]), "interior_margin_2d of shape"),
        (json.dumps(_tree(900.0, 225.0)), r"1\.jpg: found the eye's centre"),
    ],
)
def test_broken_labels_are_named_and_nothing_is_written(tmp_path: Path, content: str, message: str) -> None:
    folder = _folder(tmp_path / "in")
    (folder / "imgs" / "1.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        prepare_unityeyes(folder, tmp_path / "s", progress=False)
    assert error.value.where.stem == "1" and not list(tmp_path.glob("s*"))


def test_lonely_images_and_labels_are_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "in")
    (folder / "imgs" / "2.json").unlink()
    with pytest.raises(DataError, match=r"2\.jpg: found no label beside it"):
        prepare_unityeyes(folder, tmp_path / "s", progress=False)
    (folder / "imgs" / "2.jpg").unlink()
    (folder / "imgs" / "3.jpg").unlink()
    with pytest.raises(DataError, match=r"3\.json: found no image beside it"):
        prepare_unityeyes(folder, tmp_path / "s", progress=False)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".PNG"])
def test_a_folder_is_known_by_its_labels_whatever_its_images_end_in(tmp_path: Path, suffix: str) -> None:
    folder = _folder(tmp_path / "eyes")
    for path in sorted(folder.rglob("*.jpg")):
        path.rename(path.with_suffix(suffix))
    assert is_unityeyes(folder) and not is_unityeyes(tmp_path)


def test_what_macos_leaves_beside_copied_files_is_no_part_of_a_folder(tmp_path: Path) -> None:
    """It sorts before all others: a folder of UnityEyes was once taken for any folder, without crop and labels."""
    folder = _folder(tmp_path / "eyes")
    place = folder / "imgs" if (folder / "imgs").is_dir() else folder
    for path in sorted(place.iterdir()):
        (place / f"._{path.name}").write_bytes(b"\0\5\26\7 no picture and no label")
    for extra in range(8):
        (place / f"._extra{extra}.jpg").write_bytes(b"")
        (place / f"._extra{extra}.json").write_bytes(b"")
    assert is_unityeyes(folder)
    assert all(not path.name.startswith(".") for path in find_images(folder)) and find_images(folder)
