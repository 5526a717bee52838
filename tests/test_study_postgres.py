"""The whole way on a PostgreSQL server: create, serve, answer, analyse, export, notebook 06, by the URL alone."""

import asyncio
import json
from pathlib import Path

import pandas as pd
import pytest
from study_pictures import folder
from study_postgres import new_database, postgres  # noqa: F401  # a fixture
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.profiles import profile
from simgan_core.run_folder import RunFolder
from simgan_core.study import in_run
from simgan_core.study.load_client import Run, Server, Subject
from simgan_core.study.storage import open_study

RUNNER = CliRunner()


def test_serve_analyse_export_and_notebook_06_by_url(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database(request.getfixturevalue("postgres")).replace("lab@", "lab:opensesame@")
    named = [f"--{name}={folder(tmp_path / name, seed=k)}" for k, name in enumerate(("real", "refined", "synthetic"))]
    plan = ["--n-real", "3", "--n-refined", "3", "--control", "2", "--practice", "0", "--attention", "0",
            "--subjects", "2", "--simulated"]  # fmt: skip
    made = RUNNER.invoke(app, ["study", "create", url, *named, *plan])
    assert made.exit_code == 0 and "opensesame" not in made.output, made.output
    with open_study(url) as study:
        token = next(iter(study.tokens().values()))
    run = Run(subjects=1, trials=10, killed=False)
    server = Server(url)
    server.start()
    try:
        asyncio.run(Subject("s", server.address, token, run, think_ms=20, seed=0).take_part())
    finally:
        log = server.stop()
    assert run.finished == 1 and len(run.confirmed["s"]) == 10 and "opensesame" not in log
    analysed = RUNNER.invoke(app, ["study", "analyse", url, "--json"])
    found = json.loads(analysed.stdout)
    assert (found["n"], found["control"]["n"], found["simulated"]) == (6, 4, True)
    exported = RUNNER.invoke(app, ["study", "export", url, str(tmp_path / "answers.csv")])
    assert exported.exit_code == 0, exported.output
    table = pd.read_csv(tmp_path / "answers.csv")
    stored = table[table["answer"].notna()]
    assert len(table) == 20 and dict(zip(stored["trial"], stored["answer"], strict=True)) == run.confirmed["s"]
    assert set(stored["window_width"]) == {1280} and stored["software"].str.startswith("simgan-core").all()
    monkeypatch.setenv(in_run.VARIABLE, url)
    runs = RunFolder.create(tmp_path / "run", data="embedded", config=profile("smoke"))
    before = in_run.state(runs)
    where, analysis = in_run.answers_of(runs, 0)
    assert where == url and analysis.cells.n == 6
    hardest = in_run.hardest(analysis, "real", count=2)
    assert set(in_run.pictures(where, hardest)) == set(hardest["image"])
    with open_study(url) as study:
        session = study.open_session(list(study.tokens().values())[1])
        study.give_consent(session.key)
        study.record_answer(session.key, 0, "real")
    assert in_run.state(runs) != before, "a new answer makes notebook 06 out of date"
    people, waiting = in_run.people_study(runs, 0)
    assert waiting == list(people.tokens().values())[1], "the one who has not finished"
    people.close()
