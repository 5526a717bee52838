"""Gaze errors on a validation part: right for each candidate, kept, and of no influence on what the rule says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rule_by_hand import chosen_by_hand
from toy_eyes import toy_eyes, toy_store
from typer.testing import CliRunner

from simgan_core import profiles
from simgan_core import validation as v
from simgan_core.checkpoints import save_refiner
from simgan_core.cli import app
from simgan_core.config import GazeConfig, with_overrides
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.gaze import angular_error_deg, gaze_vector, pitch_yaw
from simgan_core.gaze_estimator import predict, train_gaze_cnn
from simgan_core.models import Refiner
from simgan_core.refine import refine_images

GAZE = GazeConfig(steps=120, batch=16, width=0.25)
SETTINGS = {"refiner.width": 4, "training.pretrain_refiner": 2, "training.pretrain_discriminator": 2,
            "training.steps": 2, "training.precision": "fp32", "training.device": "cpu", "gaze.steps": 3}  # fmt: skip


def labelled(path: Path, count: int, seed: int) -> Store:
    images, labels = toy_eyes(count, seed, real=True)
    with StoreWriter(path, size=images.shape[2:], provenance={"toy": seed}) as writer:
        writer.append(images, {"pitch": labels[:, 0], "yaw": labels[:, 1]})
    return Store.open(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("stores")
    return {
        "synthetic": toy_store(folder / "synthetic", 96, 0),
        "real": toy_store(folder / "real", 30, 1, real=True),
        "validation": labelled(folder / "validation", 40, 2),
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simgan_core.evaluation.fresh_discriminator.STEPS", 2)


def grey_painter(folder: Path) -> Path:
    """Weights of a refiner that leaves nothing of its input."""
    config = with_overrides(profiles.smoke(), {"refiner.width": 4, "refiner.blocks": 1})
    model = Refiner(config.refiner)
    for value in model.parameters():
        torch.nn.init.zeros_(value)
    save_refiner(model, folder / "grey.safetensors", config, seed=0, step=1)
    return folder / "grey.safetensors"


def validated(stores: dict[str, Store], weights: list[Path | None], folder: Path) -> list[v.Errors]:
    part = v.Validation(stores["synthetic"], stores["validation"], GAZE)
    return v.validate(part, weights, folder, 3, workers=1, progress=False)


def test_errors_are_those_of_what_each_refiner_teaches(stores: dict[str, Store], tmp_path: Path) -> None:
    raw, grey = validated(stores, [None, grey_painter(tmp_path)], tmp_path)
    model = train_gaze_cnn(stores["synthetic"], stores["synthetic"].pitch_yaw(), GAZE, seed=3, progress=False)
    truth = stores["validation"].pitch_yaw()
    expected = float(angular_error_deg(predict(model, stores["validation"]), truth).mean())
    assert raw.plain.value == pytest.approx(expected, abs=1e-3) and raw.plain.n == len(truth)
    assert raw.plain.low < raw.plain.value < raw.plain.high and raw.augmented != raw.plain
    assert grey.plain.value > 1.2 * raw.plain.value, "who learnt from grey pictures knows no gaze"


def test_several_cnns_judge_by_their_mean_error_and_together(stores: dict[str, Store], tmp_path: Path) -> None:
    part = v.Validation(stores["synthetic"], stores["validation"], replace(GAZE, steps=20), cnns=2)
    (one,) = v.validate(replace(part, cnns=1), [None], tmp_path, 3, workers=1, progress=False)
    (two,) = v.validate(part, [None], tmp_path, 3, workers=1, progress=False)
    synthetic, images = stores["synthetic"], stores["validation"]
    answers = [
        predict(train_gaze_cnn(synthetic, synthetic.pitch_yaw(), part.gaze, seed=seed, progress=False), images)
        for seed in (3, 1003)
    ]
    errors = [float(angular_error_deg(answer, images.pitch_yaw()).mean()) for answer in answers]
    assert one.committee is None and set(one.to_dict()) == {"plain", "augmented"}
    assert one.plain.value == pytest.approx(errors[0], abs=1e-3)
    assert two.plain.value == pytest.approx(sum(errors) / 2, abs=1e-3) and two.plain.seeds == 1
    assert two.committee is not None and two.augmented_committee is not None
    middle = gaze_vector(answers[0].astype(float)) + gaze_vector(answers[1].astype(float))
    together = float(angular_error_deg(pitch_yaw(middle), images.pitch_yaw()).mean())
    assert two.committee.value == pytest.approx(together, abs=1e-3)


def test_images_are_refined_once_for_all_cnns_of_a_kind(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(*arguments: object) -> object:
        calls.append(1)
        return refine_images(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(v, "refine_images", counted)
    part = v.Validation(stores["synthetic"], stores["validation"], replace(GAZE, steps=2), cnns=3)
    grey = grey_painter(tmp_path)
    for _ in range(2):  # the second time all is kept
        v.validate(part, [grey], tmp_path, 3, workers=1, progress=False)
    assert len(calls) == 2, "once without and once with augmentation"


def test_predictions_are_kept_until_what_decides_them_changes(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def counted(*arguments: object, **options: object) -> object:
        calls.append(bool(options["augment"]))
        return train_gaze_cnn(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(v, "train_gaze_cnn", counted)
    monkeypatch.setattr("test_validation.GAZE", replace(GAZE, steps=2))
    first = validated(stores, [None], tmp_path)
    assert validated(stores, [None], tmp_path) == first and calls == [False, True]
    validated(stores | {"validation": labelled(tmp_path / "others", 20, 5)}, [None], tmp_path)
    assert calls == [False, True] * 2


def command(stores: dict[str, Store], out: Path, *more: str) -> list[str]:
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    images = [str(stores[name].path) for name in ("synthetic", "real")]
    arguments = ["select", *images, "--out", str(out), "--profile", "smoke", *sets]
    return [*arguments, "--lambdas", "0.1,0.8", "--stops", "1", "--workers", "1", *more]


def test_the_command_shows_errors_and_lets_them_decide_nothing(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_by_hand(monkeypatch, (0.1, 2))
    blind = CliRunner().invoke(app, command(stores, tmp_path / "out", "--json"))
    seeing = ["--validation", str(stores["validation"].path)]
    both = CliRunner().invoke(app, command(stores, tmp_path / "out", "--json", *seeing))
    assert both.exit_code == 0, both.output
    without, report = json.loads(blind.stdout), json.loads(both.stdout)
    errors = [row.pop("validation_error_deg") for row in report["candidates"]]
    assert all(0 < one[kind]["value"] < 90 for one in errors for kind in ("plain", "augmented"))
    assert report.pop("raw_validation_error_deg")["plain"]["n"] == 40
    assert report["settings"].pop("cnns") == 1
    assert report["stores"].pop("validation")["images"] == 40 and report == without
    shown = CliRunner().invoke(app, command(stores, tmp_path / "out", *seeing)).stdout
    assert f"{errors[0]['plain']['value']:.3f}" in shown and "no verdict depends on it" in shown


def test_cnns_without_a_validation_part_are_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, command(stores, tmp_path / "out", "--cnns", "3"))
    assert done.exit_code == 1 and "--cnns 3 found without --validation" in str(done.exception)


def test_a_validation_part_without_labels_is_refused_before_any_work(stores: dict[str, Store], tmp_path: Path) -> None:
    arguments = command(stores, tmp_path / "out", "--validation", str(stores["real"].path))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1 and "have no pitch and yaw" in str(done.exception)
    assert not (tmp_path / "out").exists()
