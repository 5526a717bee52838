"""Refine images with a trained R: arrays, stores and folders of your own; labels go along unchanged.

R moves nothing, so that what was true of a synthetic image stays true of the refined one (section 2.1). Shapes: N
images, C H W. Results appear whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from simgan_core.allocator import keep_freed_memory
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import SUFFIXES, is_image, read_image
from simgan_core.datasets.folder import centre_window
from simgan_core.datasets.open_images import is_unityeyes
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.images import check_images, resize, tensor_of, to_float, to_uint8
from simgan_core.models import Refiner, to_channels_last
from simgan_core.precision import autocast, resolve_device

JPEG_QUALITY = 95
FOLDER_BATCH = 256
"""Pictures of a folder that are in memory at once."""
CPU_BATCH = 32
"""Most images that go through R at once on a CPU: more of them leave its cache, at half the speed."""
UInt8 = NDArray[np.uint8]


@torch.no_grad()
def refine_images(refiner: Refiner, images: UInt8, batch: int = 256) -> UInt8:
    """Refined images of uint8 [N, C, H, W], same shape; computed where the refiner's weights are.

    Raises TypeError or ValueError for images of another type, shape, size or number of channels than R was trained on.
    """
    check_images(tensor_of(images[:1]), dtype="uint8")
    _check_kind(refiner, images.shape[1], (images.shape[2], images.shape[3]), "the images")
    keep_freed_memory()
    device = next(refiner.parameters()).device
    batch = min(batch, CPU_BATCH) if device.type == "cpu" else batch
    to_channels_last(refiner)  # one layout, one kernel: in bf16 another one rounds some pixels to the next grey level
    refined = []
    for start in range(0, len(images), batch):
        array = np.ascontiguousarray(images[start : start + batch])
        with autocast(device):
            out = refiner(to_float(torch.from_numpy(array).to(device)))
        refined.append(to_uint8(out.float()).cpu().numpy())
    return np.concatenate(refined) if refined else np.zeros_like(images)


def refine_store(
    refiner: Refiner, store: Store, out: Path, batch: int = 256, progress: bool = True, device: str = "auto"
) -> Store:
    """Write the refined images of a store with its annotations to a new store at `out`; memory stays flat.

    Raises:
        ValueError: images of another size than the refiner was trained on, or grey for colour, or colour for grey.
        FileExistsError: `out` exists.

    """
    _check_kind(refiner, store.channels, store.size, str(store.path))
    refiner = refiner.to(resolve_device(device))
    details = {"refined_from": store.provenance, "refined_from_checksum": store.checksum}
    bar = tqdm(total=len(store), desc="refine", unit="image", disable=not progress)
    with bar, StoreWriter(out, size=store.size, channels=store.channels, provenance=details) as writer:
        start = 0
        for annotations, count in _annotation_batches(store, batch):
            images = np.ascontiguousarray(store.images(slice(start, start + count)))
            writer.append(refine_images(refiner, images, batch), annotations)
            start += count
            bar.update(count)
    return Store.open(out)


def refine_folder(
    refiner: Refiner,
    folder_in: Path,
    folder_out: Path,
    *,
    resize_images: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Path:
    """Refine every image of a folder, file names kept; all other files (labels) are copied, subfolders too.

    Images in subfolders are refined where the folder itself has none (UnityEyes' `imgs/`). Beside images of its own
    they are copied: training does not see them, and they may be masks or depth maps.

    Pictures are read as for training (`read_image`), upright as their EXIF orientation says, and written so. A grey
    refiner turns colour images grey. Images must have the size that the refiner was trained on, as labels in pixels
    would no longer hold; `resize_images` crops and resizes them as `open_images` does for training, where no such
    labels matter.

    Raises:
        DataError: no images, an unreadable image, one of another size, or `resize_images` of a UnityEyes folder, whose
            crop for training is another; before anything is written.
        FileExistsError: `folder_out` exists and is not empty.

    """
    folder_in, folder_out = Path(folder_in), Path(folder_out)
    if folder_out.exists() and any(folder_out.iterdir()):
        raise FileExistsError(f"{folder_out} exists and is not empty; remove it, or name another place.")
    if folder_in.resolve() == folder_out.resolve() or folder_in.resolve() in folder_out.resolve().parents:
        raise ValueError(f"{folder_out} lies in {folder_in}; name a place outside the folder of images.")
    files = sorted(path for path in folder_in.rglob("*") if path.is_file()) if folder_in.is_dir() else []
    pictures = _pictures(folder_in, files)
    _check_pictures(folder_in, pictures, None if resize_images else refiner.size, refiner.config.channels == 3)
    if resize_images and is_unityeyes(folder_in):
        raise DataError(
            folder_in,
            found="a UnityEyes folder",
            expected="a store of it, cropped about the eye and equalised as for training",
            remedy="make one by simgan data import IN STORE, then simgan refine RUN STORE OUT",
        )
    partial = folder_out.with_name(f".{folder_out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    places = {path: partial / path.relative_to(folder_in) for path in files}
    try:
        for place in places.values():
            place.parent.mkdir(parents=True, exist_ok=True)
        for path in set(files).difference(pictures):
            shutil.copyfile(path, places[path])
        _refine_pictures(refiner.to(resolve_device(device)), {path: places[path] for path in pictures}, progress)
        if folder_out.exists():
            folder_out.rmdir()
        partial.rename(folder_out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder_out


def _pictures(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The images among `files` of a folder that are to be refined: those that training takes from it."""
    pictures = [path for path in files if is_image(path)]
    own = [path for path in pictures if path.parent == folder]
    return own if own and not is_unityeyes(folder) else pictures


def _refine_pictures(refiner: Refiner, places: Mapping[Path, Path], progress: bool) -> None:
    """Refine the image of each file and write it to its place."""
    paths = list(places)
    with tqdm(total=len(paths), desc="refine", unit="image", disable=not progress) as bar:
        for start in range(0, len(paths), FOLDER_BATCH):
            batch = paths[start : start + FOLDER_BATCH]
            refined = refine_images(refiner, np.concatenate([_read_picture(path, refiner) for path in batch]))
            for path, image in zip(batch, refined, strict=True):
                _write_picture(image, places[path])
            bar.update(len(batch))


def _check_kind(refiner: Refiner, channels: int, size: tuple[int, int], where: str) -> None:
    expected = refiner.config.channels
    if channels != expected:
        raise ValueError(
            f"{where}: found {channels} channel(s); the refiner was trained on {expected}. "
            "Convert the images, or train a refiner on such images."
        )
    if size != tuple(refiner.size):
        raise ValueError(
            f"{where}: found {size[0]} x {size[1]} pixels; the refiner was trained on {refiner.size[0]} x "
            f"{refiner.size[1]}. Resize the images, or train a refiner on such images."
        )


def _annotation_batches(store: Store, batch: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Annotations of consecutive images and how many they are, read piece by piece."""
    files = sorted(store.path.glob("annotations-*.parquet"))
    if not files:
        for start in range(0, len(store), batch):
            yield {}, min(batch, len(store) - start)
    for file in files:
        with pq.ParquetFile(file) as table:
            for piece in table.iter_batches(batch_size=batch):
                names = piece.schema.names  # lists of equal length become one array [B, k]
                yield {name: np.asarray(piece.column(name).to_pylist()) for name in names}, len(piece)


def _check_pictures(folder: Path, pictures: list[Path], size: tuple[int, int] | None, colour: bool) -> None:
    if not pictures:
        found = "no image files" if folder.is_dir() else "no such folder"
        raise DataError(folder, found=found, expected=", ".join(SUFFIXES), remedy="name a folder of images")
    for path in pictures:
        shape = tuple(read_image(path, colour).shape[-2:])
        if size is not None and shape != size:
            raise DataError(
                path,
                found=f"{shape[0]} x {shape[1]} pixels",
                expected=f"{size[0]} x {size[1]}, which the refiner was trained on",
                remedy="let --resize crop and resize them as for training (labels in pixels then no longer hold), or "
                "refine a store of them, made by simgan data import",
            )


def _read_picture(path: Path, refiner: Refiner) -> UInt8:
    """uint8 [1, C, H, W] in the refiner's channels and size."""
    image: Tensor = read_image(path, colour=refiner.config.channels == 3)
    fitted: UInt8 = resize(centre_window(image, refiner.size), refiner.size).numpy()
    return fitted


def _write_picture(image: UInt8, path: Path) -> None:
    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(path, quality=JPEG_QUALITY)
    elif path.suffix.lower() == ".webp":
        picture.save(path, lossless=True)
    else:
        picture.save(path)
