"""Choose a refiner for images without labels: train one per lambda, keep each at several steps, apply the rule.

The rule is `simgan_core.selection`'s (docs/selection.md); here is what it needs around it to be a command. Trainings
lie under `OUT/trainings/`, one folder per lambda and per all else that decides the result, so that a rerun reads what
is there: after an interruption, or with one more lambda. `OUT/selection.json` holds every candidate with its verdict
and comes last; `OUT/refiner/` holds the chosen weights, and nothing where nothing passed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgan_core import provenance, run_state, selection
from simgan_core.ablations import settings_key
from simgan_core.checkpoints import REFINER
from simgan_core.config import Config, to_dict, with_overrides
from simgan_core.datasets.store import Store
from simgan_core.evaluation.annotation import fit_iris
from simgan_core.locks import alone
from simgan_core.selection import Candidate, Selection
from simgan_core.stops import RAW, Training, measure, measure_raw, place, spaced, table, train_to_stops
from simgan_core.validation import Errors, Validation, validate
from simgan_core.workers import side_by_side

MIN_IMAGES = 8
"""Of each kind: what `fresh_discriminator` needs to learn from one half and be tested on the other."""
LOOKED_AT = 100
"""Synthetic images in which an iris is looked for before anything is trained."""

TRAININGS, CHOSEN, RESULT = "trainings", "refiner", "selection.json"


@dataclass(frozen=True)
class Plan:
    """A selection that was checked: refiners of each of `lambdas`, each at every one of `steps`.

    `validation`: labelled images by which the choice is judged afterwards, where there are some.
    """

    synthetic: Store
    real: Store
    out: Path
    config: Config
    lambdas: tuple[float, ...]
    steps: tuple[int, ...]
    seed: int
    validation: Validation | None = None


@dataclass(frozen=True)
class Outcome:
    """What the rule said of `candidates`; `refiner` is the folder of the chosen one, None where nothing passed.

    `errors`: of raw renders and then of each candidate, on the validation part; none where there is none.
    """

    candidates: tuple[Candidate, ...]
    selection: Selection
    refiner: Path | None
    report: dict[str, Any]
    errors: tuple[Errors, ...] = ()


def plan(
    synthetic: Store,
    real: Store,
    out: Path,
    config: Config,
    *,
    lambdas: Sequence[float],
    stops: int,
    seed: int = 0,
    validation: Validation | None = None,
) -> Plan:
    """Check all that can be known before any work, and say what is to be trained.

    Args:
        synthetic: images to refine.
        real: images that the refined ones shall look like; no label of either store is read.
        out: a new folder, or that of an earlier selection.
        config: every hyperparameter but lambda, at the budget of the longest training.
        lambdas: values of `loss.lambda_sum`, each once.
        stops: at how many equally spaced steps each training is kept.
        seed: of weights, batches, history and fresh discriminators.
        validation: labelled images that show what the choice costs, and decide nothing.

    Raises:
        ValueError: stores that do not fit, no iris in the synthetic images, lambdas or stops that make no sense, no
            labels to validate by, or a folder with other content.

    """
    steps = check_sweep(config, lambdas, stops)
    run_state.check_stores(config, synthetic, real)
    for name, store in (("synthetic", synthetic), ("real", real)):
        if len(store) < MIN_IMAGES:
            raise ValueError(f"{len(store)} {name} images ({store.path}) found; expected at least {MIN_IMAGES}.")
    if validation is not None:
        validation.check()
    if not fit_iris(synthetic.images(synthetic.spread(LOOKED_AT))).valid.any():
        raise ValueError(
            f"no iris found in {min(LOOKED_AT, len(synthetic))} synthetic images, spread over {synthetic.path}; "
            "expected eyes, as the rule measures how far irises move. Train other images with `simgan train`."
        )
    if out.exists() and not (out / TRAININGS).is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is no selection; expected a new folder, or one of `simgan select`.")
    return Plan(synthetic, real, out, config, tuple(lambdas), steps, seed, validation)


def check_sweep(config: Config, lambdas: Sequence[float], stops: int) -> tuple[int, ...]:
    """The steps at which trainings are kept; `ValueError` unless lambdas and stops are distinct and possible."""
    if not lambdas or len(set(lambdas)) < len(lambdas):
        raise ValueError(f"lambdas {list(lambdas)} found; expected at least one, each once. Leave out repeated ones.")
    wrong = [value for value in lambdas if not (math.isfinite(value) and value >= 0)]
    if wrong:
        raise ValueError(f"lambda {wrong[0]} found; expected 0 or more. Name others, e.g. 0.1,0.2,0.5.")
    return spaced(config, stops)


def trainings(plan: Plan) -> list[Training]:
    """One training per lambda; its folder's name changes with all that decides its result, the code included."""
    code = provenance.code_fingerprint(provenance.PACKAGE / "training.py")
    found = []
    for lambda_sum in plan.lambdas:
        config = with_overrides(plan.config, {"loss.lambda_sum": lambda_sum})
        inputs = [code, settings_key(plan.synthetic, plan.real, config), str(plan.steps), str(plan.seed)]
        key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:12]
        folder = plan.out / TRAININGS / f"lambda-{lambda_sum:g}-{key}"
        found.append(Training(plan.synthetic.path, plan.real.path, folder, config, plan.steps, plan.seed))
    return found


def _train(task: Training) -> None:
    """Train one lambda's refiner; a second process that wants the same waits for the first."""
    with alone(task.folder.parent / f"{task.folder.name}.lock"):
        train_to_stops(task)


def select_refiner(plan: Plan, *, workers: int | None = None, progress: bool = True) -> Outcome:
    """Train, measure and choose; `workers` processes of one thread each work side by side (default: torch's threads).

    Nothing chosen is a result: `Outcome.refiner` is None, and the verdicts say why.
    """
    tasks = trainings(plan)
    (plan.out / TRAININGS).mkdir(parents=True, exist_ok=True)
    side_by_side(_train, tasks, title="train", workers=workers, progress=progress)
    measurements = [measurement for task in tasks for measurement in task.measurements()]
    candidates = side_by_side(measure, measurements, title="measure", workers=workers, progress=progress)
    raw_auc = measure_raw(plan.synthetic, plan.real, plan.seed, plan.out / TRAININGS / RAW)
    chosen = selection.select(candidates, raw_auc)
    weights = {candidate: task.weights for candidate, task in zip(candidates, measurements, strict=True)}
    errors: list[Errors] = []
    if plan.validation is not None:
        teachers = [None, *(task.weights for task in measurements)]
        errors = validate(
            plan.validation, teachers, plan.out / TRAININGS, plan.seed, workers=workers, progress=progress
        )
    refiner = _export(plan.out, None if chosen.chosen is None else weights[chosen.chosen])
    report = _report(plan, candidates, chosen, errors)
    provenance.write_json(plan.out / RESULT, report)
    return Outcome(tuple(candidates), chosen, refiner, report, tuple(errors))


def _export(out: Path, weights: Path | None) -> Path | None:
    """Put the chosen weights in place of an earlier selection's, whose result goes first: it no longer holds."""
    (out / RESULT).unlink(missing_ok=True)
    if weights is None:
        (out / CHOSEN / REFINER).unlink(missing_ok=True)
        return None
    place(weights, out / CHOSEN / REFINER)
    return out / CHOSEN


def _report(plan: Plan, candidates: Sequence[Candidate], chosen: Selection, errors: Sequence[Errors]) -> dict[str, Any]:
    """All of a selection as plain JSON: the choice, every candidate, the rule's bounds, settings, provenance."""
    stores = {"synthetic": plan.synthetic, "real": plan.real}
    found: list[dict[str, Any]] = [{} for _ in candidates]
    raw: dict[str, Any] = {"raw_auc": chosen.raw_auc.to_dict()}
    if plan.validation is not None:
        stores["validation"] = plan.validation.images
        raw["raw_validation_error_deg"], *others = (one.to_dict() for one in errors)
        found = [{"validation_error_deg": one} for one in others]
    judged = zip(candidates, chosen.verdicts, strict=True)
    config = to_dict(plan.config)
    del config["loss"]["lambda_sum"]  # `lambdas` stand in its place
    settings = {"lambdas": list(plan.lambdas), "steps": list(plan.steps), "seed": plan.seed, "config": config}
    if plan.validation is not None:
        settings["cnns"] = plan.validation.cnns
    return {
        "chosen": None if chosen.chosen is None else chosen.chosen.to_dict(),
        "refiner": None if chosen.chosen is None else CHOSEN,
        **raw,
        "candidates": [
            candidate.to_dict() | {"verdict": verdict} | error
            for (candidate, verdict), error in zip(judged, found, strict=True)
        ],
        "rule": {"max_shift_px": selection.MAX_SHIFT_PX, "max_lost_percent": selection.MAX_LOST_PERCENT},
        "settings": settings,
        "stores": {name: {"images": len(store), "checksum": store.checksum} for name, store in stores.items()},
        "commit": provenance.commit(),
        "packages": provenance.package_versions(),
        "hardware": provenance.device(),
    }


ERRORS = {
    "plain": "gaze error (°)",
    "augmented": "augmented (°)",
    "committee": "together (°)",
    "augmented_committee": "augmented, together (°)",
}
"""What the table calls errors on the validation part."""


def summary(outcome: Outcome, out: Path) -> str:
    """The table, what raw renders reach, and the choice with what to do next, as text for people."""
    raw, chosen = outcome.selection.raw_auc, outcome.selection.chosen
    rows = table(outcome.candidates, outcome.selection.verdicts)
    if outcome.errors:
        for kind in outcome.errors[0].to_dict():
            rows.insert(len(rows.columns) - 1, ERRORS[kind], [getattr(one, kind).value for one in outcome.errors[1:]])
    lines = [
        rows.to_string(index=False, float_format="{:.3f}".format, na_rep="–"),
        f"raw renders: AUC {raw.value:.3f} ({raw.low:.3f} to {raw.high:.3f}); 0.5 = cannot be told from real images",
    ]
    if outcome.errors:
        plain, augmented = outcome.errors[0].plain, outcome.errors[0].augmented
        lines.append(
            f"validation part ({plain.n} images), gaze CNN on raw renders: {plain.value:.2f}° ({plain.low:.2f} to "
            f"{plain.high:.2f}), augmented {augmented.value:.2f}° ({augmented.low:.2f} to {augmented.high:.2f}); "
            "no verdict depends on it"
        )
    if chosen is None:
        lines.append(
            f"chosen: nothing. No candidate keeps the label and looks more real than raw renders, so no refiner is "
            f"exported; {out / RESULT} says why of each. 'Label lost': try larger lambdas. 'No more real': try smaller "
            "ones or more steps; where all AUCs stay near 1, ask `simgan compare` what the simulator misses."
        )
    else:
        lines.append(f"chosen: lambda {chosen.lambda_sum:g}, step {chosen.step}; all in {out / RESULT}")
        lines.append(f"refiner: {outcome.refiner}\nnext: simgan refine {outcome.refiner} IN OUT")
    return "\n".join(lines)
