"""Pictures for a study from any two folders of images (and a third as control), or from a run of this project.

One rule: all pictures have the same size and the same number of channels, since a size or a colour would give the truth
away. Only as many as the plan needs are drawn, at random by the study's seed, decoded and encoded again as PNG.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import image_files, read_image
from simgan_core.datasets.folder import centre_window
from simgan_core.images import resize
from simgan_core.study.pictures import UInt8, encode_png
from simgan_core.study.plan import Source, StudySettings, images_needed
from simgan_core.study.records import Picture

if TYPE_CHECKING:
    from simgan_core.datasets.store import Store

LOSSY = {".jpg", ".jpeg", ".webp"}
LARGEST_PX = 1024  # of a side: subjects' browsers keep several pictures in memory


@dataclass(frozen=True)
class Stock:
    """Pictures of each source, and in words where they came from."""

    pictures: dict[Source, list[Picture]]
    origin: dict[str, object]


def from_folders(
    settings: StudySettings,
    real: Path,
    refined: Path,
    synthetic: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    colour: bool | None = None,
) -> Stock:
    """Draw the pictures that a plan needs from folders of image files.

    `size` (H, W) crops all of them to that aspect ratio and resizes them, as trainings and `simgan refine --resize` do;
    without it they must be of one size. `colour`: True reads all as RGB, False all as grey; None keeps what they are,
    which must then be the same.

    Raises:
        DataError: no images, a broken one, different sizes or channels, one folder or picture for two sources.

    """
    folders: dict[Source, Path] = {"real": Path(real), "refined": Path(refined)}
    if settings.control:
        if synthetic is None:
            raise DataError(
                real, found="no folder of unrefined synthetic images", expected=f"{settings.control} for the control",
                remedy="name that folder (--synthetic), or plan without a control block (--control 0)",
            )  # fmt: skip
        folders["synthetic"] = Path(synthetic)
    _check_folders(folders)
    drawn = {source: _drawn(settings, source, image_files(folder)) for source, folder in folders.items()}
    _warn_of_formats(drawn)
    pictures: dict[Source, list[Picture]] = {}
    first: tuple[Path, tuple[int, ...]] | None = None
    seen: dict[str, tuple[Source, Path]] = {}
    for source, files in drawn.items():
        pictures[source] = []
        for file in files:
            image = _read(file, size, colour)
            first = first or (file, image.shape)
            _check_same(file, image.shape, first)
            _check_new(source, file, image, seen)
            pictures[source].append(Picture(file.name, encode_png(image)))
    origin: dict[str, object] = {source: folder.resolve().name for source, folder in folders.items()}
    return Stock(pictures, {"kind": "folders", **origin})


def from_run(settings: StudySettings, run: Path, seed: int = 0) -> Stock:
    """Draw the pictures that a plan needs from a run: its real store, its refined store of `seed`, its renders.

    No eye comes twice, once rendered and once refined.

    Raises:
        FileNotFoundError: no run in that folder.
        DataError: the run has not trained or refined yet.

    """
    from simgan_core.datasets.store import Store
    from simgan_core.run_folder import RunFolder

    opened = RunFolder.read(Path(run))
    real, refined = Store.open(opened.stores / "real"), Store.open(opened.refined(seed))
    stock = from_stores(settings, real, refined, Store.open(opened.stores / "synthetic"))
    origin = {"kind": "run", "data": opened.data, "profile": opened.config.profile, "seed": seed,
              "real_is_standin": not opened.shows_people}  # fmt: skip
    return Stock(stock.pictures, {**stock.origin, **origin})


def from_stores(settings: StudySettings, real: Store, refined: Store, synthetic: Store) -> Stock:
    """Draw the pictures that a plan needs from three stores, the refined one made from the synthetic one.

    Raises:
        DataError: stores of different sizes or channels.

    """
    if len(refined) != len(synthetic):
        raise DataError(
            synthetic.path, found=f"{len(synthetic)} images", expected=f"{len(refined)}, as {refined.path} has",
            remedy="name the store that the refined one was made from",
        )  # fmt: skip
    stores: dict[Source, Store] = {"real": real, "refined": refined, "synthetic": synthetic}
    for store in stores.values():
        if (store.size, store.channels) != (real.size, real.channels):
            raise DataError(
                store.path, found=f"{store.size[0]} x {store.size[1]} pixels, {store.channels} channel(s)",
                expected=f"{real.size[0]} x {real.size[1]} and {real.channels} as in {real.path}",
                remedy="prepare the stores with one size",
            )  # fmt: skip
    needed = images_needed(settings)
    indices: dict[Source, list[int]] = {"real": _sample(settings, "real", len(real), needed["real"])}
    both = _sample(settings, "refined", len(refined), needed["refined"] + needed["synthetic"])
    indices |= {"refined": both[: needed["refined"]], "synthetic": both[needed["refined"] :]}
    pictures: dict[Source, list[Picture]] = {
        source: [
            Picture(f"{source}/{index}", encode_png(image))
            for index, image in zip(indices[source], store.images(indices[source]), strict=True)
        ]
        for source, store in stores.items()
    }
    return Stock(pictures, {"kind": "stores", "checksums": {name: store.checksum for name, store in stores.items()}})


def _drawn(settings: StudySettings, source: Source, files: Sequence[Path]) -> list[Path]:
    return [files[index] for index in _sample(settings, source, len(files), images_needed(settings)[source])]


def _sample(settings: StudySettings, source: Source, found: int, needed: int) -> list[int]:
    """Indices without repetition; all of them where there are too few, which the plan then reports."""
    return random.Random(f"simgan study {settings.seed} {source}").sample(range(found), min(found, needed))


def _read(file: Path, size: tuple[int, int] | None, colour: bool | None) -> UInt8:
    """One image, uint8 [C, H, W]."""
    image = read_image(file, colour=colour is not False)
    if colour is None and bool((image[:, :1] == image).all()):
        image = image[:, :1]  # grey, however it is stored
    elif colour is False:
        image = image[:, :1]
    if size is not None:
        image = resize(centre_window(image, size), size)
    if max(image.shape[-2:]) > LARGEST_PX:
        raise DataError(
            file, found=f"{image.shape[-2]} x {image.shape[-1]} pixels", expected=f"at most {LARGEST_PX} a side",
            remedy="have the images resized (--size HEIGHT WIDTH)",
        )  # fmt: skip
    array: UInt8 = torch.Tensor.numpy(image[0])
    return array


def _check_same(file: Path, shape: tuple[int, ...], first: tuple[Path, tuple[int, ...]]) -> None:
    if shape == first[1]:
        return
    if shape[1:] != first[1][1:]:
        raise DataError(
            file, found=f"{shape[1]} x {shape[2]} pixels",
            expected=f"{first[1][1]} x {first[1][2]} as {first[0]} has, since a size gives the truth away",
            remedy="crop the images alike, or have all resized (--size HEIGHT WIDTH)",
        )  # fmt: skip
    kinds = {1: "a grey image", 3: "a colour image"}
    raise DataError(
        file, found=kinds[shape[0]], expected=f"{kinds[first[1][0]]} as {first[0]}, since colour gives the truth away",
        remedy="use images of one kind, or have all turned grey (--grey)",
    )  # fmt: skip


def _check_folders(folders: Mapping[Source, Path]) -> None:
    """One folder for two sources: nobody can tell its pictures from themselves."""
    first: dict[Path, Source] = {}
    for source, folder in folders.items():
        other = first.setdefault(folder.resolve(), source)
        if other != source:
            raise DataError(
                folder, found=f"the same folder for {other} and {source} images",
                expected="a folder of its own for each", remedy="name the folder of the other images",
            )  # fmt: skip


def _check_new(source: Source, file: Path, image: UInt8, seen: dict[str, tuple[Source, Path]]) -> None:
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    other, twin = seen.setdefault(digest, (source, file))
    if other != source:
        raise DataError(
            file, found=f"the same picture as {twin}", expected="different pictures in different folders",
            remedy="remove one of them; nobody can tell a picture from itself",
        )  # fmt: skip


def _warn_of_formats(drawn: Mapping[Any, Sequence[Path]]) -> None:
    """A codec leaves traces that people learn to see; encoding again does not take them away."""
    lossy = {source: {file.suffix.lower() in LOSSY for file in files} for source, files in drawn.items() if files}
    if len({frozenset(kinds) for kinds in lossy.values()}) > 1:
        warnings.warn(
            "some folders hold JPEG or WebP and others lossless files: compression may give the truth away. Save all "
            "pictures in one format, with the same quality.",
            stacklevel=3,
        )
