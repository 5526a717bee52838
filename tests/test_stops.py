"""A run's refiner is the one at the stop that the rule without labels took, and everything after it uses that one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rule_by_hand import chosen_by_hand
from toy_eyes import toy_store

from simgan_core import config as c
from simgan_core import profiles, stages, stops
from simgan_core.checkpoints import REFINER, load_refiner, load_weights
from simgan_core.datasets.store import Store
from simgan_core.refine import refine_images
from simgan_core.run_folder import RunFolder

SETTINGS = {"refiner.width": 4, "training.pretrain_refiner": 2, "training.pretrain_discriminator": 2,
            "training.steps": 6, "stops": 3, "training.precision": "fp32", "training.device": "cpu"}  # fmt: skip
LAMBDA = profiles.smoke().loss.lambda_sum


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr("simgan_core.evaluation.fresh_discriminator.STEPS", 2)
    made = RunFolder.create(tmp_path / "run", data="embedded", config=c.with_overrides(profiles.smoke(), SETTINGS))
    toy_store(made.stores / "synthetic", 40, 0)
    toy_store(made.stores / "real", 30, 1, real=True)
    return made


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in load_weights(folder / REFINER, "refiner")[0].values()])


@pytest.mark.parametrize("step", [2, 4, 6])
def test_the_images_of_a_run_come_from_the_chosen_stop(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    chosen_by_hand(monkeypatch, (LAMBDA, step))
    training = stages.train_refiner(run, 0, progress=False)
    refined = stages.refine_synthetic(run, 0, progress=False)
    kept = [load_refiner(training / f"step-{place:06d}.safetensors") for place in (2, 4, 6)]
    by_stop = [refine_images(refiner, Store.open(run.stores / "synthetic").images()) for refiner in kept]
    assert [bool((images == refined.images()).all()) for images in by_stop] == [place == step for place in (2, 4, 6)]
    found = stages.choose_stop(run, 0)
    assert (found.step, found.passed) == (step, True)
    assert list(found.table().rule == "chosen") == [place == step for place in (2, 4, 6)]


def test_where_nothing_passes_the_last_step_stands_and_it_is_said(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_by_hand(monkeypatch, None)
    training = stages.train_refiner(run, 0, progress=False)
    found = stages.choose_stop(run, 0)
    assert (found.step, found.passed) == (6, False)
    assert found.table().rule.str.contains("label lost").all()
    assert torch.equal(weights(run.refiner(0)), weights(training))


def test_a_choice_is_read_again_until_its_weights_change(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen_by_hand(monkeypatch, (LAMBDA, 4))
    training = stages.train_refiner(run, 0, progress=False)
    first = stages.choose_stop(run, 0)
    with monkeypatch.context() as patch:

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("measured again")

        for name in ("simgan_core.stops.measure_candidate", "simgan_core.selection.measure_raw"):
            patch.setattr(name, refuse)
        assert stages.choose_stop(run, 0) == first
        stages.train_refiner(run, 0, progress=False)
        assert stages.choose_stop(run, 0) == first, "a finished training was begun again"
    stops.place(training / "step-000006.safetensors", training / "step-000004.safetensors")
    chosen_by_hand(monkeypatch, (LAMBDA, 6))  # what was measured of the other two stops is still known: all tie now
    assert stages.choose_stop(run, 0).step == 2
    assert (run.refiner(0) / REFINER).read_bytes() == (training / "step-000002.safetensors").read_bytes()
