"""NYU Hand Pose (Tompson et al. 2014): real depth hands of three Kinects and their synthetic doubles (section 3.2).

Layout, as published: `<split>/depth_K_NNNNNNN.png` and `<split>/synthdepth_K_NNNNNNN.png` for views K = 1 (frontal), 2
and 3 and frames from 0000001, and `<split>/joint_data.mat`. Splits: `train` 72,757 frames, `test` 8,252. Depth in mm is
G * 256 + B; where the sensor saw nothing the published files hold 2,001, which reads as 0 here.

As the paper does, the pixels of a real frame are kept where its synthetic double shows the hand; background is 0, the
foreground depth - 2000 mm (`hand_crop.paper_values`). The crop is the cube of 300 mm about the joints, coded in 8 bits
by an affine map of those values (`hand_crop.encode_depth`), as for rendered hands.
"""

from __future__ import annotations

import functools
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import in_parallel, listing_sha256, read_image
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import StoreWriter
from simgan_core.hand_crop import (
    NYU_14_OF_36,
    NYU_CAMERA,
    PAPER_BACKGROUND_MM,
    crop_frame,
    crop_uvd,
    cube_about,
    encode_depth,
    nyu_21,
    to_crop_pixels,
    uvd_to_xyz,
)

Split = Literal["train", "test"]
Kind = Literal["real", "synthetic"]
FRAMES: dict[Split, int] = {"train": 72_757, "test": 8_252}
VIEWS = (1, 2, 3)
JOINTS = "joint_data.mat"
PREFIX: dict[Kind, str] = {"real": "depth", "synthetic": "synthdepth"}
DOWNLOAD = "see data/README.md for where NYU Hand Pose comes from and how to lay it out"
CHUNK = 64  # frames of 480 x 640 decoded at a time
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frames:
    """What is to be cut out: files of one kind, and the joints of each, uvd [N, 36, 3] in frame pixels and mm."""

    files: list[Path]
    uvd: Tensor
    view: NDArray[np.int64]
    frame: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.files)


def nyu_root(root: Path | str) -> Path:
    """Where `train` and `test` lie: in `root`, or in its folder `nyu` or `NYU`; DataError if nowhere."""
    for folder in (Path(root), Path(root) / "nyu", Path(root) / "NYU"):
        if (folder / "train" / JOINTS).is_file() or (folder / "test" / JOINTS).is_file():
            return folder
    raise DataError(root, found="no joint_data.mat", expected=f"nyu/train/{JOINTS} and nyu/test", remedy=DOWNLOAD)


def read_depth(path: Path) -> Tensor:
    """Depth of one published PNG, float32 [480, 640] in mm; 0 where there is none. DataError names a broken file."""
    pixels = read_image(path, colour=True)[0].to(torch.int32)
    if tuple(pixels.shape[1:]) != NYU_CAMERA.frame:
        height, width = pixels.shape[1:]
        raise DataError(path, found=f"{height} x {width} pixels", expected="480 x 640", remedy=DOWNLOAD)
    depth = (pixels[1] * 256 + pixels[2]).to(torch.float32)
    if not bool(((depth > 0) & (depth < PAPER_BACKGROUND_MM)).any()):
        found = f"no depth between 0 and {PAPER_BACKGROUND_MM:.0f} mm"
        raise DataError(path, found=found, expected="depth in mm as G * 256 + B", remedy=DOWNLOAD)
    return torch.where(depth < PAPER_BACKGROUND_MM, depth, 0.0)


def load_joints(path: Path) -> Tensor:
    """Joints of `joint_data.mat`, float32 [views, frames, 36, 3]: frame pixels and mm. DataError on any other form."""
    expected = "joint_uvd [3 views, frames, 36 joints, 3]"
    if not path.is_file():
        raise DataError(path, found="no such file", expected=expected, remedy=DOWNLOAD)
    try:
        uvd = np.asarray(loadmat(path, variable_names=["joint_uvd"])["joint_uvd"])
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError, MatReadError, zlib.error) as error:
        found = f"an unreadable file ({type(error).__name__}: {error})"
        raise DataError(path, found=found, expected=expected, remedy=DOWNLOAD) from error
    if uvd.ndim != 4 or uvd.shape[0] != len(VIEWS) or uvd.shape[2:] != (36, 3) or not uvd.shape[1]:
        raise DataError(path, found=f"joint_uvd {uvd.shape}", expected=expected, remedy=DOWNLOAD)
    bad = ~(np.isfinite(uvd).all(axis=(2, 3)) & (uvd[..., 2] > 0).all(axis=2))
    if bad.any():
        view, frame = np.argwhere(bad)[0] + 1
        found = f"{int(bad.sum())} hands with joints that are not finite or not in front of the camera, the first: "
        remedy = "correct them, or leave those frames out"
        raise DataError(path, found=f"{found}view {view}, frame {frame}", expected="pixels and mm", remedy=remedy)
    return torch.from_numpy(uvd.astype(np.float32))


def find_frames(
    root: Path | str, split: Split, kind: Kind, views: Sequence[int] = VIEWS, rows: Sequence[int] | None = None
) -> Frames:
    """The files of a split, frame by frame with its views together; `rows` (from 0) limits the frames.

    Raises DataError if the joints cannot be read or a file is missing (of real frames: its synthetic double too).
    """
    unknown = [view for view in views if view not in VIEWS]
    if unknown or not views:
        raise ValueError(f"views {list(views)} found; some of 1 (frontal), 2 and 3 expected")
    folder = nyu_root(root) / split
    uvd = load_joints(folder / JOINTS)
    if uvd.shape[1] != FRAMES[split]:
        LOGGER.warning("%s: joints of %d frames; the published split has %d", folder, uvd.shape[1], FRAMES[split])
    chosen = range(uvd.shape[1]) if rows is None else rows
    if len(chosen) == 0 or min(chosen) < 0 or max(chosen) >= uvd.shape[1]:
        raise ValueError(f"{folder}: rows {list(chosen)[:3]}… found; some of 0 to {uvd.shape[1] - 1} expected")
    pairs = [(row, view) for row in chosen for view in views]
    files = [folder / _name(kind, view, row) for row, view in pairs]
    _check_present(folder, files if kind == "synthetic" else [*files, *map(_double, files)])
    index = torch.tensor(pairs)
    frame, view = (index[:, k].numpy().astype(np.int64) for k in range(2))
    return Frames(files, uvd[index[:, 1] - 1, index[:, 0]], view, frame)


def _name(kind: Kind, view: int, row: int) -> str:
    return f"{PREFIX[kind]}_{view}_{row + 1:07d}.png"


def _double(real: Path) -> Path:
    """The synthetic double of a real frame."""
    return real.with_name(f"synth{real.name}")


def _check_present(folder: Path, files: Sequence[Path]) -> None:
    there = {path.name for path in folder.glob("*depth_?_*.png")}
    missing = [path for path in files if path.name not in there]
    if missing:
        found = f"no such file, and {len(missing) - 1} of {len(files)} others missing"
        raise DataError(missing[0], found=found, expected="a depth frame for each row of joints", remedy=DOWNLOAD)


def prepare_nyu(
    root: Path | str,
    out: Path | str,
    *,
    split: Split,
    kind: Kind,
    views: Sequence[int] = VIEWS,
    size: tuple[int, int] = (224, 224),
    rows: Sequence[int] | None = None,
    labels: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> Store:
    """Cut the hands of a split out of their frames into a store, frame by frame; memory stays flat.

    Columns as for rendered hands: `uvd` (14 joints, crop pixels and mm), `frame_uvd`, `xyz`, `joints_36` (camera frame,
    mm, y down) and `uvd_36`, `joints_21` and `uvd_21` (our reading of the 36, see `hand_crop.nyu_21`), `cube`, `view`
    (0, 1, 2), `pose` (frame, from 0). Without `labels` there is no column at all.

    Raises DataError that names the first missing or broken file; then nothing is written.
    """
    frames = find_frames(root, split, kind, views, rows)
    cut = functools.partial(_read_hand, kind=kind)
    with StoreWriter(
        out,
        size=size,
        provenance=nyu_provenance(frames, split=split, kind=kind, views=list(views), size=list(size), labels=labels),
        overwrite=overwrite,
    ) as writer:
        start = 0
        for depths in in_parallel(cut, frames.files, title=f"NYU {split} {kind}", progress=progress, chunk=CHUNK):
            part = slice(start, start + len(depths))
            start += len(depths)
            uvd = frames.uvd[part]
            cube = cube_about(uvd[:, NYU_14_OF_36])
            crop = crop_frame(torch.stack(depths), cube, size)
            _check_hands(crop, frames.files[part])
            annotations = _annotations(uvd, cube, size, frames.view[part], frames.frame[part])
            writer.append(encode_depth(crop, cube), annotations if labels else {})
    return Store.open(out)


def nyu_provenance(frames: Frames, **options: object) -> dict[str, object]:
    """What the store was made from: compared before a store is reused."""
    return {"adapter": "nyu", "images": len(frames), "files": listing_sha256(frames.files), **options}


def _read_hand(path: Path, *, kind: Kind) -> Tensor:
    """Depth of the hand alone; of a real frame the pixels where its synthetic double shows the hand."""
    depth = read_depth(path)
    return depth if kind == "synthetic" else mask_depth(depth, read_depth(_double(path)))


def mask_depth(real: Tensor, synthetic: Tensor) -> Tensor:
    """Depth of `real` where `synthetic` shows a hand, 0 elsewhere; frames of the same shape, mm."""
    return torch.where(synthetic > 0, real, 0.0)


def _check_hands(crops: Tensor, files: Sequence[Path]) -> None:
    empty = (crops > 0).flatten(1).sum(dim=1) == 0
    if bool(empty.any()):
        raise DataError(
            files[int(empty.nonzero()[0])],
            found="no depth within the cube about the joints",
            expected="a hand where joint_data.mat says",
            remedy="check that frames and joints belong together, or leave that frame out",
        )


def _annotations(
    uvd: Tensor, cube: Tensor, size: tuple[int, int], view: NDArray[np.int64], frame: NDArray[np.int64]
) -> dict[str, Any]:
    kept, xyz = uvd[:, NYU_14_OF_36], uvd_to_xyz(uvd)
    common = nyu_21(xyz)
    columns = {
        "uvd": to_crop_pixels(kept, cube, size),
        "frame_uvd": kept,
        "xyz": uvd_to_xyz(kept),
        "joints_36": xyz,
        "joints_21": common,
        "uvd_36": to_crop_pixels(uvd, cube, size),
        "uvd_21": crop_uvd(common, cube, size),
        "cube": cube,
    }
    flat: dict[str, Any] = {name: values.flatten(1).numpy().astype(np.float32) for name, values in columns.items()}
    return flat | {"view": view - 1, "pose": frame}
