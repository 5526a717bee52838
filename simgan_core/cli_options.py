"""What options of several commands share."""

from __future__ import annotations

import tempfile
from pathlib import Path

LARGEST_SEED = 2**31 - 1
"""Fits every generator that a seed goes to, and sums of a seed and a small number."""


def check_place(file: Path) -> None:
    """Raise ValueError, before any work, where `file` cannot be written in the end; its folder is made."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder; the name of a file expected, e.g. {file / 'result'}{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"{file} cannot be written ({reason}); expected a folder with permission and room. Name another place"
        ) from error
