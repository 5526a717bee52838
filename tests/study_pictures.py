"""Pictures, folders and databases for the tests of the study (the half without a screen)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from simgan_core.study.creation import create_study
from simgan_core.study.pictures import encode_png
from simgan_core.study.plan import Source, StudySettings
from simgan_core.study.records import Picture
from simgan_core.study.scoring import Confusion
from simgan_core.study.storage import StudyStore

SMALL = StudySettings(subjects=2, real=4, refined=4, control=2, practice=2, attention=2)


def image(seed: int, brightness: int = 120) -> np.ndarray:
    """uint8 [1, 12, 18]."""
    return np.random.default_rng(seed).normal(brightness, 25, (1, 12, 18)).clip(0, 255).astype(np.uint8)


def stock(count: int = 40) -> dict[Source, list[Picture]]:
    """Pictures of each source; synthetic ones are bright, refined ones a little."""
    levels: dict[Source, int] = {"real": 90, "refined": 110, "synthetic": 170}
    return {
        source: [Picture(f"{source}_{i}.png", encode_png(image(1000 * level + i, level))) for i in range(count)]
        for source, level in levels.items()
    }


def small_study(where: Path | str, settings: StudySettings = SMALL, *, simulated: bool = False) -> StudyStore:
    return create_study(where, settings, stock(), simulated=simulated, source={"kind": "test"})


def folder(
    path: Path, count: int = 12, *, size: tuple[int, int] = (12, 18), colour: bool = False, seed: int = 0
) -> Path:
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        shape = (*size, 3) if colour else size
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path / f"{number}.png")
    return path


def answers(cells: Confusion, subjects: int = 10) -> pd.DataFrame:
    """A table of answers with exactly these cells, dealt out to subjects in turn."""
    rows = [
        (truth, answer)
        for truth, row in cells.to_dict().items()
        for answer, count in row.items()
        for _ in range(count)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["truth", "answer"])
    return table.assign(subject=[f"s{number % subjects}" for number in range(len(table))])
