"""Bring your own: any folder of images, grey or colour, of any size.

Rule: the largest centred window of the target's aspect ratio is cut out and resized bilinearly ('crop'), or the whole
image is resized and its aspect ratio changes ('stretch'). An optional `labels.csv` (column `file`, then any numbers,
gaze as `pitch` and `yaw` in radians) becomes annotations. `equalise` treats the grey levels as MPIIGaze does.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.files import image_files, in_parallel, listing_sha256, read_image
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import StoreWriter
from simgan_core.images import equalise as equalise_images
from simgan_core.images import resize

Rule = Literal["crop", "stretch"]
LABELS = "labels.csv"


def prepare_folder(
    folder: Path | str,
    out: Path | str,
    *,
    size: tuple[int, int] = (35, 55),
    colour: bool = False,
    rule: Rule = "crop",
    equalise: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Store:
    """Make a store of the images in `folder`; column `file` holds their names, further ones come from `labels.csv`.

    Raises DataError that names the file if there is no image, one cannot be decoded, or a label is missing or NaN; then
    nothing is written.
    """
    folder = Path(folder)
    files = image_files(folder)
    labels = _labels(folder / LABELS, files)
    read = functools.partial(_read, size=size, colour=colour, rule=rule)
    with StoreWriter(
        out,
        size=size,
        channels=3 if colour else 1,
        provenance=folder_provenance(folder, size=size, colour=colour, rule=rule, equalise=equalise),
        overwrite=overwrite,
    ) as writer:
        start = 0
        for images in in_parallel(read, files, title="images", progress=progress):
            batch = torch.cat(images)
            part = slice(start, start + len(batch))
            start += len(batch)
            annotations: dict[str, Any] = {"file": [path.name for path in files[part]]}
            annotations |= {name: values[part] for name, values in labels.items()}
            writer.append(equalise_images(batch) if equalise else batch, annotations)
    return Store.open(out)


def folder_provenance(folder: Path, **options: object) -> dict[str, object]:
    """What the store was made from: compared before a store is reused."""
    files = image_files(folder)
    labels = [folder / LABELS] if (folder / LABELS).is_file() else []
    return {"adapter": "folder", "images": len(files), "files": listing_sha256(files + labels), **_plain(options)}


def _plain(options: dict[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _read(path: Path, *, size: tuple[int, int], colour: bool, rule: Rule) -> Tensor:
    image = read_image(path, colour)
    return resize(centre_window(image, size) if rule == "crop" else image, size)


def centre_window(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest centred window of [B, C, H, W] whose aspect ratio is that of `size`, to the nearest pixel."""
    height, width = images.shape[-2:]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - rows) // 2, (width - columns) // 2
    return images[..., top : top + rows, left : left + columns]


def _labels(path: Path, files: list[Path]) -> dict[str, Any]:
    """Columns of labels.csv in the order of `files`; empty where there is no such file."""
    if not path.is_file():
        return {}
    remedy = "give every image one row: its name in the column 'file', numbers in the others"
    try:
        # 'file, pitch, yaw' with blanks is what people type; the name column may have them on either side
        table = pd.read_csv(path, skipinitialspace=True, converters={"file": str.strip}).rename(columns=str.strip)
    except (ValueError, OSError) as error:
        raise DataError(path, found=f"no table ({error})", expected="comma separated values", remedy=remedy) from error
    if "file" not in table or table["file"].duplicated().any():
        found = f"columns {list(table.columns)}" if "file" not in table else "an image with several rows"
        raise DataError(path, found=found, expected="one row per image and a column 'file'", remedy=remedy)
    table = table.set_index("file")
    missing = [file.name for file in files if file.name not in table.index]
    if missing:
        found = f"no row for {len(missing)} of {len(files)} images, the first {missing[0]}"
        raise DataError(path, found=found, expected="a label for every image", remedy=remedy)
    table = table.loc[[file.name for file in files]]
    for name in table.columns:
        values = table[name]
        finite = pd.api.types.is_numeric_dtype(values) and np.isfinite(values.to_numpy(np.float64)).all()
        if not finite:
            raise DataError(
                path, found=f"a value of {name!r} that is no finite number", expected="numbers", remedy=remedy
            )
    return {str(name): table[name].to_numpy() for name in table.columns}
