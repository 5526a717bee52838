"""Edges of a run's hands: one training for both notebooks, the test store as the reference, signs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_hands import toy_hand_store, toy_hands

from simgan_core import hand_edges, hand_stages
from simgan_core.config_hand import HandDataConfig, smoke
from simgan_core.datasets.prepare_hands import NAMES, RECORDED, PreparedHands
from simgan_core.datasets.store import Store, StoreWriter
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


def test_what_refiners_do_is_told(hands: HandRun) -> None:
    """Refiners that hand on their input made arms of table 4 that nobody could tell from raw ones, without a word."""
    for kind, change in (("local", 0.002), ("global", 0.04)):
        for seed in hands.seeds:
            folder = hands.refiner(kind, seed)
            folder.mkdir(parents=True)
            line = {"phase": "adversarial", "accuracy_real": 0.6, "accuracy_fresh": 0.4}
            early = json.dumps(line | {"iteration": 1, "refined_minus_input": 0.9}) + "\n"
            late = [json.dumps(line | {"iteration": k, "refined_minus_input": change}) + "\n" for k in range(2, 12)]
            (folder / "metrics.jsonl").write_text(early + "".join(late))
    table = hand_stages.refiner_activity(hands).set_index(["D", "seed"])
    assert table.loc[("local", 0), "change (levels of 255)"] == pytest.approx(0.255)
    assert table["equals input"].tolist() == [True, True, False, False]
    assert table.loc[("global", 1), "D right on target"] == pytest.approx(0.6)


def test_damaged_refined_hands_are_made_again(hands: HandRun) -> None:
    hand_stages.train_hand_refiners(replace(hands, seeds=(0,)), workers=1, progress=False)
    folder = hands.refined(0)
    whole = Store.open(folder).images(slice(None)).copy()
    shard = next(folder.glob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1])
    hand_stages.train_hand_refiners(replace(hands, seeds=(0,)), workers=1, progress=False)
    assert np.array_equal(Store.open(folder).images(slice(None)), whole)


def test_edges_are_those_of_the_whole_store_and_of_stretches_of_a_video(tmp_path: Path) -> None:
    """The first frames of a recording are one pose; neighbours resemble each other."""
    images, _ = toy_hands(400, 0)
    annotations = {"pose": np.arange(400), "view": np.zeros(400, np.int64)}
    with StoreWriter(tmp_path / "nyu", size=images.shape[2:], channels=1, provenance={"adapter": "nyu"}) as writer:
        writer.append(images, annotations)
    found, groups = hand_edges.spread_frontal(tmp_path / "nyu", 4)
    assert np.array_equal(found, images[[0, 133, 266, 399]]) and groups is not None and len(set(groups)) == 4


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
