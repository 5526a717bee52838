"""The command line: complete help, JSON alone on standard output, errors as messages, the whole way on few images."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.datasets.store import Store

COMMANDS = [
    "train", "select", "refine", "evaluate gaze", "reproduce", "data prepare", "data fetch", "data import",
    "simulate eyes", "gaze train", "gaze predict",
]  # fmt: skip
RUNNER = CliRunner()


def simgan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simgan_core.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def predictions(path: Path, error_deg: float = 3.0) -> Path:
    truth = np.random.default_rng(0).uniform(-0.3, 0.3, (200, 2)).astype(np.float32)
    np.savez(path, pitch_yaw=truth, predicted=truth + np.array([np.radians(error_deg), 0], dtype=np.float32))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command: str) -> None:
    result = RUNNER.invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    options = [line for line in result.output.splitlines() if line.strip().startswith("--")]
    assert all(len(line.split()) > 2 or "<" in line for line in options), result.output


def test_evaluate_prints_one_json_object(tmp_path: Path) -> None:
    file = str(predictions(tmp_path / "p.npz"))
    done = simgan("evaluate", "gaze", file, file, "--json")
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and done.returncode == 0
    assert found["mean_error_deg"] == pytest.approx(3.0, abs=1e-3)
    assert found["within_7_deg"] == 100 and found["n"] == 200
    assert "mean_error_deg" in RUNNER.invoke(app, ["evaluate", "gaze", file, file]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "gaze", "missing.npz", "missing.npz", "--json"], "missing.npz"),
        (["reproduce", "--profile", "gpus"], "profile 'gpus' is not known"),
        (["reproduce", "--only", "99"], "no notebook '99'"),
        (["train", "--synthetic", "nowhere", "--real", "nowhere", "--out", "x"], "nowhere"),
        (["train", "--synthetic", "a", "--real", "b", "--out", "x", "--set", "training.step=9"], "Did you mean"),
        (["train", "--synthetic", "a", "--real", "b", "--out", "x", "--set", "steps"], "expected KEY=VALUE"),
        (["refine", "nowhere", "in", "out"], "nowhere"),
    ],
)
def test_errors_are_messages_on_standard_error(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "simgan_core.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "something was written"


@pytest.mark.slow
def test_the_whole_way_on_a_users_own_folders(tmp_path: Path) -> None:
    """Render, train on folders of pictures, refine a folder; names and labels survive."""
    done = simgan("simulate", "eyes", "--count", "16", "--out", str(tmp_path / "eyes"), "--seed", "3")
    assert done.returncode == 0, done.stderr
    eyes = Store.open(tmp_path / "eyes")
    assert (len(eyes), eyes.size, eyes.has_labels) == (16, (35, 55), True)
    for name in ("renders", "photographs"):
        (tmp_path / name).mkdir()
        for index, image in enumerate(eyes.images()):
            Image.fromarray(image[0]).save(tmp_path / name / f"eye_{index}.png")
    (tmp_path / "renders" / "labels.txt").write_text("mine")
    run = str(tmp_path / "run")
    folders = ["--synthetic", str(tmp_path / "renders"), "--real", str(tmp_path / "photographs")]
    done = simgan("train", *folders, "--out", run, "--profile", "smoke", "--set", "training.steps=6")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["steps"] == 6
    done = simgan("refine", run, str(tmp_path / "renders"), str(tmp_path / "refined"))
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "refined").iterdir()} == {
        file.name for file in (tmp_path / "renders").iterdir()
    }
    assert (tmp_path / "refined/labels.txt").read_text() == "mine"
    done = simgan("refine", run, str(tmp_path / "eyes"), str(tmp_path / "refined_store"))
    assert np.array_equal(Store.open(tmp_path / "refined_store").pitch_yaw(), eyes.pitch_yaw())
    again = simgan("train", *folders, "--out", run, "--profile", "smoke")
    assert again.returncode == 1 and "already holds a run" in again.stderr


@pytest.mark.slow
def test_data_prepare_reports_the_stores(tmp_path: Path) -> None:
    done = simgan("data", "prepare", "--profile", "smoke", "--out", str(tmp_path / "stores"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["real_is_standin"] is True
    assert Store.open(found["synthetic"]).has_labels and not Store.open(found["real"]).columns
