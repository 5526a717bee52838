"""UnityEyes' output folder: N.jpg beside N.json, in the folder itself or in its `imgs/` (section 3.1, 'Data').

The simulator's camera has x to the right, y *up* and z away from it, and its pixels count from the bottom of the image.
The look vector in MPIIGaze's axes is therefore (x, -y, z), and v = height - y.

Crop: centred on the middle of `interior_margin_2d` (the outline of the lids' inner margin), 5:3 as MPIIGaze's frames,
and by default as wide in mm as the frames that were fitted to MPIIGaze's (docs/simulator_fit.md): the iris, which is of
known size, tells mm per pixel. The paper does not give its crop; re-implementations cut 140 x 84 pixels
(`crop_px=(84, 140)`). The crop is resized to 36 x 60, equalised, and resized to the working size, like the images of
MPIIGaze and of our own simulator. Pixel coordinates have pixel centres at halves.
"""

from __future__ import annotations

import ast
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import in_parallel, listing_sha256, natural_order, read_image
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import StoreWriter
from simgan_core.gaze import pitch_yaw
from simgan_core.images import FRAME, resize
from simgan_core.images import equalise as equalise_images
from simgan_core.simulators.mpiigaze_ranges import MPIIGAZE_RANGES

SUFFIXES = (".jpg", ".jpeg", ".png")
NARROWEST_PX, WIDEST = 16, 4  # of the window about the eye: pixels, and times the image's width
FRAME_WIDTH_MM = MPIIGAZE_RANGES.field_width_normal_mm[0]
IRIS_DIAMETER_MM = 11.2  # of UnityEyes' eyeball, at iris_size 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnityEyesLabel:
    """What a JSON file says; pixels with v from the top of the image, gaze and head in MPIIGaze's axes (radians)."""

    lid: Floats  # [16, 2] u, v of the inner margin
    iris: Floats  # [32, 2]
    gaze: Floats  # [3] unit vector
    head: Floats  # [3] pitch, yaw, roll of the face's normal
    iris_size: float


def find_images(folder: Path | str) -> list[Path]:
    """The images of a UnityEyes folder, in order; each has its JSON file.

    Raises DataError if there are none, or if one of a pair is missing.
    """
    folder = Path(folder)
    place = folder / "imgs" if (folder / "imgs").is_dir() else folder
    expected, remedy = "pairs N.jpg and N.json", "name the folder that UnityEyes wrote, or copy the missing files"
    if not place.is_dir():
        raise DataError(folder, found="no such folder", expected=expected, remedy=remedy)
    # macOS leaves ._1.jpg and ._1.json beside the files that it copies
    images = {path.stem: path for path in place.glob("[!.]*") if path.suffix.lower() in SUFFIXES}
    labels = {path.stem: path for path in place.glob("[!.]*.json")}
    if not images:
        raise DataError(place, found=f"no images and {len(labels)} JSON files", expected=expected, remedy=remedy)
    for stem in sorted(images.keys() ^ labels.keys()):
        lonely = images.get(stem) or labels[stem]
        found = f"no {'label' if stem in images else 'image'} beside it"
        raise DataError(lonely, found=found, expected=expected, remedy=remedy)
    return sorted(images.values(), key=natural_order)


def read_label(path: Path, height: int) -> UnityEyesLabel:
    """Read a JSON file of an image `height` pixels high. Raises DataError that names the file and the entry."""

    def fail(found: str, expected: str) -> DataError:
        remedy = "render the image again with UnityEyes, or remove image and label"
        return DataError(path, found=found, expected=expected, remedy=remedy)

    try:
        tree = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise fail(f"no JSON ({error})", "UnityEyes' JSON") from error

    def vectors(entry: Any, name: str, length: int) -> Floats:
        try:
            values = np.array([ast.literal_eval(text) for text in entry], np.float64)
        except (ValueError, SyntaxError, TypeError) as error:
            raise fail(f"{name} that is not numbers", f"vectors of {length}") from error
        if values.ndim != 2 or values.shape[1] < length or not np.isfinite(values).all():
            raise fail(f"{name} of shape {values.shape} or not finite", f"finite vectors of {length}")
        return values[:, :length]

    try:
        details, margin, iris = tree["eye_details"], tree["interior_margin_2d"], tree["iris_2d"]
        look, size, head = details["look_vec"], float(details["iris_size"]), tree["head_pose"]
    except (KeyError, TypeError, ValueError) as error:
        raise fail(f"no usable entry {error}", "interior_margin_2d, iris_2d, eye_details, head_pose") from error
    if not 0 < size < math.inf:
        raise fail(f"iris_size {details['iris_size']!r}", "a number above 0")
    gaze = vectors([look], "look_vec", 3)[0] * (1.0, -1.0, 1.0)
    if np.linalg.norm(gaze) < 0.5:
        raise fail(f"look_vec {look}", "a unit vector")
    outline, circle = vectors(margin, "interior_margin_2d", 2), vectors(iris, "iris_2d", 2)
    for points in (outline, circle):
        points[:, 1] = height - points[:, 1]
    angles = _head(vectors([head], "head_pose", 3)[0])
    return UnityEyesLabel(outline, circle, gaze / np.linalg.norm(gaze), angles, size)


def _head(degrees: Floats) -> Floats:
    """UnityEyes' camera angles (pitch 0 to 360, yaw about 180) as pitch, yaw, roll of the face's normal, radians."""
    wrapped = (np.array([-degrees[0], 180.0 - degrees[1], degrees[2]]) + 180.0) % 360.0 - 180.0
    return np.asarray(np.deg2rad(wrapped), np.float64)


def crop_width(label: UnityEyesLabel) -> float:
    """Width in pixels of the window FRAME_WIDTH_MM wide; the longest chord of the iris outline is its diameter."""
    chords = np.linalg.norm(label.iris[:, None] - label.iris[None], axis=-1)
    px_per_mm = float(chords.max()) / (IRIS_DIAMETER_MM * label.iris_size)
    return px_per_mm * FRAME_WIDTH_MM


def read_eye(
    path: Path, *, size: tuple[int, int], colour: bool, crop_px: tuple[int, int] | None, equalise: bool
) -> tuple[Tensor, dict[str, Any]]:
    """One image, cropped, equalised and resized to uint8 [1, C, H, W], and its annotations in pixels of that image."""
    image = read_image(path, colour)
    height, width = image.shape[-2:]
    label = read_label(path.with_suffix(".json"), height)
    centre = (label.lid.min(axis=0) + label.lid.max(axis=0)) / 2
    if not (0 <= centre[0] < width and 0 <= centre[1] < height):
        raise DataError(
            path,
            found=f"the eye's centre at {centre.round()} in an image of {width} x {height}",
            expected="an eye inside the image",
            remedy="the JSON file belongs to another image: remove the pair",
        )
    wide = crop_width(label)
    if crop_px is None and not NARROWEST_PX <= wide <= WIDEST * width:
        raise DataError(
            path.with_suffix(".json"),
            found=f"an iris from which the eye's frame is {wide:.0f} pixels wide, in an image of {width} x {height}",
            expected=f"{NARROWEST_PX} pixels to {WIDEST} times the image",
            remedy="render the image again with UnityEyes, remove image and label, or name the crop (crop_px)",
        )
    rows, columns = crop_px or (max(2, round(wide * FRAME[0] / FRAME[1])), max(2, round(wide)))
    frame = resize(_window(image, centre, rows, columns), FRAME)
    final = resize(equalise_images(frame) if equalise else frame, size)
    corner, scale = centre - np.array([columns, rows]) / 2, np.array([size[1] / columns, size[0] / rows])
    iris, lid = (label.iris - corner) * scale, (label.lid - corner) * scale
    angles = pitch_yaw(label.gaze)
    annotations: dict[str, Any] = {"file": path.name, "pitch": angles[0], "yaw": angles[1]}
    annotations |= dict(zip(("head_pitch", "head_yaw", "head_roll"), label.head, strict=True))
    annotations |= dict(zip(("gaze_x", "gaze_y", "gaze_z"), label.gaze, strict=True))
    annotations |= dict(zip(("pupil_u", "pupil_v"), iris.mean(axis=0), strict=True))
    return final, annotations | {"iris_landmarks": iris.ravel(), "lid_landmarks": lid.ravel()}


def _window(image: Tensor, centre: Floats, rows: int, columns: int) -> Tensor:
    """Cut rows x columns about `centre` (u, v), interpolating; beyond the image its border is repeated."""
    array = np.ascontiguousarray(image[0].numpy().transpose(1, 2, 0))
    u, v = float(centre[0]) - 0.5, float(centre[1]) - 0.5  # OpenCV has pixel centres at whole numbers
    cut = cv2.getRectSubPix(array, (columns, rows), (u, v))
    return torch.from_numpy(np.ascontiguousarray(cut.reshape(rows, columns, -1).transpose(2, 0, 1)))[None]


def prepare_unityeyes(
    folder: Path | str,
    out: Path | str,
    *,
    size: tuple[int, int] = (35, 55),
    colour: bool = False,
    crop_px: tuple[int, int] | None = None,
    equalise: bool = True,
    limit: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Store:
    """Make a labelled store of a UnityEyes folder (at most `limit` images, in order).

    Raises DataError that names the file if anything is missing, broken or not finite; then nothing is written.
    """
    folder = Path(folder)
    files = find_images(folder)[:limit]
    options: dict[str, Any] = {"size": size, "colour": colour, "crop_px": crop_px, "equalise": equalise}
    read = functools.partial(read_eye, **options)
    provenance = unityeyes_provenance(folder, limit=limit, **options)
    channels = 3 if colour else 1
    with StoreWriter(out, size=size, channels=channels, provenance=provenance, overwrite=overwrite) as writer:
        for eyes in in_parallel(read, files, title="UnityEyes", progress=progress):
            columns = {name: np.array([labels[name] for _, labels in eyes]) for name in eyes[0][1]}
            columns = {name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in columns.items()}
            writer.append(torch.cat([image for image, _ in eyes]), columns)
    return Store.open(out)


def unityeyes_provenance(folder: Path, *, limit: int | None = None, **options: Any) -> dict[str, object]:
    """What the store was made from: compared before a store is reused."""
    files = find_images(folder)[:limit]
    both = files + [path.with_suffix(".json") for path in files]
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    return {"adapter": "unityeyes", "images": len(files), "files": listing_sha256(both), **plain}
