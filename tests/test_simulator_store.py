"""Simulated eyes in a store, and UnityEyes' assets as they are read."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from simgan_core.images import equalise, resize
from simgan_core.simulators import EyeAssets, EyeRanges, EyeSimulator, load_assets, published_prior, simulate_eyes
from simgan_core.simulators.simulate import describe_ranges, finish, in_order
from simgan_core.simulators.unityeyes_assets import load_unityeyes_assets

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
UNITYEYES = DATA_ROOT / "unityeyes2"
needs_unityeyes = pytest.mark.skipif(not UNITYEYES.is_dir(), reason=f"no {UNITYEYES}; set SIMGAN_DATA_ROOT")


@pytest.fixture(scope="module")
def assets() -> EyeAssets:
    return load_assets(None)


def test_a_store_holds_images_and_labels_at_the_final_size(assets: EyeAssets, tmp_path: Path) -> None:
    store = simulate_eyes(40, tmp_path / "eyes", assets=assets, seed=4, progress=False)
    simulator = EyeSimulator(assets)
    batch = simulator.render(simulator.sample(4, range(40)))
    level = (batch.image * 255).round().to(torch.uint8)
    assert np.array_equal(store.images(None), resize(equalise(level), (35, 55)).numpy())
    table = store.annotations()
    assert len(store) == 40 and table["index"].tolist() == list(range(40)) and set(table["seed"]) == {4}
    assert np.allclose(table["pupil_u"], batch.labels.pupil[:, 0] * 55 / 60, atol=1e-3)
    assert np.allclose(table["pupil_v"], batch.labels.pupil[:, 1] * 35 / 36, atol=1e-3)
    vector = table[["gaze_x", "gaze_y", "gaze_z"]].to_numpy()
    pitch, yaw = table["pitch"], table["yaw"]
    expected = np.stack([-np.cos(pitch) * np.sin(yaw), -np.sin(pitch), -np.cos(pitch) * np.cos(yaw)], 1)
    assert np.allclose(vector, expected, atol=1e-5)
    assert len(table["iris_landmarks"][0]) == 64 and len(table["lid_landmarks"][0]) == 40
    assert store.provenance["assets"] == "procedural" and store.provenance["seed"] == 4


def test_a_longer_run_starts_with_the_same_images(assets: EyeAssets, tmp_path: Path) -> None:
    short = simulate_eyes(5, tmp_path / "short", assets=assets, seed=1, progress=False)
    long = simulate_eyes(37, tmp_path / "long", assets=assets, seed=1, progress=False)
    assert np.array_equal(short.images(None), long.images(slice(0, 5)))


def test_a_sensor_gets_the_seed_and_the_images_numbers(assets: EyeAssets, tmp_path: Path) -> None:
    seen: list[tuple[int, list[int]]] = []

    def negative(image: Tensor, seed: int, indices: list[int]) -> Tensor:
        seen.append((seed, indices))
        return 1 - image

    options = {"assets": assets, "seed": 2, "progress": False, "equalise": False, "size": (36, 60)}
    plain = simulate_eyes(40, tmp_path / "plain", **options)  # type: ignore[arg-type]
    changed = simulate_eyes(40, tmp_path / "changed", sensor=negative, **options)  # type: ignore[arg-type]
    assert np.abs(255 - plain.images(None).astype(int) - changed.images(None)).max() <= 1
    assert sorted(index for _, indices in seen for index in indices) == list(range(40))
    assert {seed for seed, _ in seen} == {2}


def test_colour_stores_have_three_channels(assets: EyeAssets, tmp_path: Path) -> None:
    store = simulate_eyes(3, tmp_path / "eyes", assets=assets, colour=True, progress=False)
    assert store.channels == 3 and store.images(None).shape == (3, 3, 35, 55)


def test_a_failure_leaves_nothing(assets: EyeAssets, tmp_path: Path) -> None:
    def broken(image: Tensor, seed: int, indices: list[int]) -> Tensor:
        raise RuntimeError("out of film")

    with pytest.raises(RuntimeError, match="out of film"):
        simulate_eyes(40, tmp_path / "eyes", assets=assets, sensor=broken, progress=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="expected at least 1"):
        simulate_eyes(0, tmp_path / "eyes", assets=assets)


def test_levels_are_equalised_before_they_are_resized() -> None:
    image = torch.rand(2, 1, 36, 60, generator=torch.Generator().manual_seed(0)) * 0.3
    flat = finish(image, (36, 60), equalise=True)
    assert flat.float().mean().item() == pytest.approx(127, abs=3)
    assert torch.equal(finish(image, (36, 60), equalise=False), (image * 255).round().to(torch.uint8))


def test_jobs_on_threads_come_back_in_order_and_few_at_a_time() -> None:
    started: list[int] = []

    def work(job: int) -> tuple[int, int]:
        started.append(job)
        return job, torch.get_num_threads()

    threads = torch.get_num_threads()
    results = in_order(work, range(50), workers=3)
    first = next(results)
    assert first[0] == 0 and len(started) <= 7
    rest = list(results)
    assert [job for job, _ in [first, *rest]] == list(range(50))
    assert {used for _, used in rest} == {1}
    torch.set_num_threads(threads)


def test_the_published_prior_leaves_one_person_out(tmp_path: Path) -> None:
    labels = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2) + 1
    np.savez(tmp_path / "labels.npz", pitch_yaw=labels)
    prior = published_prior(tmp_path / "labels.npz", exclude_subject=1)
    assert prior.shape == (8, 2)
    assert np.array_equal(prior.reshape(2, 4, 2), labels[[0, 2]])
    np.savez(tmp_path / "other.npz", image=labels)
    with pytest.raises(ValueError, match=r"other\.npz.*pitch_yaw"):
        published_prior(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="subject 3"):
        published_prior(tmp_path / "labels.npz", exclude_subject=3)


def test_ranges_are_described_without_the_labels_of_a_prior() -> None:
    described = describe_ranges(EyeRanges().with_prior(np.radians([[-10.0, 2.0], [-6.0, 4.0]])))
    assert described["gaze_prior"] == {"labels": 2, "mean_deg": [-8.0, 3.0], "sd_deg": [2.0, 1.0]}


@needs_unityeyes
def test_unityeyes_assets_fit_together() -> None:
    assets = load_unityeyes_assets(UNITYEYES, skin_pixels=64, iris_pixels=64)
    assert assets.mean.shape == (229, 3) and assets.components.shape == (20, 229, 3)
    assert assets.subdivision.shape == (872, 229) and assets.triangles.shape == (1656, 3)
    assert len(assets.skin) == 20 and len(assets.iris) == 5
    assert torch.allclose(assets.subdivision.sum(1), torch.ones(872), atol=1e-5)
    assert assets.iris_probability.max().item() == pytest.approx(0.6)  # half of all eyes, and a fifth of the others
    inner, outer = assets.mean[assets.inner_corner], assets.mean[assets.outer_corner]
    assert outer[0] - inner[0] > 24 and inner[0] < 0  # a left eye: the nose is at image-left
    fine = assets.subdivision @ assets.mean
    a, b, c = fine[assets.triangles].unbind(1)
    facing = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (facing > 0).float().mean() > 0.9  # clockwise as displayed, so that the z-buffer shows them
    simulator = EyeSimulator(assets, frame=(36, 60))
    first = simulator.render(simulator.sample(0, range(8)))
    large = replace(first.parameters, pupil_radius=torch.full((8,), 2.4))
    assert first.image.std() > 0.05 and (simulator.render(large).image - first.image).abs().max() > 0.02


@needs_unityeyes
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Resources/ShapePCA/transformed_std.txt", ""),
        ("Resources/ShapePCA/pca_components.txt", "1 2 x\n"),
        ("eye_region.3ds", "MM"),
        ("Resources/IrisTextures/eyeball_brown.png", "no image"),
    ],
)
def test_damaged_assets_are_named(tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "Assets"
    shutil.copytree(UNITYEYES / "Assets", folder, copy_function=os.symlink)
    (folder / name).unlink()
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=Path(name).name.split(".")[0].split("_")[0]):
        load_unityeyes_assets(tmp_path, skin_pixels=32, iris_pixels=32)


def test_a_folder_without_assets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="simgan data fetch unityeyes2"):
        load_assets(tmp_path)
