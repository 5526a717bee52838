"""Scores of a study: the paper's numbers as known answers, brute force, simulated people with known ability."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from study_pictures import answers

from simgan_core.study import comparison, scoring
from simgan_core.study import power as power_of
from simgan_core.study.scoring import PAPER, PAPER_CONTROL, Confusion


def people(subjects: int, trials: int, d_prime: float, *, seed: int, bias_sd: float = 0.3) -> pd.DataFrame:
    """Answers of people with this d', each with a leaning of his own."""
    rng = np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        criterion = rng.normal(0, bias_sd)
        for number in range(trials):
            real = number % 2 == 0
            said_real = rng.normal((d_prime if real else -d_prime) / 2) > criterion
            rows.append((f"s{subject}", "real" if real else "refined", "real" if said_real else "refined", number))
    return pd.DataFrame(rows, columns=["subject", "truth", "answer", "image"])


def test_the_papers_table_1_gives_the_papers_numbers() -> None:
    assert (PAPER.correct, PAPER.n) == (517, 1000)
    assert scoring.p_one_sided(517, 1000) == pytest.approx(0.1483, abs=5e-5)
    assert scoring.p_two_sided(517, 1000) == pytest.approx(2 * 0.14834, abs=1e-4)
    share = scoring.clopper_pearson(517, 1000)
    assert (round(100 * share.low, 2), round(100 * share.high, 2)) == (48.55, 54.84)
    found = scoring.sensitivity(PAPER)
    assert (round(found.d_prime, 3), round(found.criterion, 3)) == (0.087, 0.174)
    assert scoring.p_one_sided(*PAPER_CONTROL) <= 1e-8


def test_a_table_of_answers_is_counted_cell_by_cell() -> None:
    assert Confusion.of(answers(PAPER)) == PAPER
    assert Confusion.of(answers(PAPER)).to_dict()["refined"] == {"real": 207, "refined": 293}
    only_right = answers(Confusion(5, 0, 0, 5), subjects=2)
    assert Confusion.of(only_right) == Confusion(5, 0, 0, 5)


def test_perfect_and_missing_answers_give_finite_or_no_sensitivity() -> None:
    perfect = scoring.sensitivity(Confusion(20, 0, 0, 20))
    assert perfect.d_prime == pytest.approx(2 * stats.norm.ppf(20.5 / 21)) and perfect.criterion == pytest.approx(0)
    assert math.isnan(scoring.sensitivity(Confusion(3, 4, 0, 0)).d_prime)


def test_sensitivity_recovers_an_observers_own() -> None:
    found = scoring.sensitivity(Confusion.of(people(1, 40_000, 0.8, seed=0, bias_sd=0)))
    assert found.d_prime == pytest.approx(0.8, abs=0.04) and found.criterion == pytest.approx(0, abs=0.02)


def test_per_subject_adds_up() -> None:
    table = scoring.per_subject(answers(PAPER))
    assert len(table) == 10 and table["n"].sum() == 1000 and table["correct"].sum() == 517
    assert ((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).all()


def test_intervals_over_subjects_know_that_people_differ() -> None:
    """Half of the people see all, half see nothing: answers are many, people are few."""
    blind, sharp = Confusion(25, 25, 25, 25), Confusion(50, 0, 0, 50)
    table = pd.concat([
        answers(cells, subjects=1).assign(subject=f"{name}{k}")
        for name, cells in (("a", blind), ("b", sharp)) for k in range(4)
    ])  # fmt: skip
    exact = scoring.clopper_pearson(600, 800)
    for share in (scoring.subject_bootstrap(table), scoring.over_subjects(table)):
        assert share is not None and share.value == pytest.approx(0.75)
        assert share.high - share.low > 3 * (exact.high - exact.low)
    d_prime = scoring.subject_bootstrap(table, "d_prime")
    assert d_prime is not None and d_prime.low < d_prime.value < d_prime.high
    assert scoring.subject_bootstrap(answers(blind, subjects=1)) is None


def test_people_who_agree_by_luck_do_not_shrink_the_interval() -> None:
    alike = answers(Confusion(50, 50, 50, 50), subjects=2)
    share, exact = scoring.over_subjects(alike), scoring.clopper_pearson(100, 200)
    assert share is not None and share.low <= exact.low and share.high >= exact.high


def test_the_interval_over_subjects_holds_the_truth_as_often_as_it_says() -> None:
    truth = float(np.mean([stats.norm.cdf(0.5 / 2 * s) for s in (1, 1)]))
    hits = 0
    for seed in range(60):
        share = scoring.over_subjects(people(8, 60, 0.5, seed=seed, bias_sd=0))
        assert share is not None
        hits += share.low <= truth <= share.high
    assert hits >= 53  # 95 % of 60 are 57; fewer than 53 happen once in 50 sets of seeds


def test_the_mixed_model_finds_ability_and_no_ability() -> None:
    able = scoring.mixed_logistic(people(6, 60, 1.2, seed=1))
    unable = scoring.mixed_logistic(people(6, 60, 0.0, seed=2))
    assert able is not None and unable is not None
    # A probit d' is about 1.7 times smaller than log odds.
    assert 1.2 < able.log_odds_ratio < 2.8 and able.low > 0.5 and able.p_two_sided < 1e-4
    assert unable.low < 0 < unable.high and unable.p_two_sided > 0.01
    assert able.image_sd is not None and able.subject_sd > 0
    assert scoring.mixed_logistic(answers(PAPER, subjects=1)) is None
    assert scoring.mixed_logistic(answers(Confusion(5, 0, 5, 0), subjects=2)) is None


def test_the_mixed_model_gives_the_same_numbers_again() -> None:
    table = people(6, 40, 0.4, seed=7)
    assert scoring.mixed_logistic(table) == scoring.mixed_logistic(table)


def test_equivalence_needs_answers_and_not_only_chance() -> None:
    assert scoring.equivalence(517, 1000, 0.05).holds, "the paper's answers, were they independent"
    few = scoring.equivalence(10, 20, 0.05)
    assert not few.holds and scoring.p_two_sided(10, 20) == 1, "not significant is not equivalent"
    assert not scoring.equivalence(600, 1000, 0.05).holds and not scoring.equivalence(400, 1000, 0.05).holds
    test = scoring.equivalence(500, 1000, 0.05)
    assert (test.low > 0.45 and test.high < 0.55) == test.holds, "the same as the 95 % interval within the margin"
    assert (test.low, test.high) == pytest.approx((scoring.clopper_pearson(500, 1000).low, 1 - test.low))
    loose = scoring.equivalence(518, 1000, 0.05, alpha=0.05)
    assert loose.holds and loose.low > scoring.clopper_pearson(518, 1000).low, "the 90 % interval, where asked for"
    for margin in (0, 0.5, -1):
        with pytest.raises(ValueError, match="between 0 and 0.5"):
            scoring.equivalence(5, 10, margin)


def test_equivalence_over_subjects_knows_that_people_differ() -> None:
    """Half of the people see all and half the opposite: 500 of 1000 right, yet no sign that people cannot tell."""
    sharp, inverted = Confusion(50, 0, 0, 50), Confusion(0, 50, 50, 0)
    table = pd.concat([
        answers(cells, subjects=1).assign(subject=f"{name}{k}")
        for name, cells in (("a", sharp), ("b", inverted)) for k in range(5)
    ])  # fmt: skip
    assert scoring.equivalence(500, 1000, 0.05).holds
    found = scoring.equivalence_over_subjects(table, 0.05)
    assert found is not None and not found.holds and found.p > 0.3
    assert scoring.equivalence_over_subjects(answers(PAPER, subjects=1), 0.05) is None


@pytest.mark.parametrize("seed", range(12))
def test_equivalence_over_subjects_holds_exactly_where_the_claims_interval_lies_within(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = people(int(rng.integers(4, 20)), 100, float(rng.normal(0, 0.1)), seed=seed, bias_sd=0)
    found, share = scoring.equivalence_over_subjects(table, 0.05), scoring.over_subjects(table)
    assert found is not None and share is not None
    assert found.holds == (share.low >= 0.45 and share.high <= 0.55)
    assert (found.low, found.high) == (share.low, share.high)


def test_the_power_analysis_asks_for_what_the_claim_asks_for() -> None:
    """Studies of the number of people that it names hold C1's interval within 45 to 55 % in 80 of 100 cases."""
    found = power_of.power_analysis(0.05, accuracy=0.5, wanted=0.8, alpha=0.025, trials=100, correlation=0.0)
    subjects = found["claim_subjects"]
    assert isinstance(subjects, int) and found["equivalence_subjects"] <= subjects < 20
    hits = []
    for few in (subjects, subjects - 4):
        shares = [scoring.over_subjects(people(few, 100, 0.0, seed=seed, bias_sd=0)) for seed in range(100)]
        hits.append(sum(share is not None and share.low >= 0.45 and share.high <= 0.55 for share in shares))
    assert 70 <= hits[0] <= 93 and hits[1] < hits[0]
    alike = power_of.claim_power(20, 100, 0.05)
    assert power_of.claim_power(20, 100, 0.05, correlation=0.05) < alike - 0.2, "people who differ cost power"
    assert power_of.claim_subjects(0.01, accuracy=0.5, wanted=0.9, alpha=0.025, trials=5, correlation=0.9) is None


@pytest.mark.parametrize("n", [37, 400, 888])
def test_power_is_the_probability_that_the_test_holds(n: int) -> None:
    right = np.arange(n + 1)
    probability = stats.binom.pmf(right, n, 0.52)
    holds = np.array([scoring.equivalence(int(k), n, 0.07).holds for k in right])
    power = power_of.equivalence_power(np.array([n]), 0.07, true_accuracy=0.52)
    assert power[0] == pytest.approx(probability[holds].sum(), abs=1e-9)
    significant = np.array([scoring.p_one_sided(int(k), n) <= 0.025 for k in right])
    assert power_of.difference_power(np.array([n]), 0.52)[0] == pytest.approx(probability[significant].sum(), abs=1e-9)


def test_the_number_of_trials_is_the_least_from_which_on_power_suffices() -> None:
    def power(n: power_of.Counts) -> scoring.Float:
        return power_of.equivalence_power(n, 0.05)

    needed = power_of.trials_needed(power)
    assert needed == 1082
    assert power(np.array([needed - 1]))[0] < 0.8 <= power(np.arange(needed, 4 * needed)).min()
    assert power_of.trials_needed(lambda n: power_of.equivalence_power(n, 0.05, alpha=0.05)) == 888
    found = power_of.power_analysis(0.05, accuracy=0.5, wanted=0.8, alpha=0.05, trials=100, correlation=0.02)
    assert found["equivalence_trials"] == math.ceil(888 * 2.98) and found["equivalence_subjects"] == 27
    assert found["difference_trials"] is None
    beyond = power_of.power_analysis(0.05, accuracy=0.56, wanted=0.8, alpha=0.05, trials=100, correlation=0)
    assert beyond["equivalence_trials"] is None and beyond["difference_subjects"] == 5
    with pytest.raises(ValueError, match="between 0 and 1"):
        power_of.power_analysis(0.05, accuracy=50, wanted=0.8, alpha=0.05, trials=100, correlation=0)


def test_two_refiners_are_compared_by_people() -> None:
    poor, good = people(10, 60, 1.5, seed=3), people(10, 60, 0.1, seed=4)
    paired = comparison.compare(poor, good)
    assert paired.paired and paired.accuracy.high < 0 and paired.d_prime.high < 0 and paired.p_two_sided < 0.01
    other = good.assign(subject="other " + good["subject"])
    unpaired = comparison.compare(poor, other)
    assert not unpaired.paired and unpaired.p_two_sided < 0.01
    same = comparison.compare(good, people(10, 60, 0.1, seed=5))
    assert same.p_two_sided > 0.05 and same.accuracy.low < 0 < same.accuracy.high
    some = good[good["subject"] != "s3"]
    with pytest.raises(ValueError, match=r"9 subjects found who judged both refiners, and 1 who judged one \(s3\)"):
        comparison.compare(poor, some)
    with pytest.raises(ValueError, match="at least 2"):
        comparison.compare(other[other["subject"] == "other s0"], good)
    with pytest.raises(ValueError, match="who judged one"):
        comparison.compare(poor, good[good["subject"] == "s0"])
