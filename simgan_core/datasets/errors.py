"""The one error of the data adapters: which file, what was found there, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """A data file or folder cannot be used as it is. The message names the file and the remedy."""

    def __init__(self, where: Path | str, *, found: str, expected: str, remedy: str) -> None:
        self.where = Path(where)
        super().__init__(f"{where}: found {found}; expected {expected}. {remedy[:1].upper()}{remedy[1:]}.")
