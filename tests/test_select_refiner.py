"""`simgan select`: trains each lambda once, keeps it at its stops, exports what the rule took, and reads no label."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rule_by_hand import chosen_by_hand
from toy_eyes import SIZE, toy_eyes, toy_store
from typer.testing import CliRunner

from simgan_core import config as c
from simgan_core import profiles, stops
from simgan_core import select_refiner as sr
from simgan_core.checkpoints import REFINER, load_refiner, load_weights
from simgan_core.cli import app
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.selection import Candidate
from simgan_core.training import train

SETTINGS = {"refiner.width": 4, "training.pretrain_refiner": 2, "training.pretrain_discriminator": 2,
            "training.steps": 4, "training.precision": "fp32", "training.device": "cpu"}  # fmt: skip
CONFIG = c.with_overrides(profiles.smoke(), SETTINGS)
LAMBDAS = (0.05, 0.2)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("stores")
    return toy_store(folder / "synthetic", 40, 0), toy_store(folder / "real", 30, 1, real=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simgan_core.evaluation.fresh_discriminator.STEPS", 2)


def count_trainings(monkeypatch: pytest.MonkeyPatch, fail_at: int = 0) -> list[tuple[float, int]]:
    """(lambda, steps) of each call of `train` from now on; the call `fail_at` is interrupted at its start."""
    calls: list[tuple[float, int]] = []
    plain: Callable[..., Path] = train

    def counted(synthetic: Store, real: Store, out: Path, config: c.Config, **options: object) -> Path:
        calls.append((config.loss.lambda_sum, config.training.steps))
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return plain(synthetic, real, out, config, **options)

    monkeypatch.setattr(stops, "train", counted)
    return calls


def selected(
    stores: tuple[Store, Store], out: Path, lambdas: tuple[float, ...] = LAMBDAS, stops: int = 2
) -> sr.Outcome:
    planned = sr.plan(*stores, out, CONFIG, lambdas=lambdas, stops=stops)
    return sr.select_refiner(planned, workers=1, progress=False)


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_weights(path, "refiner")[0] for path in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("wanted", [(0.05, 2), (0.05, 4), (0.2, 2), (0.2, 4)])
def test_what_the_rule_takes_is_exported(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: tuple[float, int]
) -> None:
    chosen_by_hand(monkeypatch, wanted)
    found = selected(stores, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert report == found.report
    assert (report["chosen"]["lambda_sum"], report["chosen"]["step"]) == wanted
    assert [row["verdict"] == "chosen" for row in report["candidates"]] == [
        (row["lambda_sum"], row["step"]) == wanted for row in report["candidates"]
    ]
    # The same R comes of a training that knows no stops, and that ends where the rule stopped this one.
    alone = c.with_overrides(CONFIG, {"loss.lambda_sum": wanted[0], "training.steps": wanted[1]})
    train(*stores, tmp_path / "alone", alone, progress=False)
    assert found.refiner == tmp_path / "out" / "refiner"
    assert same_weights(found.refiner / REFINER, tmp_path / "alone" / REFINER)
    load_refiner(found.refiner)


def test_a_stop_leaves_the_numbers_of_the_rest_of_the_training(stores: tuple[Store, Store], tmp_path: Path) -> None:
    (task,) = sr.trainings(sr.plan(*stores, tmp_path / "out", CONFIG, lambdas=[0.2], stops=4))
    stops.train_to_stops(task)
    train(*stores, tmp_path / "whole", task.config, progress=False)
    assert same_weights(task.kept(4), tmp_path / "whole" / REFINER)
    kept = [task.kept(step) for step in task.steps]
    assert not any(same_weights(one, other) for one, other in zip(kept[:-1], kept[1:], strict=True))


def test_labels_of_the_real_images_are_not_read(stores: tuple[Store, Store], tmp_path: Path) -> None:
    synthetic, unlabelled = stores
    with StoreWriter(tmp_path / "garbage", size=SIZE, provenance={"toy": "garbage"}) as writer:
        nonsense = np.full(len(unlabelled), 1.5, dtype=np.float32)  # nobody looks there
        writer.append(unlabelled.images(), {"pitch": nonsense, "yaw": -nonsense})
    garbage = Store.open(tmp_path / "garbage")
    assert garbage.has_labels and not unlabelled.has_labels
    found = [
        selected((synthetic, real), tmp_path / f"out{i}", lambdas=(0.2,))
        for i, real in enumerate((unlabelled, garbage))
    ]
    assert found[0].candidates == found[1].candidates and found[0].selection == found[1].selection
    folders = [sorted((tmp_path / f"out{i}" / sr.TRAININGS).glob("*/step-*.safetensors")) for i in range(2)]
    assert len(folders[0]) == 2
    assert all(same_weights(one, other) for one, other in zip(*folders, strict=True))


def test_no_annotation_is_opened(stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("annotations were read")

    monkeypatch.setattr(Store, "annotations", refuse)
    monkeypatch.setattr(Store, "pitch_yaw", refuse)
    assert len(selected(stores, tmp_path / "out", lambdas=(0.2,), stops=1).candidates) == 1


def test_a_rerun_trains_and_measures_what_is_missing(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_by_hand(monkeypatch, (0.05, 4))
    first = selected(stores, tmp_path)
    calls = count_trainings(monkeypatch)
    measured: list[float] = []
    plain: Callable[..., Candidate] = stops.measure_candidate

    def counted(*arguments: object, **options: object) -> Candidate:
        measured.append(options["lambda_sum"])
        return plain(*arguments, **options)

    monkeypatch.setattr(stops, "measure_candidate", counted)
    again = selected(stores, tmp_path)
    assert again.report == first.report and not calls and not measured
    more = selected(stores, tmp_path, lambdas=(0.05, 0.2, 1.0))
    assert calls == [(1.0, 2), (1.0, 4)] and measured == [1.0, 1.0] and more.candidates[:4] == first.candidates
    calls.clear()
    selected(stores, tmp_path, stops=4)
    assert len(calls) == 8, "a training that went past a stop cannot give the weights there"


@pytest.mark.parametrize("fail_at", [1, 2, 4])
def test_an_interrupted_selection_goes_on(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    chosen_by_hand(monkeypatch, (0.2, 4))
    whole = selected(stores, tmp_path / "whole")
    with monkeypatch.context() as patch:
        count_trainings(patch, fail_at)
        with pytest.raises(KeyboardInterrupt):
            selected(stores, tmp_path / "out")
    assert not (tmp_path / "out" / "selection.json").exists()
    calls = count_trainings(monkeypatch)
    assert selected(stores, tmp_path / "out").report == whole.report
    assert len(calls) == 5 - fail_at


def test_nothing_chosen_exports_nothing_and_takes_an_earlier_choice_away(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        chosen_by_hand(patch, (0.2, 2))
        assert selected(stores, tmp_path).refiner is not None
    for file in tmp_path.glob("trainings/*/step-*.json"):
        file.unlink()
    chosen_by_hand(monkeypatch, None)
    found = selected(stores, tmp_path)
    report = json.loads((tmp_path / "selection.json").read_text())
    assert found.refiner is None and report["chosen"] is None and report["refiner"] is None
    assert all("label lost" in row["verdict"] for row in report["candidates"])
    with pytest.raises(FileNotFoundError):
        load_refiner(tmp_path / "refiner")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lambdas": [0.2, 0.1, 0.2]}, r"lambdas \[0.2, 0.1, 0.2\] found; expected at least one, each once"),
        ({"lambdas": []}, "at least one"),
        ({"lambdas": [0.2, -0.1]}, "lambda -0.1 found; expected 0 or more"),
        ({"lambdas": [math.nan]}, "lambda nan found"),
        ({"stops": 0}, "0 stops found; expected 1 to 4"),
        ({"stops": 5}, "5 stops found; expected 1 to 4"),
    ],
)
def test_impossible_sweeps_are_refused(stores: tuple[Store, Store], tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sr.plan(*stores, tmp_path / "out", CONFIG, **({"lambdas": LAMBDAS, "stops": 2} | change))
    assert not (tmp_path / "out").exists()


def test_stores_that_do_not_fit_are_refused(stores: tuple[Store, Store], tmp_path: Path) -> None:
    synthetic, real = stores
    few = toy_store(tmp_path / "few", 7, 3, real=True)
    colour = toy_store(tmp_path / "colour", 30, 3, channels=3)
    with StoreWriter(tmp_path / "blank", size=SIZE, provenance={"toy": "blank"}) as writer:
        writer.append(np.full((20, 1, *SIZE), 128, np.uint8))
    blank = Store.open(tmp_path / "blank")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    options = {"lambdas": LAMBDAS, "stops": 2}
    for pair, out, message in (
        ((synthetic, few), "out", "7 real images .* found; expected at least 8"),
        ((synthetic, colour), "out", r"the real images .* 3 channel\(s\); expected"),
        ((blank, real), "out", "no iris found in 20 synthetic images, spread over"),
        ((synthetic, real), "mine", "mine exists and is no selection"),
    ):
        with pytest.raises(ValueError, match=message):
            sr.plan(*pair, tmp_path / out, CONFIG, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("steps", "stops"), [(4, 4), (5, 4), (7, 5), (900, 3), (3, 2), (1, 1)])
def test_stops_are_spaced_alike_and_end_at_the_budget(steps: int, stops: int) -> None:
    found = sr.check_sweep(c.with_overrides(CONFIG, {"training.steps": steps}), LAMBDAS, stops)
    gaps = np.diff([0, *found])
    assert len(found) == stops and found[-1] == steps and gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def command(stores: tuple[Store, Store], out: Path, *more: str) -> list[str]:
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    arguments = ["select", *(str(store.path) for store in stores), "--out", str(out), "--profile", "smoke", *sets]
    return [*arguments, "--lambdas", "0.05,0.2", "--stops", "2", "--workers", "1", *more]


def test_the_command_prints_verdicts_or_one_json_object(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_by_hand(monkeypatch, (0.05, 2))
    done = CliRunner().invoke(app, command(stores, tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert done.stdout.count("less real than the best") == 3
    assert "chosen: lambda 0.05, step 2" in done.stdout and f"simgan refine {tmp_path / 'out/refiner'}" in done.stdout
    as_json = CliRunner().invoke(app, command(stores, tmp_path / "out", "--json"))
    report = json.loads(as_json.stdout)
    assert report["chosen"]["step"] == 2 and report["settings"]["config"]["refiner"]["width"] == 4
    refined = CliRunner().invoke(
        app, ["refine", str(tmp_path / "out/refiner"), str(stores[0].path), str(tmp_path / "refined")]
    )
    assert refined.exit_code == 0 and len(Store.open(tmp_path / "refined")) == len(stores[0])


def test_the_command_says_that_nothing_was_chosen(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_by_hand(monkeypatch, None)
    done = CliRunner().invoke(app, command(stores, tmp_path / "out"))
    assert done.exit_code == 0 and "chosen: nothing" in done.stdout and "label lost" in done.stdout
    assert not (tmp_path / "out" / "refiner").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lambdas", "0.1;0.2"], "expected numbers with commas between"),
        (["--lambdas", "0.1,0.10"], "each once"),
        (["--set", "training.steps"], "expected KEY=VALUE"),
        (["--set", "training.step=3"], "Did you mean 'training.steps'"),
        (["--set", "loss.lambda_sum=3"], "expected lambda in --lambdas alone"),
        (["--stops", "9"], "9 stops found"),
        (["--set", "data.size=36x60"], "images of 35 x 55"),
    ],
)
def test_the_command_refuses_before_any_work(
    stores: tuple[Store, Store], tmp_path: Path, more: list[str], message: str
) -> None:
    done = CliRunner().invoke(app, command(stores, tmp_path / "out", *more))
    assert done.exit_code == 1 and message in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_users_own_folders_side_by_side(tmp_path: Path) -> None:
    """Pictures in two folders, two processes: everything crosses to them and back."""
    for name, real in (("renders", False), ("photographs", True)):
        (tmp_path / name).mkdir()
        for index, image in enumerate(toy_eyes(24, int(real), real=real)[0]):
            Image.fromarray(image[0]).save(tmp_path / name / f"eye_{index}.png")
    folders = [str(tmp_path / name) for name in ("renders", "photographs")]
    sets = ["--set", "training.steps=2", "--set", "training.device=cpu"]
    arguments = ["select", *folders, "--out", str(tmp_path / "out"), "--profile", "smoke", *sets]
    done = CliRunner().invoke(app, [*arguments, "--lambdas", "0.1,0.2", "--stops", "1", "--workers", "2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [row["lambda_sum"] for row in report["candidates"]] == [0.1, 0.2]
