"""Comparing domains without labels: framing and light that differ are found, by how much, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_eyes import toy_eyes

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.store import Store, StoreWriter
from simgan_core.evaluation.domain_gap import _targets, ask, compare_domains, pixel_distance


def store(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Store:
    columns = {}
    if labels is not None:
        columns = {"pitch": labels[:, 0], "yaw": labels[:, 1]}
        columns |= {"pupil_u": 27.5 - 30 * labels[:, 1], "pupil_v": 17.5 - 30 * labels[:, 0]}
    with StoreWriter(path, size=(35, 55), channels=1, provenance={"toy": 0}) as writer:
        writer.append(images, columns)
    return Store.open(path)


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Store:
    images, labels = toy_eyes(1500, seed=1)
    return store(tmp_path_factory.mktemp("gap") / "renders", images, labels)


def test_a_shifted_frame_is_found_in_darker_noisy_images(renders: Store, tmp_path: Path) -> None:
    images, _ = toy_eyes(300, seed=2, real=True)
    shifted = np.roll(images, (2, -4), axis=(2, 3))  # down by 2, to the left by 4 pixels
    gap = compare_domains(renders, store(tmp_path / "real", shifted), steps=150, progress=False)
    moved = gap.table["real_mean"] - gap.table["synthetic_mean"]
    assert moved["pupil_x"] == pytest.approx(-4, abs=1.3)
    assert moved["pupil_y"] == pytest.approx(2, abs=1.3)
    assert gap.table.loc["pupil_x", "unit"] == "px" and gap.table.loc["yaw", "unit"] == "°"
    assert gap.pixel_distance > 3 * gap.pixel_floor


def test_equal_domains_do_not_differ(renders: Store, tmp_path: Path) -> None:
    images, _ = toy_eyes(300, seed=3)
    gap = compare_domains(renders, store(tmp_path / "same", images), steps=60, progress=False)
    assert gap.table["shift"].abs().max() < 0.3
    assert gap.pixel_distance < 3 * gap.pixel_floor


@pytest.mark.parametrize(("points", "outer"), [(20, 10), (16, 8), (11, None)])
def test_lid_corners_are_named_where_it_is_known_which_they_are(tmp_path: Path, points: int, outer: int | None) -> None:
    """Our simulator has 20 points along the lids, UnityEyes' own files 16."""
    images, labels = toy_eyes(4, seed=0)
    lids = np.arange(4 * points * 2, dtype=np.float32).reshape(4, -1)
    with StoreWriter(tmp_path / "lids", size=(35, 55), channels=1, provenance={"toy": 0}) as writer:
        writer.append(images, {"pitch": labels[:, 0], "yaw": labels[:, 1], "lid_landmarks": list(lids)})
    found = _targets(Store.open(tmp_path / "lids"))
    if outer is None:
        assert not [name for name in found if "corner" in name or "lid" in name]
    else:
        assert found["outer_corner_x"].tolist() == lids[:, 2 * outer].tolist()


def test_pixel_distance_is_in_grey_levels() -> None:
    images = torch.randint(60, 200, (400, 1, 36, 60), generator=torch.Generator().manual_seed(0)).byte().numpy()
    assert pixel_distance(images, images) < 0.1
    assert pixel_distance(images + 10, images) == pytest.approx(10, abs=0.1)


def test_labels_of_real_images_are_not_read_and_bad_stores_are_named(renders: Store, tmp_path: Path) -> None:
    images, labels = toy_eyes(60, seed=4)
    with_labels, without = store(tmp_path / "a", images, np.full_like(labels, 0.3)), store(tmp_path / "b", images)
    tables = [compare_domains(renders, real, steps=5, progress=False).table for real in (with_labels, without)]
    assert tables[0].equals(tables[1])
    with pytest.raises(DataError, match="no angles and no landmarks"):
        compare_domains(without, without, steps=5, progress=False)


@pytest.mark.parametrize("seed", [13, 15])  # of which a draw by chance held out none, and one
def test_of_the_fewest_renders_enough_are_held_out(renders: Store, tmp_path: Path, seed: int) -> None:
    few = store(tmp_path / "few", renders.images(slice(0, 32)), renders.pitch_yaw()[:32])
    answers = ask(few, renders, seed=seed, steps=2, limit=100, progress=False)
    assert len(answers.truth) == len(answers.synthetic) == 8


def test_too_few_images_are_refused_before_anything_is_trained(renders: Store, tmp_path: Path) -> None:
    one = store(tmp_path / "one", renders.images(slice(0, 1)))
    with pytest.raises(DataError, match="one: found 1 images; expected at least 8"):
        compare_domains(renders, one, progress=False)
    few = store(tmp_path / "few", renders.images(slice(0, 9)), renders.pitch_yaw()[:9])
    with pytest.raises(DataError, match="few: found 9 images; expected at least 32"):
        compare_domains(few, renders, progress=False)
