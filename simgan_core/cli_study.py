"""The commands of a study on people: `simgan study create`, `links`, `serve`, `analyse`, `compare`, `export`, ..."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simgan_core import cli_study_serve
from simgan_core.cli_options import LARGEST_SEED

if TYPE_CHECKING:
    from simgan_core.study.folders import Stock
    from simgan_core.study.plan import StudySettings

study_app = typer.Typer(no_args_is_help=True, help="The visual Turing test: plan it, serve it, analyse it.")
study_app.command("serve")(cli_study_serve.serve)
study_app.command("load")(cli_study_serve.load)

Database = Annotated[str, typer.Argument(help="The study: a file of SQLite, or a PostgreSQL URL.")]


@study_app.command()
def create(
    database: Annotated[str, typer.Argument(help="New file for SQLite, or the URL of an empty PostgreSQL database.")],
    real: Annotated[Path | None, typer.Option(help="Folder or store of real images.")] = None,
    refined: Annotated[
        Path | None, typer.Option(help="Folder or store of refined images, or of whatever to compare.")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="Folder or store of unrefined images, for the control.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run's folder (runs/...), instead of folders of images.")] = None,
    run_seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Which of the run's refiners.")] = 0,
    settings: Annotated[
        Path | None, typer.Option(help="JSON file of settings (texts, keys, labels, ...); options here win.")
    ] = None,
    subjects: Annotated[int | None, typer.Option(min=1, help="Number of subjects (10).")] = None,
    n_real: Annotated[int | None, typer.Option(min=0, help="Real images of each subject (50).")] = None,
    n_refined: Annotated[int | None, typer.Option(min=0, help="Refined images of each subject (50).")] = None,
    control: Annotated[
        int | None, typer.Option(min=0, help="Unrefined images at the end, among as many real ones (10).")
    ] = None,
    practice: Annotated[int | None, typer.Option(min=0, help="Practice trials with feedback (6).")] = None,
    attention: Annotated[int | None, typer.Option(min=0, help="Attention checks (2).")] = None,
    max_run: Annotated[int | None, typer.Option(min=1, help="Longest run of one right answer (4).")] = None,
    images: Annotated[str | None, typer.Option(help="'same' for all subjects (default), or 'split' over them.")] = None,
    exposure_ms: Annotated[
        int | None, typer.Option(min=1, help="How long an image is shown; default: no limit.")
    ] = None,
    deadline_ms: Annotated[int | None, typer.Option(min=1, help="Time for an answer; default: no limit.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the orders and of the choice of images (0).")] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Crop and resize all images to HEIGHT WIDTH, as trainings do; default: they must agree."),
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Turn all images grey.")] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="For programs as subjects; stamps every answer as simulated.")
    ] = False,
) -> None:
    """Plan a study on two folders of images or on a run, and write it with its pictures to a database."""
    from simgan_core.study.creation import create_study
    from simgan_core.study.storage import shown_name

    options = {
        "subjects": subjects, "real": n_real, "refined": n_refined, "control": control, "practice": practice,
        "attention": attention, "max_run": max_run, "images": images, "exposure_ms": exposure_ms,
        "deadline_ms": deadline_ms, "seed": seed,
    }  # fmt: skip
    chosen = _settings(settings, {name: value for name, value in options.items() if value is not None})
    stock = _stock(chosen, real, refined, synthetic, run, run_seed, size=size, grey=grey)
    study = create_study(database, chosen, stock.pictures, simulated=simulated, source=stock.origin)
    study.close()
    typer.echo(f"{chosen.subjects} subjects, {chosen.trials} trials each")
    typer.echo(f"next: simgan study serve {_quoted(shown_name(database))}")  # a URL's password shows as ***


@study_app.command()
def links(
    database: Database,
    base_url: Annotated[str, typer.Option(help="Address under which the page is reached.")] = "http://127.0.0.1:8866",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the private link of each subject, and the experimenter's. Whoever has a link can answer in its name."""
    from simgan_core.study.storage import open_study

    study, base = open_study(database), base_url.rstrip("/")
    subjects = {participant: f"{base}/s/{token}" for participant, token in study.tokens().items()}
    experimenter = f"{base}/e/{study.experimenter_token}"
    study.close()
    if as_json:
        typer.echo(json.dumps({"subjects": subjects, "experimenter": experimenter}))
        return
    for participant, link in subjects.items():
        typer.echo(f"{participant}  {link}")
    typer.echo(f"experimenter  {experimenter}")


@study_app.command()
def analyse(
    file: Annotated[
        str, typer.Argument(help="A study's database, or a CSV with subject, truth, answer (real|refined).")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Accuracy with interval, exact tests, d' and criterion, table 1, per subject; equivalence and mixed model."""
    from simgan_core.study.analysis import analyse as analysed
    from simgan_core.study.analysis import read_answers

    found = analysed(read_answers(file)).to_dict()
    typer.echo(json.dumps(found, allow_nan=False) if as_json else _report(found))


@study_app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Answers to the first refiner's images: database or table.")],
    second: Annotated[str, typer.Argument(help="Answers to the second's.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two refiners by the people who judged them: second minus first; below 0 the second fools better."""
    from simgan_core.study.analysis import analyse as analysed
    from simgan_core.study.analysis import read_answers
    from simgan_core.study.comparison import compare as compared

    both = [analysed(read_answers(name)) for name in (first, second)]
    left_out = sorted({subject for one in both for subject in one.excluded})  # who did not look once is out of both
    tables = [one.main[~one.main["subject"].isin(left_out)] for one in both]
    found = dataclasses.asdict(compared(tables[0], tables[1])) | {"excluded_subjects": left_out}
    found["simulated"] = any(one.answers.simulated for one in both)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    typer.echo(_stamp(found["simulated"]) + "second minus first, 95 % intervals over subjects")
    for name in ("accuracy", "d_prime"):
        typer.echo("{:<10}{value:+.3f}  ({low:+.3f} to {high:+.3f})".format(name, **found[name]))
    typer.echo(f"p (permutation of {'paired' if found['paired'] else 'unpaired'} subjects)  {found['p_two_sided']:.3g}")


@study_app.command()
def simulate(
    database: Database,
    d_prime: Annotated[float, typer.Option(help="How well the ideal observers tell real from refined images.")] = 0.0,
    criterion: Annotated[float, typer.Option(help="Their leaning; positive: prefer to answer 'refined'.")] = 0.0,
    classifiers: Annotated[
        int, typer.Option(min=0, help="Subjects played by networks trained on the study's pictures instead.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of their answers.")] = 0,
) -> None:
    """Rehearse: let programs answer a study that was made with --simulated. Their answers are never evidence."""
    from simgan_core.study.responders import rehearse
    from simgan_core.study.storage import open_study

    study = open_study(database)
    for name in rehearse(study, d_prime=d_prime, criterion=criterion, classifiers=classifiers, seed=seed):
        typer.echo(name)
    study.close()


@study_app.command()
def export(
    database: Database,
    out: Annotated[Path, typer.Argument(help="File to write: .csv (safe in a spreadsheet) or .parquet.")],
) -> None:
    """Write every planned trial with its answer, times, browser and window; settings go along."""
    from simgan_core.study.export import export as exported
    from simgan_core.study.storage import open_study

    study = open_study(database)
    for file in exported(study, out):
        typer.echo(str(file))
    study.close()


@study_app.command()
def power(
    margin: Annotated[
        float, typer.Option(help="'Cannot tell': right in one half of the trials, give or take this.")
    ] = 0.05,
    accuracy: Annotated[float, typer.Option(help="True share of right answers, for both questions.")] = 0.5,
    wanted: Annotated[float, typer.Option(help="Power: probability that the study shows it.")] = 0.8,
    alpha: Annotated[
        float, typer.Option(help="Level of each one-sided test: 0.025 for C1's 95 % interval, 0.05 for its 90 % one.")
    ] = 0.025,
    trials: Annotated[int, typer.Option(min=1, help="Real and refined trials of each subject.")] = 100,
    correlation: Annotated[
        float, typer.Option(min=0, max=0.99, help="Correlation of a subject's answers being right (0: independent).")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How many trials and subjects show that people cannot tell (equivalence), or that they can (difference)."""
    from simgan_core.study.power import power_analysis

    found = power_analysis(
        margin, accuracy=accuracy, wanted=wanted, alpha=alpha, trials=trials, correlation=correlation
    )
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    for name, value in found.items():
        typer.echo(f"{name:<24}  {'–' if value is None else value}")


def _settings(file: Path | None, options: dict[str, Any]) -> StudySettings:
    from simgan_core.study.plan import StudySettings

    if file is None:
        return StudySettings(**options)
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "does not exist"
        raise ValueError(f"{file} {found}; expected a file with a JSON object of settings.")
    try:
        base = StudySettings.from_json(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 ({error}); save it as UTF-8.") from error
    return dataclasses.replace(base, **options)


def _stock(
    settings: StudySettings, real: Path | None, refined: Path | None, synthetic: Path | None, run: Path | None,
    run_seed: int, *, size: tuple[int, int] | None, grey: bool,
) -> Stock:  # fmt: skip
    from simgan_core.datasets.store import Store
    from simgan_core.datasets.writer import MANIFEST
    from simgan_core.study.folders import from_folders, from_run, from_stores

    if run is not None:
        if real or refined or synthetic or size or grey:
            raise ValueError("--run found beside folders, --size or --grey; expected the one or the others.")
        return from_run(settings, run, run_seed)
    if run_seed:
        raise ValueError(f"--run-seed {run_seed} found without --run; expected both, or folders alone.")
    if real is None or refined is None:
        raise ValueError("no images named; expected --real and --refined (two folders), or --run.")
    named = [path for path in (real, refined, synthetic) if path is not None]
    stores = [path for path in named if (path / MANIFEST).is_file()]
    if not stores:
        return from_folders(settings, real, refined, synthetic, size=size, colour=False if grey else None)
    if len(stores) < len(named) or size or grey:
        raise ValueError(f"{stores[0]} is a store; expected stores alone then, without --size and --grey.")
    if settings.control and synthetic is None:
        raise ValueError("no --synthetic found; expected the store that the refined one was made from, or --control 0.")
    return from_stores(settings, Store.open(real), Store.open(refined), Store.open(synthetic or refined))


def _report(found: dict[str, Any]) -> str:
    """The result for people: table 1 beside the paper's, and what follows from it."""
    cells, control = found["confusion"], found["control"]
    lines = [
        f"{found['subjects']} subjects, {found['n']} answers, {found['correct']} right"
        f" = {100 * found['accuracy']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f} %)",
        "", "                 called real   called refined",
        *(f"{truth:<14}{cells[truth]['real']:>14}{cells[truth]['refined']:>17}" for truth in ("real", "refined")), "",
        f"p, one-sided {found['p_one_sided']:.4g}, two-sided {found['p_two_sided']:.4g}",
    ]  # fmt: skip
    if found["d_prime"] is not None:
        lines.append(f"d' {found['d_prime']:.3f}, criterion {found['criterion']:.3f}")
    lines.append(_equivalence(found["equivalence"], "were all answers independent, which those of a person are not"))
    if found["equivalence_over_subjects"] is not None:
        lines.append(_equivalence(found["equivalence_over_subjects"], "over subjects, as C1 is judged"))
    if control is not None:
        lines.append(f"control (unrefined): {control['correct']} of {control['n']}, p {control['p_one_sided']:.2g}")
    if found["excluded_subjects"]:
        lines.append(f"left out for failed attention checks: {', '.join(found['excluded_subjects'])}")
    lines.append(f"C1: {found['claim']['verdict']}. {found['claim']['note']}")
    if found["origin"].get("real_is_standin"):
        lines.append("'real' here are images of the stand-in target, which are none")
    return _stamp(found["simulated"]) + "\n".join(lines)


def _equivalence(test: dict[str, Any], how: str) -> str:
    verdict = "holds" if test["holds"] else "not shown"
    return f"right in one half ± {100 * test['margin']:g} points, {how}: p {test['p']:.3g}, {verdict}"


def _stamp(simulated: bool) -> str:
    return "SIMULATED RESPONDERS: no person was asked.\n" if simulated else ""


def _quoted(database: str) -> str:
    import shlex

    return shlex.quote(database)
