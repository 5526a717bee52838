"""Fitting the simulator to what a network saw in unlabelled images: known ranges are found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from simgan_core.datasets.errors import DataError
from simgan_core.evaluation import simulator_fit
from simgan_core.evaluation.domain_gap import ANGLES, LIDS, Answers
from simgan_core.evaluation.simulator_fit import SETTINGS, fit_simulator, fit_stores, landmarks
from simgan_core.simulators import EyeRanges, EyeSimulator
from simgan_core.simulators.ranges import load_ranges, parse_ranges, save_ranges
from simgan_core.simulators.simulate import load_assets, simulate_eyes

SIZE = (35, 55)
NAMES = (*ANGLES, "pupil_x", "pupil_y", *(f"{name}_{axis}" for name in LIDS[20] for axis in "xy"))


@pytest.fixture(scope="module")
def simulator() -> EyeSimulator:
    return EyeSimulator(load_assets(None), EyeRanges(kappa_yaw_normal_deg=(0.0, 1.5)))


def seen(truth: np.ndarray, seed: int) -> np.ndarray:
    """A network that underrates what it sees, answers with an offset, and errs."""
    return 0.8 * truth + 1.0 + np.random.default_rng(seed).normal(0, 0.5, truth.shape)


def test_known_ranges_are_found_again(simulator: EyeSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    start = simulator.ranges
    hidden = replace(
        start,
        field_width_normal_mm=(35.5, 1.2),
        shift_y_normal_mm=(-0.1, 0.65),
        kappa_yaw_normal_deg=(-4.0, 1.5),
        shape_scale=0.4,
    )
    truth, real = landmarks(simulator, start, NAMES, SIZE), landmarks(simulator, hidden, NAMES, SIZE)
    monkeypatch.setattr(simulator_fit, "DRAWS", 200)
    found = fit_simulator(simulator, [Answers(NAMES, truth, seen(truth, 0), seen(real, 1))], SIZE, evaluations=1400)
    assert found.distance_after < 0.2 * found.distance_before
    assert found.ranges.field_width_normal_mm[0] == pytest.approx(35.5, abs=0.6)
    assert found.ranges.kappa_yaw_normal_deg[0] < -1.5  # a turned head moves the iris too: they share the rest
    assert found.ranges.shift_y_normal_mm[0] == pytest.approx(-0.1, abs=0.25)
    assert found.ranges.shape_scale < 0.62 < simulator.ranges.shape_scale  # lids and head vary faces too
    after = landmarks(simulator, found.ranges, NAMES, SIZE)
    pixels = [place for place, name in enumerate(NAMES) if name not in ANGLES]
    wrong, before = (np.abs(x.mean(0) - real.mean(0))[pixels].max() for x in (after, truth))
    assert wrong < 0.4 < 1.5 < before
    assert set(found.to_dict()) > {"kappa_yaw_normal_deg[0]", "shape_scale", "distance_after_px2"}


def test_a_few_held_out_renders_do_not_say_how_a_network_sees(simulator: EyeSimulator) -> None:
    """A linear map of sixteen unknowns goes through ten points exactly, and says nothing."""
    truth = landmarks(simulator, simulator.ranges, NAMES, SIZE)[:10]
    with pytest.raises(ValueError, match="10 held-out renders found; at least 48 expected"):
        fit_simulator(simulator, [Answers(NAMES, truth, seen(truth, 0), seen(truth, 1))], SIZE)


def test_what_already_fits_stays(simulator: EyeSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = landmarks(simulator, simulator.ranges, NAMES, SIZE)
    monkeypatch.setattr(simulator_fit, "DRAWS", 200)
    found = fit_simulator(simulator, [Answers(NAMES, truth, seen(truth, 0), seen(truth, 1))], SIZE, evaluations=300)
    for setting in SETTINGS:
        assert abs(setting.read(found.ranges) - setting.read(simulator.ranges)) < 1.5 * setting.step, setting


def test_landmarks_are_those_of_the_rendered_images(simulator: EyeSimulator) -> None:
    drawn = simulator.sample(1, range(6))
    labels, rendered = simulator.label(drawn), simulator.render(drawn).labels
    for name in ("gaze", "gaze_vector", "pupil", "iris_landmarks", "lid_landmarks"):
        torch.testing.assert_close(getattr(labels, name), getattr(rendered, name))


def test_angle_kappa_turns_the_iris_and_not_the_label(simulator: EyeSimulator) -> None:
    plain = simulator.sample(2, range(40), replace(simulator.ranges, kappa_yaw_normal_deg=(0.0, 0.0)))
    turned = simulator.sample(2, range(40), replace(simulator.ranges, kappa_yaw_normal_deg=(-5.0, 0.0)))
    before, after = simulator.label(plain), simulator.label(turned)
    torch.testing.assert_close(before.gaze, after.gaze)
    torch.testing.assert_close(before.gaze_vector, after.gaze_vector)
    moved = (after.pupil - before.pupil)[:, 0]
    assert moved.min() > 0.5  # towards the temple, which is to the right in the image of a left eye
    assert moved.mean() == pytest.approx(1.8, abs=0.5)  # 10 mm times 5 degrees, at 60 pixels for 33 mm


def test_ranges_in_files(tmp_path: Path) -> None:
    ranges = replace(EyeRanges(), head_follow=0.3, lid_gain=(0.5, 0.9))
    save_ranges(ranges, tmp_path / "ranges.json")
    assert load_ranges(tmp_path / "ranges.json") == ranges
    with pytest.raises(ValueError, match=r"kappa_yaw.*Did you mean 'kappa_yaw_normal_deg'"):
        parse_ranges({"kappa_yaw_deg": [0, 1]}, "mine.json")
    with pytest.raises(ValueError, match="skins found"):
        parse_ranges({"skins": [1]}, "mine.json")


def test_stores_are_fitted_and_others_refused(tmp_path: Path) -> None:
    renders = simulate_eyes(
        simulator_fit.FEWEST_RENDERS, tmp_path / "renders", assets=load_assets(None), progress=False
    )
    found = fit_stores(
        renders.path, renders.path, None, networks=1, steps=4, evaluations=3, light_evaluations=2, progress=False
    )
    assert found.start.gaze_prior is not None and len(found.start.gaze_prior) == len(renders)
    (tmp_path / "out.json").unlink(missing_ok=True)
    save_ranges(found.ranges, tmp_path / "out.json")
    assert load_ranges(tmp_path / "out.json").gaze_prior is None
    from test_domain_gap import store

    manifest = renders.path / "provenance.json"
    manifest.write_text(manifest.read_text().replace(f'"assets": "{load_assets(None).name}"', '"assets": "unityeyes"'))
    with pytest.raises(ValueError, match="renders of 'unityeyes' assets, but 'procedural' ones are to be fitted"):
        fit_stores(renders.path, renders.path, None, networks=1, steps=2)
    few = simulate_eyes(60, tmp_path / "few", assets=load_assets(None), progress=False)
    with pytest.raises(DataError, match=r"few: found 60 renders; expected at least 320"):
        fit_stores(few.path, renders.path, None)
    other = store(tmp_path / "other", renders.images(slice(0, 20)), np.zeros((20, 2)))
    with pytest.raises(ValueError, match="expected a store of 'simgan simulate eyes'"):
        fit_stores(other.path, renders.path, None, networks=1, steps=2)
