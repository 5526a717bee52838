"""Scores of a visual Turing test (section 3.1, table 1): exact tests, intervals, signal detection, clusters, power.

Answers come as a table with the columns `subject`, `truth` and `answer`, the latter two 'real' or 'refined'; shares lie
in [0, 1]. In the words of signal detection 'real' is the signal: a hit is a real image called real, a false alarm a
refined image called real.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, stats

Float = NDArray[np.float64]
Counts = NDArray[np.int_]
LEVEL = 0.95
ALPHA = 0.025  # of each one-sided test: together they ask for the whole interval, as claim C1 does
MOST_SUBJECTS = 2000  # that a power analysis looks at
STUDIES = 2000  # that it simulates for each number of subjects
BOOTSTRAPS = 4000


@dataclass(frozen=True)
class Confusion:
    """Table 1 of the paper: truth by answer, in numbers of trials."""

    real_as_real: int
    real_as_refined: int
    refined_as_real: int
    refined_as_refined: int

    @classmethod
    def of(cls, answers: pd.DataFrame) -> Confusion:
        """Count a table of answers."""
        cells = answers.groupby(["truth", "answer"]).size()
        counts = [int(cells.get((truth, answer), 0)) for truth in ("real", "refined") for answer in ("real", "refined")]
        return cls(*counts)

    @property
    def n(self) -> int:
        """Trials."""
        return self.real_as_real + self.real_as_refined + self.refined_as_real + self.refined_as_refined

    @property
    def correct(self) -> int:
        """Right answers."""
        return self.real_as_real + self.refined_as_refined

    @property
    def accuracy(self) -> float:
        """Share of right answers; NaN without trials."""
        return self.correct / self.n if self.n else math.nan

    def to_dict(self) -> dict[str, dict[str, int]]:
        """`{truth: {answer: trials}}`."""
        return {
            "real": {"real": self.real_as_real, "refined": self.real_as_refined},
            "refined": {"real": self.refined_as_real, "refined": self.refined_as_refined},
        }


PAPER = Confusion(224, 276, 207, 293)  # real and refined images, 10 people x 100
PAPER_CONTROL = (162, 200)  # right answers on real and unrefined synthetic images


@dataclass(frozen=True)
class Sensitivity:
    """Signal detection: d' (0: cannot tell) and criterion c (positive: prefers to answer 'refined')."""

    d_prime: float
    criterion: float


@dataclass(frozen=True)
class Share:
    """An estimate with an interval."""

    value: float
    low: float
    high: float


def p_one_sided(correct: int, n: int, chance: float = 0.5) -> float:
    """Exact P(X >= correct) when everybody guesses."""
    return float(stats.binomtest(correct, n, chance, alternative="greater").pvalue)


def p_two_sided(correct: int, n: int, chance: float = 0.5) -> float:
    """Exact two-sided binomial test (outcomes at most as likely as the one found)."""
    return float(stats.binomtest(correct, n, chance, alternative="two-sided").pvalue)


def clopper_pearson(correct: int, n: int, level: float = LEVEL) -> Share:
    """Share of right answers with its exact interval, as if all trials were independent."""
    interval = stats.binomtest(correct, n).proportion_ci(level, method="exact")
    return Share(correct / n, float(interval.low), float(interval.high))


def sensitivity(cells: Confusion) -> Sensitivity:
    """d' and criterion; NaN where one kind of image was never shown.

    Where a rate is 0 or 1, half a trial is added to each cell (log-linear rule, Hautus 1995), as z would be infinite.
    """
    real, refined = cells.real_as_real + cells.real_as_refined, cells.refined_as_real + cells.refined_as_refined
    if not real or not refined:
        return Sensitivity(math.nan, math.nan)
    extreme = cells.real_as_real in (0, real) or cells.refined_as_real in (0, refined)
    add = 0.5 if extreme else 0.0
    hits = float(stats.norm.ppf((cells.real_as_real + add) / (real + 2 * add)))
    alarms = float(stats.norm.ppf((cells.refined_as_real + add) / (refined + 2 * add)))
    return Sensitivity(hits - alarms, -(hits + alarms) / 2)


def per_subject(answers: pd.DataFrame) -> pd.DataFrame:
    """One row per subject: n, correct, accuracy, low, high (exact), p_one_sided, d_prime, criterion."""
    rows = []
    for subject, own in answers.groupby("subject", sort=True):
        cells = Confusion.of(own)
        share, found = clopper_pearson(cells.correct, cells.n), sensitivity(cells)
        rows.append((subject, cells.n, cells.correct, share.value, share.low, share.high,
                     p_one_sided(cells.correct, cells.n), found.d_prime, found.criterion))  # fmt: skip
    columns = ["subject", "n", "correct", "accuracy", "low", "high", "p_one_sided", "d_prime", "criterion"]
    return pd.DataFrame(rows, columns=columns)


def subject_bootstrap(
    answers: pd.DataFrame, score: Literal["accuracy", "d_prime"] = "accuracy", *, seed: int = 0, level: float = LEVEL
) -> Share | None:
    """A score with the percentile interval over drawn subjects; None with fewer than two subjects.

    Subjects are drawn with replacement and bring all of their trials, so that one person's answers stay together.
    """
    cells = _cells(answers)
    if len(cells) < 2:
        return None
    draws = _resampled(cells, np.random.default_rng(seed), SCORES[score])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Share(float(SCORES[score](cells.sum(0))), float(low), float(high))


def over_subjects(answers: pd.DataFrame, level: float = LEVEL) -> Share | None:
    """Share of right answers with the widest of two intervals; None without trials.

    The exact one is too narrow where people differ, the t interval over subjects' shares is too narrow by luck where a
    few people happen to agree. With a single subject only the exact one exists.
    """
    cells = _cells(answers)
    n = int(cells.sum())
    if not n:
        return None
    exact = clopper_pearson(int(cells[:, 0, 0].sum() + cells[:, 1, 1].sum()), n, level)
    if len(cells) < 2:
        return exact
    shares = _accuracy(cells)
    half = float(stats.t.ppf((1 + level) / 2, len(shares) - 1) * shares.std(ddof=1) / math.sqrt(len(shares)))
    low, high = exact.value - half, exact.value + half
    return Share(exact.value, max(0.0, min(exact.low, low)), min(1.0, max(exact.high, high)))


@dataclass(frozen=True)
class MixedModel:
    """Logistic model of 'called real' with random effects of subjects (bias, sensitivity) and of images.

    Attributes:
        log_odds_ratio: how much likelier (log odds) a real image is called real than a refined one; 0: cannot tell.
        low, high: its 95 % interval.
        p_two_sided: of no difference.
        bias: log odds of calling an image real, half way between real and refined.
        subject_sd, sensitivity_sd, image_sd: standard deviations of the random effects, in log odds (None: not fitted).

    """

    log_odds_ratio: float
    low: float
    high: float
    p_two_sided: float
    bias: float
    subject_sd: float
    sensitivity_sd: float
    image_sd: float | None


def mixed_logistic(answers: pd.DataFrame) -> MixedModel | None:
    """Fit the mixed model; None with fewer than two subjects, one kind of image, or one answer throughout.

    Images get a random effect where a column `image` shows that they were judged twice or more on average. Variational
    Bayes of statsmodels with weak priors: its interval comes out a little too narrow, so that claims rest on
    `over_subjects` instead. (Its Laplace fit lets the variances run to zero and does not converge on such data.)
    """
    if answers["subject"].nunique() < 2 or answers["truth"].nunique() < 2 or answers["answer"].nunique() < 2:
        return None
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    is_real = (answers["truth"] == "real").to_numpy(np.float64) - 0.5
    called_real = (answers["answer"] == "real").to_numpy(np.float64)
    subjects = _indicators(answers["subject"])
    effects = [subjects, subjects.multiply(is_real[:, None])]
    repeated = "image" in answers and answers["image"].nunique() <= len(answers) / 2
    if repeated:
        effects.append(_indicators(answers["image"]))
    kinds = np.repeat(np.arange(len(effects)), [effect.shape[1] for effect in effects])
    fixed = np.column_stack([np.ones_like(is_real), is_real])
    model = BinomialBayesMixedGLM(called_real, fixed, sparse.hstack(effects).tocsr(), kinds, vcp_p=0.5, fe_p=3.0)
    # A fixed start: left alone, the fit draws one from fresh entropy, and no two runs give the same numbers.
    fit = model.fit_vb(rng=0)
    mean, sd = float(fit.fe_mean[1]), float(fit.fe_sd[1])
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * sd
    spread = np.exp(fit.vcp_mean)
    return MixedModel(
        mean, mean - half, mean + half, float(2 * stats.norm.sf(abs(mean) / sd)), float(fit.fe_mean[0]),
        float(spread[0]), float(spread[1]), float(spread[2]) if repeated else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: the share lies within `margin` of one half when `p` is at most alpha."""

    margin: float
    p: float
    low: float  # interval of 1 - 2 alpha, which lies within the margins when the test holds
    high: float
    holds: bool


def equivalence(correct: int, n: int, margin: float, alpha: float = ALPHA) -> Equivalence:
    """Exact tests that people are right in one half of the trials, give or take `margin` (0.05: in 45 to 55 %).

    A difference that is not significant shows nothing of this kind: few trials are never significant. All answers are
    taken as independent, which those of one person are not: see `equivalence_over_subjects`.

    Raises:
        ValueError: a margin outside (0, 0.5).

    """
    _check_margin(margin)
    below = float(stats.binom.sf(correct - 1, n, 0.5 - margin))
    above = float(stats.binom.cdf(correct, n, 0.5 + margin))
    p = max(below, above)
    inner = clopper_pearson(correct, n, 1 - 2 * alpha)
    return Equivalence(margin, p, inner.low, inner.high, p <= alpha)


def equivalence_over_subjects(answers: pd.DataFrame, margin: float, alpha: float = ALPHA) -> Equivalence | None:
    """The equivalence test that knows that people differ; None with fewer than two subjects.

    The larger p of the exact tests and of t tests over subjects' shares: it holds when the interval of `over_subjects`
    lies within the margins, as claim C1 demands.
    """
    cells = _cells(answers)
    wide = over_subjects(answers, 1 - 2 * alpha)
    if len(cells) < 2 or wide is None:
        return None
    exact = equivalence(int(cells[:, 0, 0].sum() + cells[:, 1, 1].sum()), int(cells.sum()), margin, alpha)
    shares = _accuracy(cells)
    error = max(float(shares.std(ddof=1)) / math.sqrt(len(shares)), 1e-12)
    nearest = (margin - abs(wide.value - 0.5)) / error
    p = max(exact.p, float(stats.t.sf(nearest, len(shares) - 1)))
    return Equivalence(margin, p, wide.low, wide.high, p <= alpha)


def equivalence_power(n: Counts, margin: float, *, true_accuracy: float = 0.5, alpha: float = ALPHA) -> Float:
    """Probability that `equivalence` holds with n independent trials [N] when people are right at `true_accuracy`."""
    _check_margin(margin)
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


@dataclass(frozen=True)
class Comparison:
    """Second refiner minus first: accuracy and d' of the people that judged them (below 0: the second fools better)."""

    accuracy: Share
    d_prime: Share
    p_two_sided: float  # permutation test on accuracy over subjects
    paired: bool


def compare(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> Comparison:
    """Compare the answers to two refiners' images, clustered by subject; paired when the same subjects judged both.

    Raises:
        ValueError: fewer than two subjects on a side, or some subjects on both sides and others on one.

    """
    names = set(first["subject"]), set(second["subject"])
    paired = names[0] == names[1]
    _check_pairs(*names)
    cells = [_cells(first), _cells(second)]  # sorted by subject, so that pairs stand at the same place
    if min(map(len, cells)) < 2:
        raise ValueError(
            f"{min(map(len, cells))} subjects found; expected at least 2 for each refiner. Ask more people."
        )
    rng = np.random.default_rng(seed)
    shares = [_difference(cells, np.random.default_rng(seed), score, paired=paired) for score in SCORES.values()]
    own = [_accuracy(one) for one in cells]
    p = _sign_flips(own[1] - own[0], rng) if paired else _permutation(own[0], own[1], rng)
    return Comparison(shares[0], shares[1], p, paired)


def _check_pairs(first: set[str], second: set[str]) -> None:
    """Some people on both sides and others on one are neither pairs nor independent."""
    alone = first ^ second
    if first & second and alone:
        raise ValueError(
            f"{len(first & second)} subjects found who judged both refiners, and {len(alone)} who judged one "
            f"({', '.join(sorted(map(str, alone))[:5])}); expected the same on both sides, or nobody on both. Leave "
            "those out, or give different people different names."
        )


def _difference(
    cells: list[Float], rng: np.random.Generator, score: Callable[[Float], Float], *, paired: bool
) -> Share:
    drawn = rng.integers(0, len(cells[0]), (BOOTSTRAPS, len(cells[0])))
    other = drawn if paired else rng.integers(0, len(cells[1]), (BOOTSTRAPS, len(cells[1])))
    draws = score(cells[1][other].sum(1)) - score(cells[0][drawn].sum(1))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Share(float(score(cells[1].sum(0)) - score(cells[0].sum(0))), float(low), float(high))


def _sign_flips(differences: Float, rng: np.random.Generator) -> float:
    flips = rng.choice([-1.0, 1.0], (BOOTSTRAPS, len(differences)))
    return _share_as_extreme(np.abs((flips * differences).mean(1)), abs(float(differences.mean())))


def _permutation(first: Float, second: Float, rng: np.random.Generator) -> float:
    pooled, n = np.concatenate([first, second]), len(first)
    mixed = rng.permuted(np.tile(pooled, (BOOTSTRAPS, 1)), axis=1)
    found = np.abs(mixed[:, n:].mean(1) - mixed[:, :n].mean(1))
    return _share_as_extreme(found, abs(float(second.mean() - first.mean())))


def _share_as_extreme(found: Float, observed: float) -> float:
    """The observed order counts as one of the permutations, so that p is never 0."""
    return float((1 + (found >= observed - 1e-12).sum()) / (1 + len(found)))


def _cells(answers: pd.DataFrame) -> Float:
    """Trials [subject, truth, answer], 'real' first, subjects sorted."""
    table = pd.crosstab([answers["subject"], answers["truth"]], answers["answer"])
    subjects = sorted(answers["subject"].unique())
    full = pd.MultiIndex.from_product([subjects, ["real", "refined"]])
    table = table.reindex(index=full, columns=["real", "refined"], fill_value=0)
    return table.to_numpy(np.float64).reshape(len(subjects), 2, 2)


def _resampled(cells: Float, rng: np.random.Generator, score: Callable[[Float], Float]) -> Float:
    drawn = rng.integers(0, len(cells), (BOOTSTRAPS, len(cells)))
    return score(cells[drawn].sum(1))


def _accuracy(cells: Float) -> Float:
    """Share of right answers of [..., truth, answer]."""
    right: Float = (cells[..., 0, 0] + cells[..., 1, 1]) / cells.sum((-2, -1))
    return right


def _d_prime(cells: Float) -> Float:
    """d' of [..., truth, answer], with the log-linear rule where a rate is 0 or 1."""
    shown, said_real = cells.sum(-1), cells[..., 0]
    extreme = ((said_real == 0) | (said_real == shown)).any(-1, keepdims=True)
    add = np.where(extreme, 0.5, 0.0)
    z = stats.norm.ppf((said_real + add) / (shown + 2 * add))
    difference: Float = np.asarray(z[..., 0] - z[..., 1], np.float64)
    return difference


SCORES: dict[str, Callable[[Float], Float]] = {"accuracy": _accuracy, "d_prime": _d_prime}


def _indicators(values: pd.Series) -> sparse.csr_matrix:
    """A column for each different value, 1 where a row has it."""
    codes, _ = pd.factorize(values.astype(str), sort=True)
    return sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)))


def _check_margin(margin: float) -> None:
    if not 0 < margin < 0.5:
        raise ValueError(f"margin {margin:g} found; expected a share between 0 and 0.5, e.g. 0.05 for five points.")


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
    _check_margin(margin)
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
