"""The study of a run, for notebook 06: a lab's database where there is one, else simulated responders on its images.

The database is `SIMGAN_STUDY` (a file or a URL), else `study.db` in the run's folder. One without an answer of the main
task that counts is as good as none; so is one about other pictures than the run's: whoever trains anew asks anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from simgan_core.datasets.store import Store
from simgan_core.run_folder import Metric, RunFolder
from simgan_core.study.analysis import Analysis, analyse, read_answers
from simgan_core.study.creation import create_study
from simgan_core.study.folders import from_run
from simgan_core.study.plan import StudySettings
from simgan_core.study.responders import rehearse
from simgan_core.study.schema import sqlite_file
from simgan_core.study.scoring import Confusion, Share, over_subjects, sensitivity
from simgan_core.study.storage import StudyStore, open_study, shown_name

VARIABLE = "SIMGAN_STUDY"
SIMULATED = "simulated.db"
PAPER_D_PRIME, PAPER_CRITERION = 0.0866, 0.174  # of the paper's ten people
CLASSIFIERS = 2


def database(run: RunFolder) -> str | None:
    """The database of people's answers that belongs to a run; None where there is none."""
    named = os.environ.get(VARIABLE)
    own = run.path / "study.db"
    return named or (str(own) if own.is_file() else None)


def state(run: RunFolder) -> str:
    """Changes when there are new answers: makes notebook 06 out of date."""
    where = database(run)
    if where is None:
        return ""
    file = sqlite_file(where)
    if file is None:
        with open_study(where) as study:
            counts = study.counts()
        return json.dumps([shown_name(where), sum(row["answered"] for row in counts)])
    files = [path for path in (file, file.with_name(file.name + "-wal")) if path.is_file()]
    return json.dumps([str(file), *[[path.stat().st_size, path.stat().st_mtime_ns] for path in files]])


def answers_of(run: RunFolder, seed: int) -> tuple[str, Analysis]:
    """Where the answers lie, and their analysis: people's, or simulated responders' (`Analysis.answers` tells).

    Why answers of people are not taken, where there are any, stands as 'set_aside' in the origin of the others.
    """
    where, aside = database(run), ""
    if where is not None:
        answers = read_answers(where)
        if (answers.table["kind"] == "main").any():
            aside = _of_other_pictures(run, answers.origin)
            if not aside:
                try:
                    return where, analyse(answers)
                except ValueError as error:  # so far all were late, or of people who did not look
                    aside = str(error)
    simulated = str(simulate(run, seed))
    found = read_answers(simulated)
    if aside:
        found = dataclasses.replace(found, origin=found.origin | {"set_aside": f"{shown_name(str(where))}: {aside}"})
    return simulated, analyse(found)


def _of_other_pictures(run: RunFolder, origin: Mapping[str, object]) -> str:
    """What a study's pictures are instead of the run's; empty for the run's, and for folders, of which nothing says."""
    shown = origin.get("checksums")
    if not isinstance(shown, dict):
        return ""
    real = Store.open(run.stores / "real").checksum
    refined = {Store.open(path).checksum for path in map(run.refined, run.seeds) if path.is_dir()}
    if shown.get("real") == real and shown.get("refined") in refined:
        return ""
    return "its pictures are not those of this run as it is now, which has other real images or another refiner."


def simulate(run: RunFolder, seed: int) -> Path:
    """Let simulated responders take a study on the run's images, afresh; returns its database."""
    file = run.path / "06_visual_turing_test" / SIMULATED
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    settings = _settings(run)
    stock = from_run(settings, run.path, seed)
    study = create_study(file, settings, stock.pictures, simulated=True, source=stock.origin)
    rehearse(study, d_prime=PAPER_D_PRIME, criterion=PAPER_CRITERION, classifiers=CLASSIFIERS, seed=seed)
    study.close()
    return file


def people_study(run: RunFolder, seed: int) -> tuple[StudyStore, str | None]:
    """The run's study for people, made where there is none, and the token of a subject who has not finished.

    No token where all have finished. Raises `ValueError` where that study is of other pictures than the run's.
    """
    where = database(run)
    if where is None:
        where = str(run.path / "study.db")
        settings = _settings(run)
        stock = from_run(settings, run.path, seed)
        create_study(where, settings, stock.pictures, source=stock.origin).close()
    study = open_study(where)
    if other := _of_other_pictures(run, study.source):
        study.close()
        raise ValueError(
            f"{shown_name(where)}: {other} Keep it under another name for its answers; the next try makes a new study."
        )
    waiting = [row["participant"] for row in study.counts() if not row["finished"]]
    return study, study.tokens()[waiting[0]] if waiting else None


def in_jupyter() -> bool:
    """Whether a person sits before this notebook: a Jupyter server names its sessions, a headless run has none."""
    return "JPY_SESSION_NAME" in os.environ


def metrics(analysis: Analysis) -> dict[str, Metric]:
    """The numbers of notebook 06; those of simulated responders carry a note that says so."""
    note = "simulated responders, not people" if analysis.answers.simulated else ""
    share, n = over_subjects(analysis.main), len(analysis.main)
    assert share is not None
    found = {"turing.accuracy": _percent(share, n, note)}
    d_prime = sensitivity(Confusion.of(analysis.main)).d_prime
    found["turing.d_prime"] = Metric(d_prime, None, None, "", 1, n, note)
    if analysis.control is not None:
        found["turing.control.accuracy"] = _percent(analysis.control.share, analysis.control.n, note)
    people = 0 if analysis.answers.simulated else analysis.subjects
    found["turing.people"] = Metric(float(people), None, None, "", 1, n, note)
    return {name: metric for name, metric in found.items() if metric.value == metric.value}


def responders(analysis: Analysis) -> pd.DataFrame:
    """Table 1's numbers by kind of responder: people, ideal observer, classifier."""
    named = analysis.main.assign(responder=analysis.main.get("responder", "unknown"))
    rows = []
    for responder, own in named.groupby("responder"):
        cells, share = Confusion.of(own), over_subjects(own)
        assert share is not None
        found = sensitivity(cells)
        rows.append((responder, own["subject"].nunique(), cells.n, 100 * share.value, 100 * share.low,
                     100 * share.high, found.d_prime, found.criterion))  # fmt: skip
    columns = ["responder", "subjects", "answers", "right (%)", "low", "high", "d'", "criterion"]
    return pd.DataFrame(rows, columns=columns)


def table_1(analysis: Analysis, paper: Confusion) -> pd.DataFrame:
    """The confusion table beside the paper's, in trials and percent of a row."""
    here = "simulated" if analysis.answers.simulated else "ours"
    ours, theirs = analysis.cells.to_dict(), paper.to_dict()
    return pd.DataFrame([
        {"truth": truth, **{f"{name}: called {answer}": _cell(cells[truth], answer)
                            for name, cells in ((here, ours), ("paper", theirs)) for answer in ("real", "refined")}}
        for truth in ("real", "refined")
    ])  # fmt: skip


def hardest(analysis: Analysis, truth: str, count: int = 8) -> pd.DataFrame:
    """Images of one truth that were misjudged, most often first: image, shown, share of wrong answers."""
    own = analysis.main[analysis.main["truth"] == truth]
    wrong = (own["answer"] != own["truth"]).groupby(own["image"])
    table = pd.DataFrame({"shown": wrong.size(), "wrong": wrong.mean()}).rename_axis("image").reset_index()
    table = table[table["wrong"] > 0]
    return table.sort_values(["wrong", "shown", "image"], ascending=[False, False, True]).head(count)


def pictures(where: str, table: pd.DataFrame) -> dict[str, bytes]:
    """PNG bytes of the images of a table, by id, from the database that the answers came from."""
    study = open_study(where)
    try:
        return study.pictures([str(name) for name in table["image"]])
    finally:
        study.close()


def _settings(run: RunFolder) -> StudySettings:
    """The paper's numbers; under `smoke`, whose stores hold few images, a short study."""
    if run.config.profile == "smoke":
        return StudySettings(subjects=4, real=10, refined=10, control=3, practice=2, attention=0)
    return StudySettings()


def _percent(share: Share, n: int, note: str) -> Metric:
    return Metric(100 * share.value, 100 * share.low, 100 * share.high, "%", 1, n, note)


def _cell(row: Mapping[str, int], answer: str) -> str:
    total = sum(row.values())
    return f"{row[answer]} ({100 * row[answer] / total:.0f} %)" if total else "–"
