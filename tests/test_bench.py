"""The benchmark: positive rates for every row of its table, as one JSON object."""

from __future__ import annotations

import json
import statistics

import pytest
import torch
from typer.testing import CliRunner

from simgan_core import bench
from simgan_core.bench import bench_hand_refiner, rate
from simgan_core.cli import app
from simgan_core.config_hand import hand_profile
from simgan_core.profiles import profile


def test_the_command_prints_one_object_with_all_rates() -> None:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, ["bench", "--profile", "smoke", "--count", "8", "--seconds", "0", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rates = {name: value for name, value in found.items() if name.endswith("images_per_s")}
    assert len(rates) == 12 and all(value > 0 for value in rates.values())
    assert found["hand_refiner_side"] == 56 and 0 < found["hand_refiner_share_of_matmul"] < 1
    assert found["hardware"] and found["profile"] == "smoke"
    assert torch.get_num_threads() == threads


def test_a_rate_counts_processor_time() -> None:
    def work() -> None:
        sum(range(200_000))

    cpu = torch.device("cpu")
    ratios = [rate(work, 20, 0.1, cpu) / rate(work, 10, 0.1, cpu) for _ in range(5)]
    assert 1.2 < statistics.median(ratios) < 3.3  # a neighbour may slow a processor down for a tenth of a second


def test_the_hands_refiner_against_a_matrix_product() -> None:
    found = bench_hand_refiner(hand_profile("smoke"), seconds=0.0, device="cpu")
    share = found["hand_refiner_images_per_s"] * found["hand_refiner_gflop_per_image"] / found["matmul_gflop_per_s"]  # type: ignore[operator]
    assert found["hand_refiner_share_of_matmul"] == pytest.approx(share, rel=0.02)


def test_operations_are_those_of_the_papers_network() -> None:
    """202 GMAC forward, and twice that backward but for the first layer's images, which need no gradient."""
    gmac = bench._hand_refiner_gflop(hand_profile("gpu")) / 2
    assert 3 * 201.57 - 0.5 < gmac < 3 * 201.58


def test_a_cpu_is_not_asked_for_the_papers_size() -> None:
    sides = {name: bench._hand_size(profile(name), "cpu").side for name in ("smoke", "cpu", "gpu", "paper")}
    assert set(sides.values()) == {56}
