"""MPIIGaze (Zhang et al. 2015): real eyes of 15 people at their laptops (section 3.1, 'Data').

Two layouts. *Full*: the data set as published, `Data/Normalized/pNN/dayNN.mat` with both eyes of every frame, and
`Evaluation Subset/sample list for eye image/pNN.txt` with 3,000 lines `dayNN/NNNN.jpg left|right` per person. *Mini*:
`mpiigaze/p00.npz` (labelled images of one person) and, if there, `mpiigaze/unlabelled_mixed_subjects.npz`.

Images are grey, 36 x 60 (H, W), normalised and histogram-equalised as published. Right eyes look like left ones, their
yaw negated: mirrored here for *full*, in the file already for *mini*. Angles in radians; `half` 0 left, 1 right eye.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.spatial.transform import Rotation

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.npz import read_arrays
from simgan_core.gaze import mirror_images, mirror_pitch_yaw, pitch_yaw
from simgan_core.images import FRAME, resize

PERSON = "p00.npz"
UNLABELLED = "unlabelled_mixed_subjects.npz"
NORMALIZED = Path("Data/Normalized")
SAMPLE_LISTS = Path("Evaluation Subset/sample list for eye image")
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
DOWNLOAD = "see data/README.md for where MPIIGaze comes from and how to lay it out"
SAME_LABEL_RAD = 1e-3
"""Labels of one image in two files differ by less."""

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Eyes:
    """Real eyes, all turned into left ones: images uint8 [N, 1, 36, 60], gaze and head pitch/yaw [N, 2] in radians."""

    images: UInt8
    pitch_yaw: Floats
    half: UInt8  # 0 = left eye, 1 = right eye, mirrored
    row: NDArray[np.int64]  # position in the person's list of 3,000 (mini) or in the day's file (full)
    head: Floats | None = None

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: NDArray[Any]) -> Eyes:
        """The eyes of that index or mask."""
        head = None if self.head is None else self.head[index]
        return Eyes(self.images[index], self.pitch_yaw[index], self.half[index], self.row[index], head)

    def annotations(self, person: int, day: int = 0) -> dict[str, NDArray[Any]]:
        """Columns of a labelled store."""
        columns: dict[str, NDArray[Any]] = {"pitch": self.pitch_yaw[:, 0], "yaw": self.pitch_yaw[:, 1]}
        if self.head is not None:
            columns |= {"head_pitch": self.head[:, 0], "head_yaw": self.head[:, 1]}
        count = len(self)
        columns |= {"person": np.full(count, person, np.int16), "day": np.full(count, day, np.int16)}
        return columns | {"half": self.half, "row": self.row}


def _left(images: UInt8, angles: Floats, right: NDArray[np.bool_]) -> tuple[UInt8, Floats]:
    """Mirror the right eyes, negate their yaw."""
    images, angles = images.copy(), angles.copy()
    images[right] = mirror_images(images[right])
    angles[right] = mirror_pitch_yaw(angles[right])
    return images, angles


def _check_frames(path: Path, name: str, images: NDArray[Any], frame: tuple[int, int]) -> UInt8:
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != frame or not len(images):
        raise DataError(
            path,
            found=f"{name} {images.dtype} {images.shape}",
            expected=f"uint8 [N, {frame[0]}, {frame[1]}], N > 0",
            remedy=DOWNLOAD,
        )
    return images


def _check_finite(path: Path, name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape or not np.issubdtype(values.dtype, np.number):
        raise DataError(path, found=f"{name} {values.dtype} {values.shape}", expected=str(shape), remedy=DOWNLOAD)
    bad = np.flatnonzero(~np.isfinite(values.astype(np.float64)).reshape(len(values), -1).all(axis=1))
    if len(bad):
        found = f"{name} of {len(bad)} images that is not finite, the first at {bad[0]}"
        raise DataError(path, found=found, expected="numbers", remedy="correct the labels or leave those images out")


def load_mini(root: Path | str) -> Eyes:
    """The labelled person of `<root>/mpiigaze/p00.npz`, as it lies there: both halves already look like left eyes.

    The file comes from a preparation that mirrors right eyes and negates their yaw before it writes them, so doing it
    here again would turn half of the images round. What shows it without this person's labels: a classifier of
    renders against mirrored renders finds the nose on the left in both halves (80 % and 99 % of the images), and the
    mean yaws of the other 14 persons' two halves have opposite signs in the same list, as two eyes that look at the
    same screen have only after mirroring.

    Raises DataError that names the file and what is wrong.
    """
    path = Path(root) / "mpiigaze" / PERSON
    arrays = read_arrays(path, ("image", "pitch_yaw", "half", "row"), DOWNLOAD, every=True)
    images = _check_frames(path, "image", arrays["image"], FRAME)
    count = len(images)
    _check_finite(path, "pitch_yaw", arrays["pitch_yaw"], (count, 2))
    _check_finite(path, "half", arrays["half"], (count,))
    _check_finite(path, "row", arrays["row"], (count,))
    half, row = arrays["half"].astype(np.uint8), arrays["row"].astype(np.int64)
    if not np.isin(half, (0, 1)).all() or len(np.unique(row)) != count:
        found = "half other than 0 and 1, or a row that occurs twice"
        raise DataError(path, found=found, expected="half 0 or 1, every row once", remedy=DOWNLOAD)
    return Eyes(images[:, None], arrays["pitch_yaw"].astype(np.float32), half, row)


def load_unlabelled(root: Path | str, like: UInt8) -> list[UInt8]:
    """Unlabelled eyes of several people, uint8 [N, 1, H, W] for each size in the file; empty where there is no file.

    It is not known which of them are right eyes. Each is turned so that it correlates better with the mean of `like`
    ([N, 1, H, W], left eyes): lids and nose side decide, no label does. Only the comparison is made at the size of
    `like`: images that were resampled on the way would be softer than all others, and D would see it.
    """
    path = Path(root) / "mpiigaze" / UNLABELLED
    if not path.is_file():
        return []
    sizes = {"image_36x60": (36, 60), "image_35x55": (35, 55)}
    template = like.mean(axis=0, dtype=np.float32)
    return [
        _turned(_check_frames(path, name, images, sizes[name])[:, None], template)
        for name, images in read_arrays(path, list(sizes), DOWNLOAD).items()
    ]


def _turned(images: UInt8, template: NDArray[np.float32]) -> UInt8:
    """The images, mirrored where that makes them more like `template` [1, H, W]."""
    compared = resize(torch.from_numpy(images), (template.shape[-2], template.shape[-1])).numpy()
    right = _correlation(mirror_images(compared), template) > _correlation(compared, template)
    return np.where(right[:, None, None, None], mirror_images(images), images)


def person_of(pitch_yaw_rad: NDArray[np.float32], row: NDArray[np.int64], published: NDArray[np.float32]) -> int | None:
    """Whose images these are: the person of `published` [persons, rows, 2] who has these labels in these rows, or None.

    Read to leave that person out of whatever is made from the published labels, and for nothing else.
    """
    if published.ndim != 3 or not len(row) or row.min() < 0 or row.max() >= published.shape[1]:
        return None
    apart = np.abs(published[:, row] - pitch_yaw_rad).max(axis=(1, 2))
    nearest = int(apart.argmin())
    return nearest if apart[nearest] <= SAME_LABEL_RAD else None


def _correlation(images: UInt8, template: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / (flat.std(axis=1, keepdims=True) + 1e-6)
    pattern = template.ravel() - template.mean()
    return np.asarray(flat @ (pattern / np.linalg.norm(pattern)))


def split_mini(row: NDArray[np.integer[Any]], seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the images to refine towards (no labels used) and of those held back for the test.

    Of rows 2k and 2k + 1 one goes to either part, by a hash of (seed, k). So an image is in the same part whatever else
    its file holds; of the whole list both parts have 1,500 images, 750 of each eye (an eye is 1,500 rows on end).
    """
    test = np.array([_hash_bit(seed, int(r) // 2) != int(r) % 2 for r in row], dtype=bool)
    return np.flatnonzero(~test), np.flatnonzero(test)


def _hash_bit(seed: int, key: int) -> int:
    return hashlib.sha256(f"mpiigaze {seed} {key}".encode()).digest()[0] & 1


def full_root(root: Path | str) -> Path:
    """Where `Data/Normalized` lies: in `root`, or in its folder `MPIIGaze` or `mpiigaze`; DataError if nowhere."""
    for folder in (Path(root), Path(root) / "MPIIGaze", Path(root) / "mpiigaze"):
        if (folder / NORMALIZED).is_dir():
            return folder
    raise DataError(root, found=f"no {NORMALIZED}", expected=f"MPIIGaze/{NORMALIZED}", remedy=DOWNLOAD)


def day_files(root: Path | str, persons: Sequence[int] | None = None) -> dict[int, list[Path]]:
    """Per person the files `Data/Normalized/pNN/dayNN.mat`, in order. Raises DataError if there are none."""
    folder = Path(root) / NORMALIZED
    found = {int(path.name[1:]): path for path in folder.glob("p[0-9][0-9]") if path.is_dir()}
    wanted = sorted(found) if persons is None else list(persons)
    days = {person: sorted(found[person].glob("day[0-9]*.mat")) for person in wanted if person in found}
    missing = [person for person in wanted if not days.get(person)]
    if missing or not wanted:
        names = ", ".join(f"p{person:02d}" for person in missing) or "any person"
        raise DataError(folder, found=f"no days of {names}", expected="pNN/dayNN.mat", remedy=DOWNLOAD)
    return days


def load_day(path: Path) -> tuple[dict[str, Eyes], list[str]]:
    """Both eyes of one `dayNN.mat` ('left', 'right': Eyes) and the frames' file names, which share the rows.

    Raises DataError if the file is truncated, lacks an eye, or holds images or labels of another form.
    """
    expected = "MPIIGaze's structure: filenames, data.left and data.right with image, gaze, pose"
    try:
        content = loadmat(path, struct_as_record=False, squeeze_me=False)
        data = content["data"][0, 0]
        names = [str(np.asarray(name).item()) for name in content["filenames"].ravel()]
        sides = {side: getattr(data, side)[0, 0] for side in SIDES}
        raw = {side: (eye.image, eye.gaze, eye.pose) for side, eye in sides.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, MatReadError, zlib.error) as error:
        found = f"an unreadable file ({type(error).__name__}: {error})"
        raise DataError(path, found=found, expected=expected, remedy=DOWNLOAD) from error
    eyes: dict[str, Eyes] = {}
    for side, (images, gaze, pose) in raw.items():
        images = _check_frames(path, f"{side}.image", images, FRAME)
        _check_finite(path, f"{side}.gaze", gaze, (len(images), 3))
        _check_finite(path, f"{side}.pose", pose, (len(images), 3))
        if len(names) != len(images):
            raise DataError(path, found=f"{len(names)} names, {len(images)} images", expected=expected, remedy=DOWNLOAD)
        right = np.full(len(images), side == "right")
        # The pose is a rotation vector; the face looks along the negative third axis of the head.
        face = -Rotation.from_rotvec(pose).as_matrix()[:, :, 2]
        turned, angles = _left(images[:, None], pitch_yaw(gaze).astype(np.float32), right)
        head = _left(images[:, None], pitch_yaw(face).astype(np.float32), right)[1]
        eyes[side] = Eyes(turned, angles, right.astype(np.uint8), np.arange(len(images)), head)
    return eyes, names


def sample_list(root: Path | str, person: int) -> list[tuple[str, str, str]]:
    """The evaluation subset of one person: (day, file name, side). Raises DataError on a missing file or a bad line."""
    path = Path(root) / SAMPLE_LISTS / f"p{person:02d}.txt"
    expected = "lines 'dayNN/NNNN.jpg left' or 'right'"
    if not path.is_file():
        raise DataError(path, found="no such file", expected=expected, remedy=DOWNLOAD)
    entries: list[tuple[str, str, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match line.replace("/", " ").split():
            case [day, name, ("left" | "right") as side]:
                entries.append((day, name, side))
            case []:
                continue
            case _:
                raise DataError(path, found=f"line {number}: {line!r}", expected=expected, remedy=DOWNLOAD)
    if not entries:
        raise DataError(path, found="an empty list", expected=expected, remedy=DOWNLOAD)
    return entries


def read_full(
    root: Path | str, part: Literal["all", "evaluation", "rest"], persons: Sequence[int] | None = None
) -> Iterator[tuple[int, int, Eyes]]:
    """(person, day, eyes) day by day: all images, the evaluation subset of 3,000 a person, or all but that subset."""
    for person, days in day_files(root, persons).items():
        listed: dict[str, set[tuple[str, str]]] = {}
        for day, name, side in sample_list(root, person) if part != "all" else []:
            listed.setdefault(day, set()).add((name, side))
        unknown = set(listed) - {path.stem for path in days}
        if unknown:
            where = Path(root) / NORMALIZED / f"p{person:02d}"
            raise DataError(
                where, found="no " + ", ".join(sorted(unknown)), expected="all listed days", remedy=DOWNLOAD
            )
        for path in days:
            yield from (
                (person, int(path.stem[3:]), eyes) for eyes in _part_of_day(path, part, listed.get(path.stem, set()))
            )


def _part_of_day(path: Path, part: str, listed: set[tuple[str, str]]) -> Iterator[Eyes]:
    both, names = load_day(path)
    missing = listed - {(name, side) for name in names for side in SIDES}
    if missing:
        found = f"no frame {sorted(missing)[0][0]}"
        raise DataError(path, found=found, expected="every frame of the sample list", remedy=DOWNLOAD)
    for side, eyes in both.items():
        chosen = np.array([(name, side) in listed for name in names])
        mask = {"all": np.ones(len(eyes), bool), "evaluation": chosen, "rest": ~chosen}[part]
        if mask.any():
            yield eyes.subset(mask)
