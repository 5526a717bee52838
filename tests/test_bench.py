"""The benchmark: positive rates for every row of its table, as one JSON object."""

from __future__ import annotations

import json

import torch
from typer.testing import CliRunner

from simgan_core.bench import rate
from simgan_core.cli import app


def test_the_command_prints_one_object_with_all_rates() -> None:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, ["bench", "--profile", "smoke", "--count", "8", "--seconds", "0", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rates = {name: value for name, value in found.items() if name.endswith("images_per_s")}
    assert len(rates) == 15 and all(value > 0 for value in rates.values())
    assert found["hardware"] and found["profile"] == "smoke"
    assert torch.get_num_threads() == threads


def test_a_rate_counts_processor_time() -> None:
    def work() -> None:
        sum(range(200_000))

    one, two = (rate(work, images, 0.1, torch.device("cpu")) for images in (10, 20))
    assert 1.2 < two / one < 3.3
