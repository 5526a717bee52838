"""Two refiners, judged by people: which fools them better? Clustered by subject; answers as in `scoring`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from simgan_core.study.scoring import BOOTSTRAPS, LEVEL, SCORES, Float, Share, accuracy, cells_by_subject


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
    cells = [
        cells_by_subject(first),
        cells_by_subject(second),
    ]  # sorted by subject, so that pairs stand at the same place
    if min(map(len, cells)) < 2:
        raise ValueError(
            f"{min(map(len, cells))} subjects found; expected at least 2 for each refiner. Ask more people."
        )
    rng = np.random.default_rng(seed)
    shares = [_difference(cells, np.random.default_rng(seed), score, paired=paired) for score in SCORES.values()]
    own = [accuracy(one) for one in cells]
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
