"""The playground: sliders set what is rendered, only trained seeds are offered, pictures follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simgan_core.checkpoints import REFINER, save_refiner
from simgan_core.models import build_networks
from simgan_core.playground import EyeBench, StepViewer, bench_widget, beside, difference
from simgan_core.profiles import smoke
from simgan_core.simulators import EyeRanges, EyeSimulator
from simgan_core.simulators.simulate import load_assets


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> EyeBench:
    config, root = smoke(), tmp_path_factory.mktemp("refiners")
    refiners: dict[str, dict[int, Path]] = {"weak": {}, "strong": {}}
    for label, seed in (("weak", 0), ("strong", 0), ("strong", 2)):
        folder = root / f"{label}-{seed}"
        folder.mkdir()
        save_refiner(build_networks(config, seed)[0], folder / REFINER, config, seed=seed, step=0)
        refiners[label][seed] = folder
    return EyeBench(EyeSimulator(load_assets(None), EyeRanges()), refiners, (35, 55))


def test_gaze_sliders_move_the_iris(bench: EyeBench) -> None:
    left, right = (bench.images("weak", 0, 3, gaze_yaw=yaw)[0].astype(int) for yaw in (20.0, -20.0))
    columns = np.arange(55)
    dark = [float(((255 - image[0]) ** 4 * columns).sum() / ((255 - image[0]) ** 4).sum()) for image in (left, right)]
    assert dark[0] < dark[1] - 2  # positive yaw is to the left of the image
    with pytest.raises(KeyError, match="gaze_roll"):
        bench.images("weak", 0, 3, gaze_roll=1.0)


def test_a_seed_that_was_not_trained_is_refused(bench: EyeBench) -> None:
    assert bench.seeds_of("strong") == [0, 2]
    assert not np.array_equal(bench.images("strong", 0, 1)[1], bench.images("strong", 2, 1)[1])
    with pytest.raises(KeyError, match="seed 2 of 'weak' found; trained are 0"):
        bench.images("weak", 2, 1)


def test_the_widget_offers_the_seeds_of_the_chosen_refiner(bench: EyeBench) -> None:
    box = bench_widget(bench, identities=3)
    controls = {c.description: c for column in box.children[0].children for c in column.children}
    picture = box.children[2]
    assert controls["seed"].options == (0,)
    controls["refiner"].value = "strong"
    assert controls["seed"].options == (0, 2)
    before = picture.value
    controls["seed"].value = 2
    assert picture.value != before
    controls["refiner"].value = "weak"
    assert controls["seed"].options == (0,) and controls["seed"].value == 0


def test_step_viewer_shows_every_training_and_refuses_unlike_steps() -> None:
    renders = np.full((2, 35, 55), 100, np.uint8)
    refined = np.stack([renders, renders + 50])
    viewer = StepViewer.of({"local": ([10, 20], renders, refined), "global": ([10, 20], renders, refined)})
    assert viewer.titles == ["synthetic", "local", "local: change", "global", "global: change"]
    assert np.array_equal(
        viewer.picture(0, 1), beside([renders[0]] + 2 * [refined[1, 0], difference(renders[0], refined[1, 0])])
    )
    with pytest.raises(ValueError, match="expected the same iterations"):
        StepViewer.of({"local": ([10, 20], renders, refined), "global": ([10, 30], renders, refined)})
