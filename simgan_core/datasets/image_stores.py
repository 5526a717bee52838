"""Real images on their way into a store: eyes with their labels, and the images of a labelled store without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simgan_core.datasets import mpiigaze
from simgan_core.datasets.store import Store
from simgan_core.datasets.writer import StoreWriter
from simgan_core.images import resize

CHUNK = 4096
MADE_BY = "simgan_core.datasets.prepare"


def without_labels(
    labelled: Path, size: tuple[int, int], more: Callable[[], Sequence[NDArray[np.uint8]]]
) -> Callable[[Path], None]:
    """Make `real`: the images of a labelled store without any column, and then further images."""

    def make(path: Path) -> None:
        store = Store.open(labelled)
        provenance = {"made_by": MADE_BY, "images_of": store.provenance, "labels": "left out"}
        with StoreWriter(path, size=size, channels=store.channels, provenance=provenance) as writer:
            for start in range(0, len(store), CHUNK):
                writer.append(store.images(slice(start, start + CHUNK)))
            for extra in more():
                writer.append(resize(torch.from_numpy(extra), size))

    return make


def write_eyes(
    path: Path, size: tuple[int, int], inputs: dict[str, Any], days: Iterable[tuple[int, int, mpiigaze.Eyes]]
) -> None:
    """Write MPIIGaze's eyes of (person, day, eyes) in turn, resized to `size`; `inputs` goes into the provenance."""
    provenance = {"made_by": MADE_BY, "data": "MPIIGaze", **inputs}
    with StoreWriter(path, size=size, provenance=provenance) as writer:
        for person, day, eyes in days:
            writer.append(resize(torch.from_numpy(eyes.images), size), eyes.annotations(person, day))
