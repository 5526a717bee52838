"""Lambda by labelled *stand-ins*: the one-standard-error rule over the selections of several seeds (docs/selection.md).

A real domain without labels cannot say which refiner teaches best, and a rule that reads images alone takes the most
real one that keeps the label, which need not be it. A stand-in can say: rendered with other assets and a camera model,
it has labels, and none of them is of a real image. Each seed's `simgan select --validation STANDINS` trains every
candidate and judges it by gaze CNNs; here the seeds are put together.

Errors of neighbouring lambdas differ by less than those of two seeds, so the least mean is often luck. The
one-standard-error rule takes, of all candidates within one standard error of it, the most strongly regularised one
(Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984, section 3.4.3; Hastie, Tibshirani
and Friedman, "The Elements of Statistical Learning", section 7.10): what cannot be seen is not worth a risk to the
label.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOST = "label lost"
"""How the verdicts of `simgan_core.selection` begin where the label is not kept."""


@dataclass(frozen=True)
class Judged:
    """A candidate in all seeds: errors (degrees, one per seed) of gaze CNNs that learn from its images."""

    lambda_sum: float
    step: int
    errors: tuple[float, ...]
    label_kept: bool  # in every seed

    @property
    def mean(self) -> float:
        """Mean error over seeds, degrees."""
        return statistics.fmean(self.errors)


@dataclass(frozen=True)
class Choice:
    """What the rule took of `candidates`; no `chosen` where every candidate loses the label in some seed."""

    candidates: tuple[Judged, ...]
    best: Judged | None
    chosen: Judged | None
    standard_error: float  # of a mean over seeds, degrees

    def verdict(self, candidate: Judged) -> str:
        """Why this one was taken or not, in a few words."""
        if candidate is self.chosen:
            return "chosen"
        if not candidate.label_kept:
            return LOST
        assert self.best is not None  # this candidate kept the label
        if candidate is self.best:
            return "least error"
        within = candidate.mean <= self.best.mean + self.standard_error
        return "within a standard error, weaker" if within else "worse"


def one_standard_error(candidates: Sequence[Judged]) -> Choice:
    """Apply the rule to candidates of the same two or more seeds.

    The standard error is pooled over the candidates that keep the label: with three seeds that of one alone is luck.
    Ties of lambda go to the fewest steps.

    Raises ValueError where the candidates' seeds differ in number, or are fewer than two.
    """
    counts = sorted({len(candidate.errors) for candidate in candidates})
    if len(counts) != 1 or counts[0] < 2:
        raise ValueError(f"errors of {counts} seeds found; expected two or more, as many for each candidate.")
    kept = [candidate for candidate in candidates if candidate.label_kept]
    if not kept:
        return Choice(tuple(candidates), None, None, math.nan)
    variance = statistics.fmean(statistics.variance(candidate.errors) for candidate in kept)
    standard_error = math.sqrt(variance / counts[0])
    best = min(kept, key=lambda candidate: (candidate.mean, -candidate.lambda_sum, candidate.step))
    within = [candidate for candidate in kept if candidate.mean <= best.mean + standard_error]
    chosen = max(within, key=lambda candidate: (candidate.lambda_sum, -candidate.step))
    return Choice(tuple(candidates), best, chosen, standard_error)


def read_selections(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What `simgan select` wrote or printed with `--json`; `ValueError` names a file that is something else."""
    found = []
    for file in files:
        try:
            selection = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} cannot be read as JSON ({error}); expected a selection.json.") from error
        missing = {"candidates", "settings", "stores"} - set(selection if isinstance(selection, dict) else ())
        if missing:
            raise ValueError(
                f"{file} has no {', '.join(sorted(missing))}; expected the selection.json of `simgan select`."
            )
        found.append(selection)
    return found


def judged(selections: Sequence[Mapping[str, Any]]) -> tuple[Judged, ...]:
    """The candidates of several `simgan select --validation --json`, one selection per seed, in the first one's order.

    The errors are those without augmentation, as of the paper's gaze CNN.

    Raises ValueError where they do not belong together (same stores, settings but the seed, and candidates), where a
    seed is there twice, or where one was made without `--validation`.
    """
    if len(selections) < 2:
        raise ValueError(f"{len(selections)} selection found; expected two or more, of different seeds.")
    _check_alike(selections)
    found = []
    for place in _places(selections[0]):
        same = [candidate_at(selection, place) for selection in selections]
        errors = tuple(float(one["validation_error_deg"]["plain"]["value"]) for one in same)
        found.append(Judged(*place, errors, not any(one["verdict"].startswith(LOST) for one in same)))
    return tuple(found)


def _places(selection: Mapping[str, Any]) -> list[tuple[float, int]]:
    return [(one["lambda_sum"], one["step"]) for one in selection["candidates"]]


def candidate_at(selection: Mapping[str, Any], place: tuple[float, int]) -> Mapping[str, Any]:
    """The candidate of a selection at this lambda and step."""
    return next(one for one in selection["candidates"] if (one["lambda_sum"], one["step"]) == place)


def _check_alike(selections: Sequence[Mapping[str, Any]]) -> None:
    seeds = [selection["settings"]["seed"] for selection in selections]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"selections of seeds {seeds} found; expected each seed once. Leave out the repeated ones.")
    without = [seed for seed, one in zip(seeds, selections, strict=True) if "raw_validation_error_deg" not in one]
    if without:
        raise ValueError(
            f"selection of seed {without[0]} found without gaze errors; expected one made with --validation, on "
            "labelled stand-ins. Run it again with that option: its trainings are kept."
        )
    first = _what(selections[0])
    for seed, selection in zip(seeds, selections, strict=True):
        other = _what(selection)
        differing = [name for name in first if other[name] != first[name]]
        if differing:
            raise ValueError(
                f"selection of seed {seed} differs from that of seed {seeds[0]} in {', '.join(differing)}; expected "
                "the same images, settings and lambdas, and another seed. Make both by the same command."
            )


def _what(selection: Mapping[str, Any]) -> dict[str, Any]:
    """What must be alike in all seeds."""
    implied = ("seed", "lambdas", "steps")  # the latter two by the candidates, in any order
    settings = {name: value for name, value in selection["settings"].items() if name not in implied}
    return {"candidates": sorted(_places(selection)), "stores": selection["stores"], **settings}


def summary(choice: Choice, raw: Sequence[float]) -> str:
    """A table for people, and the choice; `raw` are the errors of gaze CNNs on raw renders, one per seed."""
    lines = ["   lambda   step   error (°)   by seed"]
    rows = [("raw", "", tuple(raw), "")]
    rows += [(f"{one.lambda_sum:g}", str(one.step), one.errors, choice.verdict(one)) for one in choice.candidates]
    for name, step, errors, verdict in rows:
        by_seed = ", ".join(f"{error:.2f}" for error in errors)
        lines.append(f"{name:>9} {step:>6}   {statistics.fmean(errors):9.2f}   {by_seed}   {verdict}".rstrip())
    if choice.chosen is None:
        return "\n".join([*lines, "chosen: nothing. Every candidate loses the label in some seed: try larger lambdas."])
    return "\n".join(
        [
            *lines,
            f"standard error of a mean over seeds: {choice.standard_error:.2f}°, pooled over those that keep the label",
            f"chosen: lambda {choice.chosen.lambda_sum:g}, step {choice.chosen.step}, the most strongly regularised "
            "one within a standard error of the least",
        ]
    )


def report(choice: Choice) -> dict[str, Any]:
    """The choice as plain JSON."""
    rows = [
        {
            "lambda_sum": one.lambda_sum,
            "step": one.step,
            "mean_error_deg": one.mean,
            "errors_deg": list(one.errors),
            "label_kept": one.label_kept,
            "verdict": choice.verdict(one),
        }
        for one in choice.candidates
    ]
    chosen = None if choice.chosen is None else {"lambda_sum": choice.chosen.lambda_sum, "step": choice.chosen.step}
    error = None if math.isnan(choice.standard_error) else choice.standard_error
    return {"chosen": chosen, "standard_error_deg": error, "candidates": rows}
