"""Lambda by labelled stand-ins: the one-standard-error rule, and which selections may be put together."""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.standins import Judged, judged, one_standard_error


def candidate(lambda_sum: float, *errors: float, step: int = 1350, kept: bool = True) -> Judged:
    return Judged(lambda_sum, step, errors, kept)


def selection(seed: int, errors: dict[float, float], lost: tuple[float, ...] = ()) -> dict[str, Any]:
    """What `simgan select --validation --json` prints, as far as it is read."""
    return {
        "raw_validation_error_deg": {"plain": {"value": 5.5}, "augmented": {"value": 4.0}},
        "candidates": [
            {
                "lambda_sum": value,
                "step": 1350,
                "verdict": "label lost: shift up to 1.90 px" if value in lost else "less real than the best",
                "validation_error_deg": {"plain": {"value": error}, "augmented": {"value": 9 - error}},
            }
            for value, error in errors.items()
        ],
        "settings": {"seed": seed, "lambdas": list(errors), "steps": [1350], "cnns": 2},
        "stores": {"synthetic": {"images": 9, "checksum": "a"}},
    }


def test_of_candidates_within_a_standard_error_the_strongest_is_taken() -> None:
    found = one_standard_error(
        [candidate(0.2, 4.9, 5.1), candidate(0.8, 5.0, 5.2), candidate(3.2, 5.4, 5.6), candidate(0.1, 4.95, 5.15)]
    )
    assert found.standard_error == pytest.approx(0.1)  # sd of each pair is 0.1414; over sqrt(2)
    assert found.best is not None and found.best.lambda_sum == 0.2
    assert found.chosen is not None and found.chosen.lambda_sum == 0.8
    verdicts = [found.verdict(one) for one in found.candidates]
    assert verdicts == ["least error", "chosen", "worse", "within a standard error, weaker"]


def test_clear_errors_decide_and_a_lost_label_never_wins() -> None:
    sharp = [candidate(0.2, 4.50, 4.52), candidate(0.8, 5.0, 5.02), candidate(0.05, 4.0, 4.02, kept=False)]
    found = one_standard_error(sharp)
    assert found.chosen == sharp[0] and found.verdict(sharp[2]) == "label lost"
    nothing = one_standard_error([candidate(0.1, 4.0, 4.1, kept=False)])
    assert nothing.chosen is None and nothing.verdict(nothing.candidates[0]) == "label lost"


def test_of_equal_lambdas_the_fewest_steps_are_taken() -> None:
    found = one_standard_error([candidate(0.8, 5.0, 5.2), candidate(0.8, 5.02, 5.22, step=450)])
    assert found.chosen is not None and found.chosen.step == 450


@given(
    st.lists(st.tuples(st.floats(1, 9), st.floats(1, 9), st.floats(1, 9)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_choice_errs_by_at_most_a_standard_error_more_and_no_order_matters(
    errors: list[tuple[float, float, float]], random: Any
) -> None:
    candidates = [candidate(0.1 * 2**place, *values) for place, values in enumerate(errors)]
    found = one_standard_error(candidates)
    assert found.chosen is not None and found.best is not None
    assert found.best.mean == min(one.mean for one in candidates)
    assert found.chosen.mean <= found.best.mean + found.standard_error
    assert all(
        one.mean > found.best.mean + found.standard_error
        for one in candidates
        if one.lambda_sum > found.chosen.lambda_sum
    )
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert one_standard_error(shuffled).chosen == found.chosen


def test_selections_are_put_together_by_candidate_and_one_lost_label_is_enough() -> None:
    errors = {0.2: 4.8, 0.8: 5.0}
    reordered = selection(1, {0.8: 5.2, 0.2: 4.9})
    found = judged([selection(0, errors, lost=(0.2,)), reordered])
    assert [(one.lambda_sum, one.errors, one.label_kept) for one in found] == [
        (0.2, (4.8, 4.9), False),
        (0.8, (5.0, 5.2), True),
    ]
    assert found[1].mean == statistics.fmean((5.0, 5.2))


def test_what_does_not_belong_together_is_refused() -> None:
    first = selection(0, {0.2: 4.8, 0.8: 5.0})
    with pytest.raises(ValueError, match=r"1 selection found; expected two or more"):
        judged([first])
    with pytest.raises(ValueError, match=r"seeds \[0, 0\] found; expected each seed once"):
        judged([first, first])
    unlabelled = selection(1, {0.2: 4.8, 0.8: 5.0})
    del unlabelled["raw_validation_error_deg"]
    with pytest.raises(ValueError, match="seed 1 found without gaze errors; expected one made with --validation"):
        judged([first, unlabelled])
    with pytest.raises(ValueError, match="seed 1 differs from that of seed 0 in candidates;"):
        judged([first, selection(1, {0.2: 4.8})])
    elsewhere = copy.deepcopy(selection(1, {0.2: 4.8, 0.8: 5.0}))
    elsewhere["stores"]["synthetic"]["checksum"] = "b"
    with pytest.raises(ValueError, match="differs from that of seed 0 in stores"):
        judged([first, elsewhere])
    with pytest.raises(ValueError, match=r"errors of \[1\] seeds found; expected two or more"):
        one_standard_error([candidate(0.2, 5.0)])


def test_the_command_prints_the_choice_and_names_a_wrong_file(tmp_path: Path) -> None:
    files = []
    for seed, shift in enumerate((0.0, 0.2)):
        files.append(tmp_path / f"seed-{seed}.json")
        files[-1].write_text(json.dumps(selection(seed, {0.2: 4.9 + shift, 0.8: 5.0 + shift, 3.2: 5.4 + shift})))
    names = [str(file) for file in files]
    text = CliRunner().invoke(app, ["choose", *names])
    assert text.exit_code == 0 and "chosen: lambda 0.8, step 1350" in text.stdout and "4.90, 5.10" in text.stdout
    printed = json.loads(CliRunner().invoke(app, ["choose", *names, "--json"]).stdout)
    assert printed["chosen"] == {"lambda_sum": 0.8, "step": 1350}
    assert printed["standard_error_deg"] == pytest.approx(0.1)
    files[1].write_text("[]")
    wrong = CliRunner().invoke(app, ["choose", *names])
    assert wrong.exit_code != 0 and "seed-1.json has no candidates, settings, stores" in str(wrong.exception)
    files[1].write_text("{")
    assert "cannot be read as JSON" in str(CliRunner().invoke(app, ["choose", *names]).exception)
