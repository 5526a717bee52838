"""Intervals for what is measured over several seeds and many images.

S seeds (independent runs of the whole method), N images, the same ones for every seed. Both vary between repetitions
of the study. Images are many: they are drawn with replacement, a drawn image with all of its seeds. Seeds are few, and
resampling three or five values is known to give intervals far too short (the 95 % of three values' bootstrap hold their
mean three times of four). So each resample of images gets an error of the seeds' mean on top, from Student's
distribution of S - 1 degrees of freedom times the standard error that the seeds' own values have. Where the seeds
decide, the interval is Student's; where the images do, the percentile bootstrap's; between them it is the
Behrens-Fisher interval, which errs on the wide side. Every estimate keeps its values by seed, and `t_interval` says
what these alone allow to say. With one seed only images vary, which leaves out what another seed would have said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, t

Floats = NDArray[np.floating[Any]]
Statistic = Callable[[Any], float]
CONFIDENCE = 0.95
CHUNK = 4_000_000  # counts held in memory at once
PERCENT, NOT_NEGATIVE = (0.0, 100.0), (0.0, math.inf)
"""What a share, and a mean error or distance, can be: an interval over few seeds must not promise more."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, over how many seeds and images it was taken, and what each seed says alone."""

    value: float
    low: float
    high: float
    seeds: int
    n: int
    by_seed: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def to_dict(self) -> dict[str, float | int]:
        """As plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "seeds": self.seeds, "n": self.n}


def two_level_bootstrap(
    errors: Floats,
    statistic: Literal["mean"] | Statistic = "mean",
    draws: int = 2000,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """The statistic of `errors` [S, N, ...] with a 95 % interval over seeds and images (see the module).

    `groups` [N] names what an image belongs to, a person or a piece of video: images of one group resemble each other,
    so whole groups are drawn, and the interval tells of other people and not of other pictures of these. None, or a
    single group: images are drawn.
    `statistic` is 'mean' or a function of an array shaped like `errors`, of which it sees resampled columns, and each
    row alone; axes after the second (e.g. two arms to be compared) stay together. `bounds` are those of the quantity
    itself, beyond which no interval goes. Raises ValueError on empty or not finite input.
    """
    errors = np.asarray(errors, dtype=np.float64)
    if errors.ndim < 2 or 0 in errors.shape:
        raise ValueError(
            f"errors of shape {errors.shape} found; [seeds, images, ...] expected; for one run: errors[None]"
        )
    if not np.isfinite(errors).all():
        raise ValueError(
            f"{int((~np.isfinite(errors)).sum())} of {errors.size} errors are not finite; check predictions"
        )
    seeds, images = errors.shape[:2]
    rng = np.random.default_rng(seed)
    members = _members(groups, images)
    if isinstance(statistic, str):
        if statistic != "mean":
            raise ValueError(f"statistic {statistic!r} found; 'mean' or a function expected")
        value, by_seed = float(errors.mean()), errors.reshape(seeds, -1).mean(axis=1)
        flat = errors.reshape(seeds * images, -1).mean(axis=1).reshape(seeds, images).mean(axis=0)
        drawn = _resampled_means(flat, draws, rng) if members is None else _of_groups(flat, members, draws, rng)
    else:
        value, by_seed = float(statistic(errors)), np.array([statistic(one[None]) for one in errors])
        drawn = np.empty(draws)
        for k in range(draws):
            columns: NDArray[np.int64]
            if members is None:
                columns = rng.integers(images, size=(images,))
            else:
                chosen = rng.integers(len(members), size=len(members)).tolist()
                columns = np.concatenate([members[group] for group in chosen])
            drawn[k] = statistic(errors[:, columns])
    drawn = drawn + _errors_of_seeds(by_seed, draws, rng)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = max(float(low), bounds[0]), min(float(high), bounds[1])
    return Estimate(value, low, high, seeds, images, tuple(by_seed.tolist()))


def percentage(values: Floats, groups: NDArray[Any] | None = None) -> Estimate:
    """Mean of percentages [S, N] with its 95 % interval over seeds and images, which stays within 0 and 100."""
    return two_level_bootstrap(values, groups=groups, bounds=PERCENT)


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def _errors_of_seeds(by_seed: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Errors [draws] of the mean of the seeds' values: Student's t times their standard error; of one seed none.

    The distribution's quantiles in random order, not random numbers: its far tails would else need many more draws.
    """
    seeds = len(by_seed)
    if seeds < 2:
        return np.zeros(draws)
    quantiles = t.ppf((np.arange(draws) + 0.5) / draws, seeds - 1)
    return np.asarray(rng.permutation(quantiles) * by_seed.std(ddof=1) / math.sqrt(seeds))


def _resampled_means(errors: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Means of `draws` resamples of errors [N], from how often each image was drawn: no resample is ever built."""
    images = len(errors)
    out = np.empty(draws)
    step = max(1, CHUNK // images)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        out[start : start + count] = rng.multinomial(images, np.full(images, 1 / images), size=count) @ errors / images
    return out


def _members(groups: NDArray[Any] | None, images: int) -> list[NDArray[np.int64]] | None:
    """The images of each group; None where there are not two groups to draw from."""
    if groups is None:
        return None
    if len(groups) != images:
        raise ValueError(f"{len(groups)} names of groups found for {images} images; expected one for each")
    names, place = np.unique(groups, return_inverse=True)
    return None if len(names) < 2 else [np.flatnonzero(place == k) for k in range(len(names))]


def _of_groups(
    errors: Floats, members: Sequence[NDArray[np.int64]], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of `draws` resamples of whole groups of errors [N], over all images of the drawn groups."""
    sums = np.array([errors[rows].sum() for rows in members])
    sizes = np.array([len(rows) for rows in members])
    of_group = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    means: NDArray[np.float64] = (of_group @ sums) / (of_group @ sizes)
    return means


def paired_difference(
    a: Floats, b: Floats, draws: int = 2000, seed: int = 0, groups: NDArray[Any] | None = None
) -> Estimate:
    """Mean of a - b, both [S, N] on the same images with the same seeds, with its 95 % interval (pairs stay pairs)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} found; the same seeds and images expected on both sides")
    return two_level_bootstrap(a - b, draws=draws, seed=seed, groups=groups)


def mean_interval(values: Floats, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of independent values [N]; (nan, nan) for fewer than two."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=draws,
        confidence_level=CONFIDENCE,
        method="percentile",
        batch=max(1, CHUNK // len(values)),
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
