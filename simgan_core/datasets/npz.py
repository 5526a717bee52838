"""Reading arrays from .npz files that other people made: every failure names the file."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from simgan_core.datasets.errors import DataError


def read_arrays(path: Path, names: Sequence[str], remedy: str, *, every: bool = False) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that the file holds.

    Raises DataError if the file is missing, truncated or no .npz, or holds none of them (`every`: not all of them).
    """
    expected = f"an .npz file with {(' and ' if every else ' or ').join(names)}"
    if not path.is_file():
        raise DataError(path, found="no such file", expected=expected, remedy=remedy)
    try:
        with path.open("rb") as file:
            archive = np.load(file)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array, as in .npy files")
            found = list(archive.files)
            arrays = {name: np.asarray(archive[name]) for name in names if name in found}
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        what = f"an unreadable file ({error})"
        raise DataError(path, found=what, expected=expected, remedy=remedy) from error
    if not arrays or (every and len(arrays) < len(names)):
        raise DataError(path, found=f"arrays {found}", expected=expected, remedy=remedy)
    return arrays
