"""How many people does a study need? Power of the tests of `scoring`, by exact sums and by simulation.

`n` counts trials, shares lie in [0, 1], `alpha` is that of each one-sided test.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from simgan_core.study.scoring import ALPHA, Float, check_margin

Counts = NDArray[np.int_]
MOST_SUBJECTS = 2000  # that a power analysis looks at
STUDIES = 2000  # that it simulates for each number of subjects


def equivalence_power(n: Counts, margin: float, *, true_accuracy: float = 0.5, alpha: float = ALPHA) -> Float:
    """Probability that `equivalence` holds with n independent trials [N] when people are right at `true_accuracy`."""
    check_margin(margin)
    # The test holds for all numbers of right answers from `least` to `most`.
    least = stats.binom.isf(alpha, n, 0.5 - margin) + 1
    quantile = stats.binom.ppf(alpha, n, 0.5 + margin)
    most = quantile - (stats.binom.cdf(quantile, n, 0.5 + margin) > alpha)
    inside = stats.binom.cdf(most, n, true_accuracy) - stats.binom.cdf(least - 1, n, true_accuracy)
    power: Float = np.where(most >= least, inside, 0.0)
    return power


def claim_power(
    subjects: int, trials: int, margin: float, *, true_accuracy: float = 0.5, correlation: float = 0.0,
    alpha: float = ALPHA, seed: int = 0,
) -> float:  # fmt: skip
    """Share of simulated studies whose whole interval over subjects lies within the margin: the rule of claim C1.

    Subjects' own accuracies are drawn from the beta distribution in which two answers of one subject correlate by
    `correlation`; the interval is the one of `over_subjects`.
    """
    rng = np.random.default_rng(seed)
    spread = (1 - correlation) / correlation if correlation else math.inf
    own: Float | float = true_accuracy
    if math.isfinite(spread):
        own = rng.beta(true_accuracy * spread, (1 - true_accuracy) * spread, (STUDIES, subjects))
    right = rng.binomial(trials, own, (STUDIES, subjects))
    total, n = right.sum(1), subjects * trials
    half = stats.t.ppf(1 - alpha, subjects - 1) * right.std(1, ddof=1) / trials / math.sqrt(subjects)
    low = np.minimum(stats.beta.ppf(alpha, total, n - total + 1), total / n - half)
    high = np.maximum(stats.beta.isf(alpha, total + 1, n - total), total / n + half)
    return float(((low >= 0.5 - margin) & (high <= 0.5 + margin)).mean())


def claim_subjects(
    margin: float, *, accuracy: float, wanted: float, alpha: float, trials: int, correlation: float
) -> int | None:  # fmt: skip
    """Least number of subjects for which `claim_power` is `wanted`; None where not even `MOST_SUBJECTS` are enough."""

    def enough(subjects: int) -> bool:
        power = claim_power(subjects, trials, margin, true_accuracy=accuracy, correlation=correlation, alpha=alpha)
        return power >= wanted

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
        if low >= MOST_SUBJECTS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def difference_power(n: Counts, true_accuracy: float, alpha: float = ALPHA) -> Float:
    """Probability that the one-sided exact test against guessing is significant with n independent trials [N]."""
    power: Float = np.asarray(stats.binom.sf(stats.binom.isf(alpha, n, 0.5), n, true_accuracy), np.float64)
    return power


def trials_needed(power: Callable[[Counts], Float], wanted: float = 0.8, most: int = 1 << 20) -> int:
    """Smallest n from which on the power stays at least `wanted`: that of an exact test is a saw tooth in n.

    Raises:
        ValueError: not even `most` trials are enough.

    """
    high = 64
    while float(power(np.array([high]))[0]) < wanted:
        high *= 2
        if high > most:
            raise ValueError(
                f"{most} trials do not give a power of {wanted:g}; expected that some number does. Choose a wider "
                "margin, or an accuracy farther from the bound."
            )
    numbers = np.arange(1, 2 * high + 1)  # teeth are narrow: none reaches down again beyond twice that number
    short = np.flatnonzero(power(numbers) < wanted)
    return int(numbers[short[-1]]) + 1 if len(short) else 1


def design_effect(trials: int, correlation: float) -> float:
    """Factor on the number of trials when the answers of one subject correlate (Kish): 1 + (trials - 1) correlation."""
    return 1 + (trials - 1) * correlation


def power_analysis(
    margin: float, *, accuracy: float, wanted: float, alpha: float, trials: int, correlation: float
) -> dict[str, float | int | None]:
    """Trials and subjects for two questions: people cannot tell (equivalence), people can (difference from chance).

    `alpha` is that of each one-sided test: 0.025 asks for the whole 95 % interval, as claim C1 does. `claim_subjects`
    are the people for whom the interval over subjects comes to lie within the margin, by simulation; the other numbers
    are those of exact tests, and a little small, as few people also leave the spread between them uncertain.
    `accuracy` is the true share of right answers; None where no number of trials would do: an accuracy beyond the
    margin is never equivalent, and one of 0.5 or less never above chance. `correlation` within subjects raises the
    number of trials by the design effect of `trials` answers each.

    Raises:
        ValueError: a share that is none.

    """
    for name, value in (("accuracy", accuracy), ("wanted", wanted), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name} {value:g} found; expected a share between 0 and 1.")
    check_margin(margin)
    effect = design_effect(trials, correlation)
    same = (
        trials_needed(lambda n: equivalence_power(n, margin, true_accuracy=accuracy, alpha=alpha), wanted)
        if abs(accuracy - 0.5) < margin
        else None
    )
    differs = trials_needed(lambda n: difference_power(n, accuracy, alpha), wanted) if accuracy > 0.5 else None
    return {
        "margin": margin, "accuracy": accuracy, "power": wanted, "alpha": alpha, "trials_per_subject": trials,
        "correlation": correlation, "design_effect": effect,
        "equivalence_trials": _times(same, effect), "equivalence_subjects": _times(same, effect / trials),
        "claim_subjects": None if same is None else claim_subjects(
            margin, accuracy=accuracy, wanted=wanted, alpha=alpha, trials=trials, correlation=correlation
        ),
        "difference_trials": _times(differs, effect), "difference_subjects": _times(differs, effect / trials),
    }  # fmt: skip


def _times(count: int | None, factor: float) -> int | None:
    return None if count is None else math.ceil(count * factor - 1e-9)
