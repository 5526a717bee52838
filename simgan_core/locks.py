"""Locks between processes: who holds one may write; it is released when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOCK = ".lock"
"""In a run's folder: held while `simgan reproduce` works there."""


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until nobody else holds the lock; it is released when its holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:  # nothing is ever written: a link that somebody put there must cost no file
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def refused_while_held(lock: Path) -> Iterator[TextIO]:
    """Hold the lock of a run's folder, or raise RuntimeError where somebody else does.

    Snakemake's own lock outlives a killed run; this one does not. A process that inherits the file holds it too.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another run works in {lock.parent}; wait for it, or give another --out.") from error
        yield file
