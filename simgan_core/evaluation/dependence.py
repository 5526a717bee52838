"""Which test images depend on one another: those of one person, or of one stretch of a video.

An interval that takes them as independent is too narrow: 45,000 images of 15 people tell of 15 people.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simgan_core.datasets.store import Store
from simgan_core.evaluation.hand import BLOCK


def groups_of(test: Store) -> NDArray[Any] | None:
    """The group of every image [N] for `two_level_bootstrap`; None where images are independent or of one person.

    MPIIGaze: persons. NYU Hand Pose: blocks of consecutive frames, as in `evaluate_hand`. Renders are independent.
    """
    if "person" in test.columns:
        person = test.annotations(["person"])["person"].to_numpy()
        return person if len(np.unique(person)) > 1 else None
    if test.provenance.get("adapter") == "nyu":
        return np.asarray(test.annotations(["pose"])["pose"].to_numpy() // BLOCK)
    return None
