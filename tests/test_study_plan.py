"""The plan of a study: counts, runs, shares and ids, for any settings that can be meant."""

import dataclasses
import itertools
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simgan_core.study.plan import (
    Plan,
    StudySettings,
    images_needed,
    make_plan,
    ordered,
    right_answer,
    standin_texts,
)

PLENTY = {"real": 400, "refined": 400, "synthetic": 400, "attention_real": 1, "attention_refined": 1}


@st.composite
def possible_settings(draw: st.DrawFn) -> StudySettings:
    real = draw(st.integers(1, 12))
    return StudySettings(
        seed=draw(st.integers(0, 99)), subjects=draw(st.integers(1, 4)), real=real,
        refined=draw(st.integers(max(0, real - 2), real + 2)), control=draw(st.integers(0, 4)),
        practice=draw(st.integers(0, 5)), attention=draw(st.integers(0, 4)), max_run=draw(st.integers(3, 5)),
        images=draw(st.sampled_from(["same", "split"])),
    )  # fmt: skip


def blocks(trials: tuple) -> list[list]:
    """Trials by block; attention checks belong to the main one."""
    named = [("main" if trial.kind == "attention" else trial.kind, trial) for trial in trials]
    return [[trial for _, trial in group] for _, group in itertools.groupby(named, key=lambda pair: pair[0])]


@given(possible_settings())
@settings(max_examples=60, deadline=None)
def test_every_plan_keeps_its_promises(wanted: StudySettings) -> None:
    plan = make_plan(wanted, PLENTY, b"secret")
    assert len(plan.subjects) == wanted.subjects
    for trials in plan.subjects:
        assert [trial.number for trial in trials] == list(range(wanted.trials))
        counts = Counter((trial.kind, trial.image.source) for trial in trials)
        assert counts["main", "real"] == wanted.real and counts["main", "refined"] == wanted.refined
        assert counts["control", "real"] == counts["control", "synthetic"] == wanted.control
        assert sum(count for (kind, _), count in counts.items() if kind == "practice") == wanted.practice
        assert sum(count for (kind, _), count in counts.items() if kind == "attention") == wanted.attention
        for block in blocks(trials):
            runs = [len(list(run)) for _, run in itertools.groupby(trial.right_answer for trial in block)]
            assert max(runs) <= wanted.max_run
        ordinary = [trial.image.id for trial in trials if trial.kind != "attention"]
        assert len(set(ordinary)) == len(ordinary), "a subject sees an image twice"
    assert make_plan(wanted, PLENTY, b"secret") == plan


@given(possible_settings())
@settings(max_examples=40, deadline=None)
def test_images_are_the_same_for_all_or_nobody_elses(wanted: StudySettings) -> None:
    plan = make_plan(wanted, PLENTY, b"secret")
    seen = [
        {trial.image.id for trial in trials if trial.kind in ("main", "control")} for trials in plan.subjects
    ]  # fmt: skip
    if wanted.images == "same":
        assert all(own == seen[0] for own in seen)
    else:
        assert sum(map(len, seen)) == len(set().union(*seen))
    practice = {trial.image.id for trials in plan.subjects for trial in trials if trial.kind == "practice"}
    assert not practice & set().union(*seen), "practice tells the truth of an image that counts"


@given(possible_settings())
@settings(max_examples=30, deadline=None)
def test_it_says_exactly_how_many_images_it_needs(wanted: StudySettings) -> None:
    needed = images_needed(wanted)
    used = Counter(image.source for image in make_plan(wanted, needed, b"secret").images().values())
    assert {source: used[source] for source in needed} == needed
    short = next(source for source in ("real", "refined") if needed[source])
    with pytest.raises(ValueError, match=f"expected at least {needed[short]}"):
        make_plan(wanted, needed | {short: needed[short] - 1}, b"secret")


def test_orders_are_drawn_uniformly() -> None:
    """All valid orders of 3 + 3 trials with runs of at most 2 come up equally often."""
    right = ["real"] * 3 + ["refined"] * 3
    valid = {
        order for order in itertools.permutations(right)
        if max(len(list(run)) for _, run in itertools.groupby(order)) <= 2
    }  # fmt: skip
    rng = random.Random(0)
    found = Counter(tuple(ordered(right, 2, rng)) for _ in range(7000))
    assert set(found) == valid and len(valid) == 14
    expected = 7000 / len(valid)
    chi2 = sum((count - expected) ** 2 / expected for count in found.values())
    assert chi2 < 34.5  # 99.9 % quantile with 13 degrees of freedom


def test_subjects_have_orders_of_their_own_and_seeds_change_them() -> None:
    plan = make_plan(StudySettings(), PLENTY, b"secret")
    assert len({tuple(trial.image.id for trial in trials) for trials in plan.subjects}) == 10
    other = make_plan(StudySettings(seed=1), PLENTY, b"secret")
    assert [t.image.index for t in plan.subjects[0]] != [t.image.index for t in other.subjects[0]]


def test_an_order_says_nothing_without_the_secret() -> None:
    """Else whoever knows the default seed has the key to all answers, and practice tells which subject they are."""
    plans = [make_plan(StudySettings(), PLENTY, secret) for secret in (b"one", b"two")]
    truths = [[[trial.right_answer for trial in trials] for trials in plan.subjects] for plan in plans]
    assert all(one != two for one, two in itertools.product(*truths))
    rehearsals = [make_plan(StudySettings(), PLENTY, secret, open_order=True) for secret in (b"one", b"two")]
    ones, twos = ([[t.right_answer for t in trials] for trials in plan.subjects] for plan in rehearsals)
    assert ones == twos, "programs answer alike whatever the secret"


def test_an_id_says_nothing_without_the_secret() -> None:
    plans: list[Plan] = [make_plan(StudySettings(), PLENTY, secret) for secret in (b"one", b"two")]
    ids = [set(plan.images()) for plan in plans]
    assert not ids[0] & ids[1], "seed and code alone must not give the ids"
    for name, image in plans[0].images().items():
        assert len(name) == 32 and int(name, 16) >= 0
        assert image.source not in name
    # The order of the ids does not sort the sources either.
    ordered_ids = sorted(plans[0].images())
    sources = [right_answer(plans[0].images()[name].source) for name in ordered_ids]
    assert max(len(list(run)) for _, run in itertools.groupby(sources)) < 20


def test_texts_for_the_stand_in_call_nothing_real() -> None:
    standin = standin_texts(StudySettings(seed=3))
    assert standin.seed == 3 and standin == standin_texts(standin)
    texts = " ".join((standin.title, *standin.labels, standin.consent, standin.instructions, standin.end))
    assert not re.search(r"\breal|photo", texts, re.IGNORECASE)
    own = StudySettings(title="Mine", labels=("A", "B"))
    assert (standin_texts(own).title, standin_texts(own).labels) == ("Mine", ("A", "B")), "an experimenter's own stay"


def test_settings_survive_json_and_bad_ones_are_refused() -> None:
    assert StudySettings(keys=("ф", "о")).keys == ("ф", "о") and StudySettings(keys=("α", "1")).keys == ("α", "1")
    chosen = dataclasses.replace(StudySettings(), keys=("a", "ö"), deadline_ms=900, title="Ist das echt?")
    assert StudySettings.from_json(chosen.to_json()) == chosen
    for text, message in (
        ('{"colour": 1}', "unknown setting colour"), ("[]", "expected one object"), ("{", "not JSON"),
        ('{"keys": ["f", "F"]}', "two different"), ('{"keys": "fj"}', "expected two texts"),
        ('{"subjects": "3"}', "whole number"), ('{"real": 0, "refined": 0}', "at least one trial"),
        ('{"real": 30, "refined": 2, "max_run": 3}', "runs longer than 3"), ('{"images": "both"}', "'same'"),
        ('{"keys": ["f", "\u043e"]}', "letters of one script"), ('{"keys": ["\u0130", "a"]}', "single characters"),
        ('{"exposure_ms": 0}', "at least 1"), ('{"consent": 3}', "expected text"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            StudySettings.from_json(text)
