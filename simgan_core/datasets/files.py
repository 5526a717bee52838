"""Image files of other people: found in order, decoded in parallel, and reported by name when they are broken."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from simgan_core.datasets.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
Result = TypeVar("Result")


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def image_files(folder: Path) -> list[Path]:
    """The images directly in `folder`, in natural order. Raises DataError if there is no such folder or no image."""
    if not folder.is_dir():
        raise DataError(folder, found="no such folder", expected="a folder of images", remedy="check the path")
    found = [path for path in folder.iterdir() if is_image(path)]
    if not found:
        raise DataError(
            folder,
            found=f"no images among {sum(1 for _ in folder.iterdir())} entries",
            expected=f"files ending in {', '.join(SUFFIXES)}",
            remedy="name the folder that holds the image files themselves",
        )
    return sorted(found, key=natural_order)


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image; hidden ones are not, as macOS leaves `._a.jpg` beside `a.jpg`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image(path: Path, colour: bool) -> Tensor:
    """Decode one image file to uint8 [1, C, H, W], RGB or grey, upright as its EXIF orientation says.

    Raises DataError on a broken or truncated file, and on one of more than 8 bits per channel: which of its levels are
    black and white, only its owner knows.
    """
    data = np.frombuffer(path.read_bytes(), np.uint8) if path.is_file() else np.empty(0, np.uint8)
    image = _decoded(data, cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE))
    if image is not None and image.dtype != np.uint8:
        raise DataError(
            path,
            found=f"{image.dtype} levels, {image.min()} to {image.max()}",
            expected="8 bits per channel",
            remedy="convert it such that its black becomes 0 and its white 255",
        )
    if image is None or _is_truncated(path, data):
        raise DataError(
            path,
            found="no such file" if not path.is_file() else f"{len(data)} bytes that are not a whole image",
            expected="an image file",
            remedy="copy the file again, or remove it (and its label)",
        )
    array = image[None] if image.ndim == 2 else image[:, :, ::-1].transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))[None]


def _decoded(data: NDArray[np.uint8], flags: int) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:  # sizes beyond all memory, as a damaged header may claim
        return None


def _is_truncated(path: Path, data: NDArray[np.uint8]) -> bool:
    """A JPEG or PNG without its end: decoders fill the rest with grey and only warn."""
    ends = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
    end = ends.get(path.suffix.lower())
    if end is None or end in data[-64:].tobytes():
        return False
    try:  # phones write on after the end (motion photos): a decoder that fills nothing decides, at twice the time
        with Image.open(io.BytesIO(data.tobytes())) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True
    return False


def in_parallel(
    function: Callable[[Path], Result], paths: Sequence[Path], *, title: str, progress: bool, chunk: int = 512
) -> Iterator[list[Result]]:
    """Results in order, `chunk` files at a time: decoding runs on all cores, memory stays flat."""
    bar = tqdm(total=len(paths), desc=title, unit="file", disable=not progress)
    with bar, ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(paths), chunk):
            results = list(pool.map(function, paths[start : start + chunk]))
            yield results
            bar.update(len(results))


def listing_sha256(paths: Sequence[Path]) -> str:
    """Fingerprint of many files without reading them: names, lengths and times of change."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()
