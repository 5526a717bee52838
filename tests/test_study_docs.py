"""docs/study.md is true: its commands run in its order and print what it shows; its tables name what exists."""

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from study_pictures import folder
from toy_eyes import toy_store
from typer.testing import CliRunner

from simgan_core.cli import app
from simgan_core.profiles import profile
from simgan_core.run_folder import RunFolder
from simgan_core.study.analysis import analyse, read_answers
from simgan_core.study.plan import StudySettings
from simgan_core.study.power import power_analysis
from simgan_core.study.storage import open_study

DOCS = Path(__file__).resolve().parent.parent / "docs"
TEXT = (DOCS / "study.md").read_text()
RUNNER = CliRunner()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """Each `simgan ...` line of a block of shell commands, without comments and variables before it."""
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if "simgan" in words:
            yield words[words.index("simgan") + 1 :]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the page takes for granted: folders of images, a run, the settings of its JSON."""
    for seed, name in enumerate(("photos", "refined", "renders", "refined_2")):
        folder(tmp_path / name, count=110, seed=seed)
    run = RunFolder.create(tmp_path / "runs/cpu-embedded", data="embedded", config=profile("cpu"))
    for seed, path in enumerate((run.stores / "real", run.stores / "synthetic", run.refined(0))):
        toy_store(path, 80, seed)
    block = next(code for kind, code in BLOCK.findall(TEXT) if kind == "json")
    (tmp_path / "settings.json").write_text(block)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def people_answer(database: str) -> None:
    """Two people open their links; one is always right, the other says 'real' to all but the attention checks."""
    with open_study(database) as study:
        for person, (name, token) in enumerate(list(study.tokens().items())[:2]):
            session = study.open_session(token)
            study.give_consent(session.key)
            for row in [row for row in study.rows() if row["subject"] == name]:
                answer = row["truth"] if person == 0 or row["kind"] == "attention" else "real"
                study.record_answer(session.key, row["trial"], answer, reaction_ms=700)


def test_the_pages_commands_run_in_its_order_and_print_what_it_shows(lab: Path) -> None:
    blocks = BLOCK.findall(TEXT)
    ran, printed = set(), ""
    for kind, code in blocks:
        if kind == "text":
            assert printed.startswith(code), f"the page shows\n{code}\nand the command prints\n{printed}"
        for words in commands(code) if kind == "sh" else ():
            if words[:2] == ["study", "serve"]:
                people_answer(words[2])
            if words[0] != "study" or words[1] == "serve":
                continue
            result = RUNNER.invoke(app, words)
            assert result.exit_code == 0, (words, result.output)
            printed = result.stdout
            ran.add(words[1])
    assert ran == {"create", "analyse", "power", "simulate", "compare", "export"}
    with open_study("of_a_run.db") as study:
        assert study.source["kind"] == "run" and study.source["real_is_standin"] is True
        sources = {row["file"].split("/")[0] for row in study.rows() if row["kind"] in ("main", "control")}
        assert sources == {"real", "refined", "synthetic"}, "names of stores and numbers"
    with open_study("small.db") as study:
        assert study.settings.keys == ("y", "m") and study.settings.images == "split" and study.settings.subjects == 4
    with open_study("first.db") as first, open_study("second.db") as second:
        real = [{row["file"] for row in study.rows() if row["truth"] == "real"} for study in (first, second)]
        assert real[0] == real[1], "with one seed both show the same real images"
    assert (
        (lab / "answers.csv").is_file()
        and (lab / "answers.study.json").is_file()
        and (lab / "answers.parquet").is_file()
    )


@pytest.mark.parametrize("page", ["study.md", "study_serving.md", "../README.md"])
def test_every_command_and_option_on_the_pages_exists(page: str) -> None:
    blocks = [code for kind, code in BLOCK.findall((DOCS / page).read_text()) if kind == "sh"]
    inline = re.findall(r"`(simgan study [^`]+)`", (DOCS / page).read_text())
    for words in itertools.chain.from_iterable(commands(code) for code in (*blocks, *inline)):
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            assert words and words[0] in command.commands, words
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            assert not word.startswith("--") or word.split("=")[0] in known, (command.name, word)


def test_the_table_of_options_has_all_with_the_defaults_of_the_code() -> None:
    table = TEXT.split("## The plan")[1].split("`split` needs")[0].replace("\\|", "/")
    shown: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`--[^|]+) \| ([^|]+) \|", table, re.MULTILINE):
        options = re.findall(r"--([\w-]+)", names)
        shown |= dict(zip(options, defaults.split(", ") * len(options), strict=False))
    fields = {"n-real": "real", "n-refined": "refined"}
    for option, default in shown.items():
        value = getattr(StudySettings(), fields.get(option, option.replace("-", "_")))
        assert default == ("none" if value is None else str(value)), option
    create: Any = typer.main.get_command(app)
    create = create.commands["study"].commands["create"]
    not_of_the_plan = {
        "real",
        "refined",
        "synthetic",
        "run",
        "run-seed",
        "settings",
        "size",
        "grey",
        "simulated",
        "help",
    }
    assert set(shown) == {parameter.opts[0][2:] for parameter in create.params[1:]} - not_of_the_plan


def test_the_numbers_of_people_are_those_of_the_code() -> None:
    rows = re.findall(r"± (\d+) points \| (\d+) answers, (\d+) people \| (\d+) answers, (\d+) people", TEXT)
    assert len(rows) == 3
    for margin, *numbers in rows:
        for correlation, (answers, people) in ((0.0, numbers[:2]), (0.02, numbers[2:])):
            found = power_analysis(
                int(margin) / 100, accuracy=0.5, wanted=0.8, alpha=0.025, trials=100, correlation=correlation
            )
            assert (found["equivalence_trials"], found["claim_subjects"]) == (int(answers), int(people))
    can = power_analysis(0.05, accuracy=0.55, wanted=0.8, alpha=0.025, trials=100, correlation=0)
    assert f"{can['difference_trials']} independent answers" in TEXT


def test_the_table_of_results_names_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("subject,truth,answer\na,real,real\nb,refined,real\n")
    found = analyse(read_answers(tmp_path / "a.csv")).to_dict()
    section = TEXT.split("## Analysis")[1].split("Rules that were fixed")[0].split("| name | meaning |")[1]
    named = {name for row in re.findall(r"^\|([^|]+)\|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(found) and json.dumps(found, allow_nan=False)
