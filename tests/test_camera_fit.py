"""The camera: statistics of fine detail, a hidden camera found again, its file, and the commands that use it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.datasets.store import Store
from simgan_core.evaluation import camera_fit, simulator_fit
from simgan_core.evaluation.camera_fit import START, CameraFit, fine_detail, fit_camera
from simgan_core.simulators import EyeRanges, EyeSimulator
from simgan_core.simulators.camera_file import load_camera, parse_camera, save_camera
from simgan_core.simulators.ranges import load_ranges
from simgan_core.simulators.sensor import CameraModel
from simgan_core.simulators.simulate import finish, load_assets, simulate_eyes

RUNNER = CliRunner()
MINE = replace(START, defocus_px=(0.4, 0.9), motion_px=(0.0, 2.0), full_well_log10=(2.2, 3.4))


@pytest.fixture(scope="module")
def simulator() -> EyeSimulator:
    return EyeSimulator(load_assets(None), EyeRanges())


def photographs(simulator: EyeSimulator, camera: CameraModel, count: int = 256) -> np.ndarray:
    """Other eyes than the fit's own, seen by `camera` with other noise."""
    parts = [range(start, start + 32) for start in range(0, count, 32)]
    images = [camera(simulator.render(simulator.sample(9, part)).image, 4, part) for part in parts]
    return torch.cat([finish(image, (35, 55), equalise=True) for image in images]).numpy()


def plain(camera: CameraModel) -> dict[str, Any]:
    return json.loads(json.dumps(vars(camera)))


def test_statistics_of_known_pictures() -> None:
    ramp = np.broadcast_to(np.arange(55) * 4, (1, 1, 35, 55)).astype(np.uint8)
    spike = np.zeros((1, 1, 35, 55), np.uint8)
    spike[..., 17, 27] = 100
    found = np.exp(fine_detail(np.concatenate([ramp, spike]))) - 0.5
    assert found[0, :3] == pytest.approx([0, 0, 4], abs=1e-4)  # no curvature, four grey levels a pixel
    inner = 33 * 53
    # Laplacian: -400 once, 100 four times; slope: +100 and -100
    assert found[1, :3] == pytest.approx([0, np.sqrt(200_000 / (inner - 1)), 200 / (35 * 54)], rel=1e-3, abs=1e-4)
    assert found[1, 3] + 0.5 == pytest.approx((found[1, 1] + 0.5) / (np.sqrt(20_000 / (35 * 54 - 1)) + 0.5), rel=1e-3)


def test_grain_raises_the_ratio_and_blur_lowers_it(simulator: EyeSimulator) -> None:
    sharp = replace(START, defocus_px=(0.05, 0.05), motion_px=(0.0, 0.0), full_well_log10=(6.0, 6.0))
    ratio, grainy, soft = (
        fine_detail(photographs(simulator, camera, 64)).mean(0)
        for camera in (sharp, replace(sharp, full_well_log10=(2.3, 2.3)), replace(sharp, defocus_px=(1.2, 1.2)))
    )
    assert grainy[3] > ratio[3] + 0.1 and grainy[0] > ratio[0] + 0.1
    assert soft[3] < ratio[3] - 0.1 and soft[1] < ratio[1] - 0.1


def test_a_hidden_camera_is_found_again(simulator: EyeSimulator) -> None:
    found = fit_camera(simulator, photographs(simulator, MINE), renders=96, evaluations=60)
    assert found.distance_after < 0.05 * found.distance_before
    assert found.camera.full_well_log10 == pytest.approx(MINE.full_well_log10, abs=0.35)
    # defocus and motion stand for each other in part; their variance together, px², does not
    spread, hidden = (np.mean(c.defocus_px) ** 2 + np.square(c.motion_px[1]) / 36 for c in (found.camera, MINE))
    assert spread == pytest.approx(hidden, rel=0.3)
    for name in ("exposure_stops", "gradient", "vignette", "gamma"):
        assert len(set(getattr(found.camera, name))) == 1, "light is the simulator's"
    assert set(found.to_dict()) == {
        "camera_distance_before", "camera_distance_after",
        "camera_defocus_px", "camera_motion_px", "camera_full_well_log10",
    }  # fmt: skip


def test_a_sharp_camera_is_told_from_a_soft_one(simulator: EyeSimulator) -> None:
    clear = replace(START, defocus_px=(0.1, 0.4), motion_px=(0.0, 0.5), full_well_log10=(4.0, 5.0))
    found = fit_camera(simulator, photographs(simulator, clear), renders=96, evaluations=60)
    assert found.distance_after < 0.2 * found.distance_before
    # grain of more than some thousand electrons hides in eight bits: how much more cannot be told
    assert found.camera.full_well_log10[0] > MINE.full_well_log10[0] + 0.4
    assert np.mean(found.camera.defocus_px) < np.mean(MINE.defocus_px)


def test_unfit_photographs_are_refused(simulator: EyeSimulator) -> None:
    with pytest.raises(ValueError, match="at least 2 of 3 x 3 pixels expected"):
        fit_camera(simulator, np.zeros((1, 1, 35, 55), np.uint8))
    with pytest.raises(ValueError, match="photographs that differ expected"):
        fit_camera(simulator, np.zeros((3, 1, 35, 55), np.uint8))


def test_cameras_in_files(tmp_path: Path) -> None:
    save_camera(MINE, tmp_path / "camera.json")
    assert load_camera(tmp_path / "camera.json") == MINE
    broken: list[tuple[object, str]] = [
        (plain(MINE) | {"defocus": [0, 1]}, r"mine\.json.*Did you mean 'defocus_px'"),
        ({n: v for n, v in plain(MINE).items() if n != "gradient"}, r"mine\.json: no gradient found"),
        (plain(MINE) | {"motion_px": [2, 1]}, r"mine\.json.*low <= high expected"),
        (plain(MINE) | {"defocus_px": [0, 1]}, r"mine\.json: defocus_px is \[0, 1\]; numbers of at least 0.01"),
        (plain(MINE) | {"jpeg_quality": "fine"}, r"mine\.json.*jpeg_quality.*expected 2 numbers"),
        ([1, 2], r"mine\.json.*expected an object"),
    ]
    for tree, message in broken:
        with pytest.raises(ValueError, match=message):
            parse_camera(tree, "mine.json")
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(ValueError, match=r"torn\.json is not JSON"):
        load_camera(tmp_path / "torn.json")


def test_eyes_are_simulated_through_the_camera_of_a_file(tmp_path: Path) -> None:
    save_camera(MINE, tmp_path / "camera.json")
    seen = simulate_eyes(3, tmp_path / "seen", assets=load_assets(None), sensor=MINE, progress=False)
    command = ["simulate", "eyes", "--count", "3", "--camera", str(tmp_path / "camera.json"), "--out"]
    done = RUNNER.invoke(app, [*command, str(tmp_path / "eyes")])
    assert done.exit_code == 0, done.output
    eyes = Store.open(tmp_path / "eyes")
    assert np.array_equal(eyes.images(), seen.images())
    assert eyes.provenance["sensor"] == repr(MINE)
    without = RUNNER.invoke(app, [*command[:4], "--out", str(tmp_path / "clear")])
    assert without.exit_code == 0 and not np.array_equal(Store.open(tmp_path / "clear").images(), seen.images())
    refused = RUNNER.invoke(app, [*command, str(tmp_path / "folder"), "--format", "unityeyes"])
    assert refused.exit_code == 1 and "a store expected" in str(refused.exception)
    (tmp_path / "camera.json").write_text(json.dumps(plain(MINE) | {"blur": [0, 1]}))
    refused = RUNNER.invoke(app, [*command, str(tmp_path / "late")])
    assert refused.exit_code == 1 and "has no" in str(refused.exception) and not (tmp_path / "late").exists()


def test_fit_writes_a_camera_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renders = simulate_eyes(
        simulator_fit.FEWEST_RENDERS, tmp_path / "renders", assets=load_assets(None), progress=False
    )
    whole, called = simulator_fit.fit_stores, []

    def short(*arguments: Any, **options: Any) -> simulator_fit.SimulatorFit:
        few = {"steps": 4, "evaluations": 3, "light_evaluations": 2, "camera_evaluations": 8, "progress": False}
        return whole(*arguments, **options | few)

    def spied(simulator: EyeSimulator, real: np.ndarray, **options: Any) -> CameraFit:
        called.append((simulator.ranges, options["equalise"], len(real)))
        return fit_camera(simulator, real, renders=8, evaluations=options["evaluations"])

    monkeypatch.setattr(simulator_fit, "fit_stores", short)
    monkeypatch.setattr(simulator_fit, "fit_camera", spied)
    monkeypatch.setattr(simulator_fit, "DRAWS", 100)
    monkeypatch.setattr(simulator_fit, "PHOTOGRAPHS", 40)
    command = ["fit", *[str(renders.path)] * 2, "--networks", "1", "--json", "--out", str(tmp_path / "ranges.json")]
    done = RUNNER.invoke(app, [*command, "--camera-out", str(tmp_path / "camera.json")])
    assert done.exit_code == 0, done.output
    found, camera = json.loads(done.stdout), load_camera(tmp_path / "camera.json")
    assert found["camera_defocus_px"] == list(camera.defocus_px)
    assert found["camera_full_well_log10"] == list(camera.full_well_log10)
    assert camera.jpeg_quality == camera_fit.START.jpeg_quality
    fitted = load_ranges(tmp_path / "ranges.json")
    [(ranges, equalise, count)] = called
    assert equalise and count == 40
    assert ranges.falloff_x_normal == fitted.falloff_x_normal, "the camera comes after the light"
    done = RUNNER.invoke(app, command)
    assert done.exit_code == 0 and "camera_defocus_px" not in json.loads(done.stdout) and len(called) == 1
    refused = RUNNER.invoke(app, [*command, "--camera-out", str(tmp_path / "ranges.json")])
    assert refused.exit_code == 1 and "two files expected" in str(refused.exception)
