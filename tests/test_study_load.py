"""Many subjects at once, the server killed in the middle: nothing confirmed is lost, nothing counts twice."""

import asyncio
import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from simgan_core.study.load import compare, load_study, measure, report_text, run_load
from simgan_core.study.load_client import Run, Subject, free_port


def test_few_subjects_and_a_killed_server(tmp_path: Path) -> None:
    run, verdict = run_load(tmp_path, subjects=3, trials=8, think_ms=50, kill=True)
    assert (verdict["lost"], verdict["changed"], verdict["double"]) == (0, 0, 0)
    assert verdict["stored"] == verdict["planned"] == verdict["confirmed"] == 24
    assert verdict["finished"] == 3 and verdict["reconnects"] >= 1, "nobody noticed the kill: it tested nothing"
    assert run.kernel_mib and all(5 < one < 500 for one in run.kernel_mib)


def test_a_client_that_never_gets_through_gives_up_and_the_run_fails(tmp_path: Path) -> None:
    study = load_study(tmp_path / "study.db", 1, 4)
    run = Run(1, 4, killed=False)
    client = Subject("a", f"http://127.0.0.1:{free_port()}", "x" * 43, run, 50, seed=0)
    assert 60 < client.patience < 600
    client.patience = 1.5
    asyncio.run(asyncio.wait_for(client.take_part(), 60))
    assert (run.finished, run.gave_up) == (0, 1)
    assert compare(study.rows(), run)["gave_up"] == 1
    study.close()


def test_lost_changed_and_double_answers_are_noticed(tmp_path: Path) -> None:
    study = load_study(tmp_path / "study.db", 2, 4)
    rows: list[dict[str, Any]] = [row | {"answer": "real"} for row in study.rows()]
    names = list(study.tokens())
    run = Run(2, 4, killed=True, confirmed={name: dict.fromkeys(range(4), "real") for name in names})
    assert {compare(rows, run)[name] for name in ("lost", "changed", "double")} == {0}
    worse = copy.deepcopy(rows)
    worse[0]["answer"], worse[1]["answer"] = None, "refined"
    worse.append(dict(worse[2]))
    found = compare(worse, run)
    assert (found["lost"], found["changed"], found["double"]) == (1, 1, 1)
    study.close()


@pytest.mark.slow
@pytest.mark.skipif("SIMGAN_LOAD_TEST" not in os.environ, reason="takes minutes: set SIMGAN_LOAD_TEST=1 to run it")
def test_25_subjects_100_trials_and_p95(tmp_path: Path) -> None:
    """The whole load test, as `simgan study load` runs it: minutes."""
    found = measure(tmp_path)
    assert found["no_answer_lost_or_double"] and found["all_answers_stored"]
    assert found["latency_within_limit"], found["runs"]["latency"]
    assert found["runs"]["kill"]["subjects"] == 25 and found["runs"]["kill"]["reconnects"] >= 25
    assert json.loads((tmp_path / "load.json").read_text())["passed"]
    assert "failed" not in report_text(found)
