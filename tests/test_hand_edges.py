"""Edges of a run's hands: one training for both notebooks, the test store as the reference, signs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_hands import toy_hand_store

from simgan_core import hand_edges, hand_stages
from simgan_core.config_hand import HandDataConfig, smoke
from simgan_core.datasets.prepare_hands import NAMES, RECORDED, PreparedHands
from simgan_core.evaluation.depth_edges import edge_counts
from simgan_core.hand_edges import HandEdges, compare_edges
from simgan_core.hand_stages import HandRun

CONFIG = replace(smoke(), data=HandDataConfig(poses=4, target_poses=4, validation=6, test=5))


@pytest.fixture
def hands(tmp_path: Path) -> HandRun:
    views = {"validation": 1, "test": 1, RECORDED: 1}
    for seed, name in enumerate((*NAMES, RECORDED)):
        toy_hand_store(tmp_path / "stores" / name, 6, seed, views=views.get(name, 3), target=name != "synthetic")
    return HandRun(tmp_path, CONFIG, (0, 1), PreparedHands.at(tmp_path / "stores", is_standin=True))


def test_one_training_serves_both_notebooks(hands: HandRun, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_stages.train_hand_refiners(hands, workers=1, progress=False)
    first = compare_edges(hands, count=6)
    monkeypatch.setattr(hand_stages, "refine_store", lambda *_, **__: pytest.fail("refined again"))
    written = {path: path.stat().st_mtime_ns for path in hands.path.rglob("refiner.safetensors")}
    hand_stages.train_hand_refiners(hands, workers=1, progress=False)
    assert len(written) == 4
    assert {path: path.stat().st_mtime_ns for path in hands.path.rglob("refiner.safetensors")} == written
    again = compare_edges(hands, count=6)
    assert first.advantage() == again.advantage()
    assert first.table()["images"].tolist() == [
        "synthetic", "refined, local D", "refined, global D", "target, other images",
    ]  # fmt: skip
    assert {name: len(first.counts[name]) for name in ("raw", "local", "global")} == {"raw": 1, "local": 2, "global": 2}
    assert np.array_equal(
        first.refined["local"][1], hand_stages.refined_images(hands, "local", first.synthetic, [1])[0]
    )


def test_trainings_of_the_same_folder_wait_for_each_other(hands: HandRun, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Path] = []

    def taken(lock: Path) -> object:
        held.append(lock)
        return original(lock)

    original = hand_stages.alone
    monkeypatch.setattr(hand_stages, "alone", taken)
    hand_stages.train_hand_refiners(replace(hands, seeds=(0,)), workers=1, progress=False)
    assert [lock.name for lock in held] == ["local-seed-0.lock", "global-seed-0.lock"]


def test_the_reference_is_what_nothing_was_chosen_by(hands: HandRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_edges, "refined_images", lambda _, __, images, seeds: np.stack([images] * len(seeds)))
    edges = compare_edges(hands, count=6)
    assert np.array_equal(edges.reference, edge_counts(hand_stages.frontal(hands.stores.test, 6)))
    assert np.array_equal(edges.counts["target"][0], edge_counts(hand_stages.frontal(hands.stores.validation, 6)))
    estimates = edges.estimates()
    assert estimates["target"].value < estimates["raw"].value, "ragged edges are nearer to ragged ones"
    assert estimates["raw"].value == pytest.approx(estimates["local"].value) and edges.advantage().value == 0


def test_local_gains_where_its_edges_are_nearer(hands: HandRun) -> None:
    synthetic, target = (hand_stages.frontal(path, 6) for path in (hands.stores.synthetic, hands.stores.validation))
    clean, torn = edge_counts(synthetic), edge_counts(target)
    counts = {"raw": clean[None], "target": torn[None], "local": torn[None], "global": clean[None]}
    edges = HandEdges(synthetic, {}, target, counts, torn)
    assert edges.advantage().value > 0 and edges.estimates()["local"].value == 0
