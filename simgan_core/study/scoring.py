"""Scores of a visual Turing test (section 3.1, table 1): exact tests, intervals, signal detection, clusters.

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
LEVEL = 0.95
ALPHA = 0.025  # of each one-sided test: together they ask for the whole interval, as claim C1 does
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
    cells = cells_by_subject(answers)
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
    cells = cells_by_subject(answers)
    n = int(cells.sum())
    if not n:
        return None
    exact = clopper_pearson(int(cells[:, 0, 0].sum() + cells[:, 1, 1].sum()), n, level)
    if len(cells) < 2:
        return exact
    shares = accuracy(cells)
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
    check_margin(margin)
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
    cells = cells_by_subject(answers)
    wide = over_subjects(answers, 1 - 2 * alpha)
    if len(cells) < 2 or wide is None:
        return None
    exact = equivalence(int(cells[:, 0, 0].sum() + cells[:, 1, 1].sum()), int(cells.sum()), margin, alpha)
    shares = accuracy(cells)
    error = max(float(shares.std(ddof=1)) / math.sqrt(len(shares)), 1e-12)
    nearest = (margin - abs(wide.value - 0.5)) / error
    p = max(exact.p, float(stats.t.sf(nearest, len(shares) - 1)))
    return Equivalence(margin, p, wide.low, wide.high, p <= alpha)


def cells_by_subject(answers: pd.DataFrame) -> Float:
    """Trials [subject, truth, answer], 'real' first, subjects sorted."""
    table = pd.crosstab([answers["subject"], answers["truth"]], answers["answer"])
    subjects = sorted(answers["subject"].unique())
    full = pd.MultiIndex.from_product([subjects, ["real", "refined"]])
    table = table.reindex(index=full, columns=["real", "refined"], fill_value=0)
    return table.to_numpy(np.float64).reshape(len(subjects), 2, 2)


def _resampled(cells: Float, rng: np.random.Generator, score: Callable[[Float], Float]) -> Float:
    drawn = rng.integers(0, len(cells), (BOOTSTRAPS, len(cells)))
    return score(cells[drawn].sum(1))


def accuracy(cells: Float) -> Float:
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


SCORES: dict[str, Callable[[Float], Float]] = {"accuracy": accuracy, "d_prime": _d_prime}


def _indicators(values: pd.Series) -> sparse.csr_matrix:
    """A column for each different value, 1 where a row has it."""
    codes, _ = pd.factorize(values.astype(str), sort=True)
    return sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)))


def check_margin(margin: float) -> None:
    """Raise ValueError for a margin that is no share between 0 and one half."""
    if not 0 < margin < 0.5:
        raise ValueError(f"margin {margin:g} found; expected a share between 0 and 0.5, e.g. 0.05 for five points.")
