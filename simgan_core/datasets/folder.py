"""Bring your own: any folder of images, grey or colour, of any size.

Rule: the largest centred window of the target's aspect ratio is cut out and resized bilinearly ('crop'), or the whole
image is resized and its aspect ratio changes ('stretch'). An optional `labels.csv` (column `file`, then any columns of
numbers or of words, gaze as `pitch` and `yaw` in radians) becomes annotations.

`equalise` treats images as MPIIGaze's and our renders are, down to the order of steps: where the target has about the
aspect ratio of MPIIGaze's frame, a window of the frame's is cut out and resized to 36 x 60 pixels, the histogram is
equalised there, and the frame is resized to the target. Cut at 35:55 and equalised afterwards, an iris would be a
twentieth rounder than in a render, and the histogram flat where a render's is not: a discriminator finds both.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import image_files, in_parallel, listing_sha256, read_image
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import LARGEST_RAD, StoreWriter, check_radians
from simgan_core.images import FRAME, resize
from simgan_core.images import equalise as equalise_images

Rule = Literal["crop", "stretch"]
LABELS = "labels.csv"
LIKE_FRAME = 0.1
"""Difference of the logarithms of two aspect ratios below which a target's is about the frame's; 35:55 is 0.06 off."""
NO_VALUE = ("", "na", "nan", "n/a", "none", "null", "inf", "-inf", "?", "-")
"""What stands, in small letters, where a column that is not of words lacks its value."""


def prepare_folder(
    folder: Path | str,
    out: Path | str,
    *,
    size: tuple[int, int] = (35, 55),
    colour: bool = False,
    rule: Rule = "crop",
    equalise: bool = False,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Store:
    """Make a store of the images in `folder`; column `file` holds their names, further ones come from `labels.csv`.

    `labels` names the columns that are taken where there are such, () none; default: all. The others are not looked at.
    Raises DataError that names the file if there is no image, one cannot be decoded, or a label is missing, NaN or no
    angle; then nothing is written.
    """
    folder = Path(folder)
    files = image_files(folder)
    columns = _labels(folder / LABELS, files, labels)
    read = functools.partial(_read, size=size, colour=colour, rule=rule, equalise=equalise)
    with StoreWriter(
        out,
        size=size,
        channels=3 if colour else 1,
        provenance=folder_provenance(folder, size=size, colour=colour, rule=rule, equalise=equalise, labels=labels),
        overwrite=overwrite,
    ) as writer:
        start = 0
        for images in in_parallel(read, files, title="images", progress=progress):
            batch = torch.cat(images)
            part = slice(start, start + len(batch))
            start += len(batch)
            annotations: dict[str, Any] = {"file": [path.name for path in files[part]]}
            annotations |= {name: values[part] for name, values in columns.items()}
            writer.append(batch, annotations)
    return Store.open(out)


def folder_provenance(folder: Path, **options: object) -> dict[str, object]:
    """What the store was made from: compared before a store is reused."""
    files = image_files(folder)
    labels = [folder / LABELS] if (folder / LABELS).is_file() and options.get("labels") != () else []
    return {"adapter": "folder", "images": len(files), "files": listing_sha256(files + labels), **_plain(options)}


def _plain(options: dict[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _read(path: Path, *, size: tuple[int, int], colour: bool, rule: Rule, equalise: bool) -> Tensor:
    image = read_image(path, colour)
    frame = FRAME if equalise and _like_frame(size) else size
    image = resize(centre_window(image, frame) if rule == "crop" else image, frame)
    return resize(equalise_images(image), size) if equalise else image


def _like_frame(size: tuple[int, int]) -> bool:
    return abs(math.log(size[0] / size[1] * FRAME[1] / FRAME[0])) < LIKE_FRAME


def centre_window(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest centred window of [B, C, H, W] whose aspect ratio is that of `size`, to the nearest pixel."""
    height, width = images.shape[-2:]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return images[..., top : top + rows, left : left + columns]


def _labels(path: Path, files: list[Path], wanted: Sequence[str] | None) -> dict[str, Any]:
    """Columns of labels.csv in the order of `files`, `wanted` ones alone if named; empty without such a file."""
    if not path.is_file() or wanted == ():
        return {}
    table = _table(path)
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise _wrong(path, f"several rows of {twice.iloc[0]}", "one row per image")
    table = table.set_index("file")
    missing = [file.name for file in files if file.name not in table.index]
    if missing:
        raise _wrong(path, f"no row for {len(missing)} of {len(files)} images, the first {missing[0]}", "a label each")
    table = table.loc[[file.name for file in files]]
    taken = [name for name in table.columns if wanted is None or name in wanted]
    return {name: _values(path, name, table[name]) for name in taken}


def _values(path: Path, name: str, column: pd.Series[str]) -> NDArray[Any]:
    """One column as finite numbers, or as it stands if it has only words, such as names of people; gaze never has."""
    values = pd.to_numeric(column, errors="coerce")
    if name not in LARGEST_RAD and values.isna().all() and not column.str.lower().isin(NO_VALUE).any():
        return column.to_numpy(dtype=str)
    finite = np.isfinite(values.to_numpy(np.float64))
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        found = f"{name} = {column.iloc[row]!r} of {column.index[row]}"
        raise _wrong(path, found, "a finite number", "correct it, or leave out that image or that column")
    check_radians(path, name, values.to_numpy())
    return values.to_numpy()


def _table(path: Path) -> pd.DataFrame:
    """The rows of labels.csv as text, without columns that have no name, such as an index that pandas wrote.

    Blanks around names and values are no part of them.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
            named = [name for name in names if name]
            if "file" not in named or len(set(named)) < len(named):
                raise _wrong(path, f"columns {names}", "distinct names, 'file' among them")
            rows = [[value.strip() for value in row] for row in csv.reader(file) if any(map(str.strip, row))]
    except (csv.Error, UnicodeDecodeError) as error:
        raise _wrong(path, f"no table ({error})", "comma separated values in UTF-8") from error
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise _wrong(
                path, f"{len(row)} values in row {number} ({', '.join(row)})", f"{len(names)}, as named on top"
            )
    return pd.DataFrame(rows, columns=names, dtype=str)[named]


def _wrong(path: Path, found: str, expected: str, remedy: str = "") -> DataError:
    usual = "give every image one row: its name in the column 'file', numbers in the others"
    return DataError(path, found=found, expected=expected, remedy=remedy or usual)
