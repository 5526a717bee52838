"""Every row of PAPER_MAP.md resolves: the symbol can be imported, the notebook exists and is part of the run."""

import importlib
import re
from pathlib import Path

import pytest

from simgan_core.reproduce import SCORECARD, STEPS

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "PAPER_MAP.md").read_text().splitlines()
    if re.match(r"\| (section|equation|table|figure|algorithm|all)", line)
]


def resolve(dotted: str) -> object:
    """The object that a dotted name stands for."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_row_resolves(row: list[str]) -> None:
    _, _, symbol, notebook = row
    assert resolve(symbol.strip("`")) is not None
    if notebook != "–":
        assert (ROOT / "notebooks" / f"{notebook.strip('`')}.ipynb").is_file()


def test_the_map_covers_the_method_and_every_notebook() -> None:
    text = " ".join(row[0] for row in ROWS)
    for part in (
        "equation 1",
        "equation 2",
        "equation 3",
        "equation 4",
        "algorithm 1",
        "table 2",
        "table 3",
        "figure 8",
    ):
        assert part in text
    assert {row[3].strip("`") for row in ROWS} - {"–"} == {step.name for step in (*STEPS, SCORECARD)}


def test_a_missing_symbol_would_be_found() -> None:
    with pytest.raises(AttributeError):
        resolve("simgan_core.losses.not_a_loss")
