"""The notebooks' form, and (marked `smoke`) that all of them run from data to scorecard."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from simgan_core.execution import check_parameters
from simgan_core.reproduce import NOTEBOOKS, PARAMETERS, SCORECARD, STEPS

FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
PARAMETRISED = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_every_notebook_is_part_of_the_run() -> None:
    assert [file.stem for file in FILES] == sorted(step.name for step in (*STEPS, SCORECARD))


@PARAMETRISED
def test_committed_without_outputs_and_with_parameters(file: Path) -> None:
    check_parameters(file, PARAMETERS)
    for cell in nbformat.read(file, as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@PARAMETRISED
def test_cells_are_short_and_define_no_class(file: Path) -> None:
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        assert len(cell.source.splitlines()) <= 15, cell.source
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not [node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)], cell.source


@PARAMETRISED
def test_a_notebook_begins_with_its_question_and_ends_with_its_limits(file: Path) -> None:
    cells = nbformat.read(file, as_version=4).cells
    assert cells[0].cell_type == "markdown" and re.match(rf"# {file.stem[:2]} · ", cells[0].source)
    assert cells[-1].source.startswith("## Limits")
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "claims" in code and "metrics" in code


@pytest.mark.smoke
def test_all_notebooks_run_and_judge_nothing_under_smoke(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simgan_core.cli", "reproduce", "--profile", "smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert [claim["verdict"] for claim in claims] == ["not evaluated"] * 8
    assert {claim["id"] for claim in claims if claim["ours"] is not None} == {f"C{n}" for n in range(2, 9)}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for arm in ("constant", "raw", "raw_augmented", "refined", "refined_augmented", "oracle"):
        for name in (f"gaze.{arm}.mean_error_deg", f"gaze.{arm}.within_7_deg"):
            assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
    for arm in ("raw", "refined", "real", "raw_3views", "refined_3views"):
        metric = metrics[f"hand.{arm}.within_5_px"]
        assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 100 and metric["seeds"] == 2
    pictures = list((tmp_path / "figures").glob("*.png"))
    assert len(pictures) >= 12 and all(picture.stat().st_size <= 300_000 for picture in pictures)
    for page in (tmp_path / "notebooks").glob("*.html"):
        text = page.read_text()
        assert "Warning:" not in text, f"{page.name} shows a warning"
        assert not re.search(r'<script[^>]+src="https?:', text), f"{page.name} needs a network"
