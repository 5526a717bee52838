"""From pictures to the verdict: folders, responders, analysis, export, command line. Programs never count as people."""

import csv
import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from study_pictures import SMALL, answers, folder, small_study, stock
from typer.testing import CliRunner

from simgan_core.claims import BY_ID, Within
from simgan_core.cli import app
from simgan_core.datasets.errors import DataError
from simgan_core.study import responders
from simgan_core.study.analysis import Analysis, Answers, analyse, judge_c1, read_answers
from simgan_core.study.creation import create_study
from simgan_core.study.export import export, spreadsheet_safe
from simgan_core.study.folders import from_folders, from_stores
from simgan_core.study.pictures import decode_png
from simgan_core.study.plan import StudySettings
from simgan_core.study.responders import IdealObserver, classifier_of, respond
from simgan_core.study.scoring import PAPER, Confusion, sensitivity
from simgan_core.study.storage import StudyStore, open_study

RUNNER = CliRunner()
TWO = dataclasses.replace(SMALL, control=0)
OTHER = {"real": "refined", "refined": "real"}


def simgan(*arguments: object) -> dict:
    result = RUNNER.invoke(app, ["study", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1, "more than one JSON object"
    return json.loads(result.stdout)


def simulated(where: Path, settings: StudySettings = SMALL, d_prime: float = 0.5) -> StudyStore:
    study = small_study(where, settings, simulated=True)
    respond(study, [IdealObserver(d_prime)] * settings.subjects)
    return study


def human(main: Confusion, control: Confusion | None, subjects: int = 10) -> Analysis:
    """An analysis of people with exactly these cells."""
    parts = [answers(main, subjects).assign(kind="main")]
    if control is not None:
        parts.append(answers(control, subjects).assign(kind="control"))
    return analyse(Answers(pd.concat(parts, ignore_index=True), ("human",), {}))


# --- pictures ---


def test_any_two_folders_make_a_study(tmp_path: Path) -> None:
    stock_found = from_folders(TWO, folder(tmp_path / "a", seed=1), folder(tmp_path / "b", seed=2))
    with create_study(tmp_path / "s.db", TWO, stock_found.pictures, source=stock_found.origin) as study:
        names = {row["file"] for row in study.rows() if row["source"] == "real"}
        assert names <= {f"{number}.png" for number in range(12)}
        assert study.source == {"kind": "folders", "real": "a", "refined": "b"}
        row = next(row for row in study.rows() if row["source"] == "real")
        stored = decode_png(study.pictures([row["image"]])[row["image"]])
        assert np.array_equal(stored[0], np.array(Image.open(tmp_path / "a" / row["file"])))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"size": (12, 20)}, "12 x 20 pixels; expected 12 x 18"), ({"colour": True}, "a colour image; expected a grey"),
        ({"seed": 1}, "the same picture as"), ({"count": 3}, "3 refined images found; expected at least 5"),
    ],
)  # fmt: skip
def test_what_would_give_the_truth_away_is_refused(tmp_path: Path, second: dict, message: str) -> None:
    settings = dataclasses.replace(TWO, real=4, refined=4, attention=0)
    first = folder(tmp_path / "a", seed=1, count=5)
    options = {"seed": 2, "count": 5} | second
    with pytest.raises(ValueError, match=message):
        found = from_folders(settings, first, folder(tmp_path / "b", **options))
        create_study(tmp_path / "s.db", settings, found.pictures)
    assert not (tmp_path / "s.db").exists()


def test_one_folder_for_two_kinds_of_images_is_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", count=40)
    (tmp_path / "link").symlink_to(a)
    for other in (a, tmp_path / "link", tmp_path / "a" / ".." / "a"):
        with pytest.raises(DataError, match="the same folder for real and refined images"):
            from_folders(TWO, a, other)
    with pytest.raises(DataError, match="the same folder for refined and synthetic images"):
        from_folders(SMALL, folder(tmp_path / "b", seed=1), a, a)


def test_sizes_and_colours_can_be_brought_into_line(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", colour=True), folder(tmp_path / "b", size=(20, 30), seed=1)
    found = from_folders(TWO, a, b, size=(10, 15), colour=False)
    assert {decode_png(one.png).shape for part in found.pictures.values() for one in part} == {(1, 10, 15)}
    wide = tmp_path / "wide"  # cropped as trainings crop, not squeezed: a distortion would give the truth away
    wide.mkdir()
    for k in range(40):
        picture = np.full((20, 90), 200, np.uint8)
        picture[:, 30:60] = 20 + k
        Image.fromarray(picture).save(wide / f"{k}.png")
    pictures = from_folders(TWO, wide, b, size=(10, 15), colour=False).pictures["real"]
    assert max(decode_png(one.png).max() for one in pictures) < 80, "what lies outside of the middle is cut off"
    with pytest.raises(DataError, match="no folder of unrefined synthetic"):
        from_folders(SMALL, a, b)


def test_stores_can_be_studied_from_the_command_line(tmp_path: Path) -> None:
    from toy_eyes import toy_store
    from typer.testing import CliRunner

    from simgan_core.cli import app

    for seed, name in enumerate(("real", "refined", "synthetic")):
        toy_store(tmp_path / name, 12, seed)
    few = ["--subjects", "1", "--n-real", "2", "--n-refined", "2", "--practice", "0", "--attention", "0"]

    def create(name: str, *options: str) -> str:
        stores = ["--real", str(tmp_path / "real"), "--refined", str(tmp_path / "refined")]
        done = CliRunner().invoke(app, ["study", "create", str(tmp_path / name), *stores, *few, *options])
        return done.output if done.exit_code == 0 else str(done.exception)

    assert "1 subjects, 6 trials" in create("a.db", "--control", "1", "--synthetic", str(tmp_path / "synthetic"))
    assert "1 subjects, 4 trials" in create("b.db", "--control", "0")
    assert "the store that the refined one was made from" in create("c.db", "--control", "1")
    assert "expected stores alone" in create("d.db", "--control", "0", "--size", "10", "15")
    toy_store(tmp_path / "shorter", 5, 7)
    assert "found 5 images" in create("e.db", "--control", "1", "--synthetic", str(tmp_path / "shorter"))


def test_other_formats_on_one_side_are_warned_of(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b", seed=1)
    for file in sorted(b.glob("*.png")):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    with pytest.warns(UserWarning, match="compression may give the truth away"):
        from_folders(TWO, a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_folders(TWO, a, folder(tmp_path / "c", seed=3))


def test_no_eye_comes_both_rendered_and_refined(tmp_path: Path) -> None:
    from toy_eyes import toy_store

    stores = [toy_store(tmp_path / name, 12, seed) for seed, name in enumerate(("real", "refined", "synthetic"))]
    found = from_stores(SMALL, *stores)
    used = [{one.name.split("/")[1] for one in found.pictures[source]} for source in ("refined", "synthetic")]
    assert used[0] and used[1] and not used[0] & used[1]
    for source, store in zip(("real", "refined", "synthetic"), stores, strict=True):
        for one in found.pictures[source]:
            index = int(one.name.split("/")[1])
            assert np.array_equal(decode_png(one.png), store.images([index])[0]), f"{one.name} is another picture"


# --- programs as subjects ---


def test_programs_answer_simulated_studies_only_and_are_stamped_everywhere(tmp_path: Path) -> None:
    with small_study(tmp_path / "people.db") as people, pytest.raises(ValueError, match="study of people"):
        respond(people, [IdealObserver(1.0)])
    with open_study(tmp_path / "people.db") as people:
        assert all(row["answer"] is None for row in people.rows())
    with simulated(tmp_path / "s.db") as study:
        assert all(row["responder"].startswith("simulated: ideal") for row in study.rows())
        (table, about) = export(study, tmp_path / "s.csv")
        export(study, tmp_path / "s.parquet")
    assert json.loads(about.read_text())["simulated"] is True
    for file in (tmp_path / "s.db", table, tmp_path / "s.parquet"):
        found = analyse(read_answers(file)).to_dict()
        assert found["simulated"] and found["responders"][0].startswith("simulated")
        claim = found["claim"]
        assert claim["verdict"] == "not evaluated" and claim["ours"] is None
        assert "simulated responders, not people" in claim["title"] and "No person was asked" in claim["note"]
    printed = RUNNER.invoke(app, ["study", "analyse", str(table)]).output
    assert printed.startswith("SIMULATED")


@pytest.mark.parametrize("responder", [None, "", "human"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_says_simulated_is_none_of_people(tmp_path: Path, responder: str | None, suffix: str) -> None:
    """Somebody takes the names of the responders out of an export, or a spreadsheet writes TRUE for True."""
    with simulated(tmp_path / "s.db") as study:
        (file, *_) = export(study, tmp_path / f"s{suffix}")
    table = pd.read_csv(file) if suffix == ".csv" else pd.read_parquet(file)
    table = table.drop(columns="responder") if responder is None else table.assign(responder=responder)
    if suffix == ".csv":
        table.assign(simulated="TRUE").to_csv(file, index=False)
    else:
        table.to_parquet(file)
    found = analyse(read_answers(file)).to_dict()
    assert found["simulated"] and found["claim"]["verdict"] == "not evaluated" and found["claim"]["ours"] is None


def test_a_table_of_people_stays_one_and_an_unclear_one_is_refused(tmp_path: Path) -> None:
    table = answers(PAPER)
    table.assign(simulated=False).to_csv(tmp_path / "people.csv", index=False)
    assert not read_answers(tmp_path / "people.csv").simulated
    table.assign(simulated="perhaps").to_csv(tmp_path / "unclear.csv", index=False)
    with pytest.raises(DataError, match="simulated 'perhaps' in line 2"):
        read_answers(tmp_path / "unclear.csv")


def test_a_rehearsal_fills_a_simulated_study_and_no_other(tmp_path: Path) -> None:
    for name, simulated_study in (("r.db", True), ("people.db", False)):
        small_study(tmp_path / name, simulated=simulated_study).close()
    done = RUNNER.invoke(app, ["study", "simulate", str(tmp_path / "r.db"), "--d-prime", "1.5", "--classifiers", "1"])
    assert done.exit_code == 0, done.output
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        "simulated: ideal observer", "simulated: classifier",
    ]  # fmt: skip
    with open_study(tmp_path / "r.db") as study:
        assert all(row["finished"] for row in study.counts())
    for file, options in (("people.db", []), ("r.db", ["--classifiers", "3"])):
        refused = RUNNER.invoke(app, ["study", "simulate", str(tmp_path / file), *options])
        assert refused.exit_code != 0 and isinstance(refused.exception, ValueError)
    with open_study(tmp_path / "people.db") as people:
        assert all(row["answer"] is None for row in people.rows())


def test_one_program_among_people_spoils_the_evidence() -> None:
    clean = human(Confusion(250, 250, 250, 250), Confusion(80, 20, 20, 80))
    assert judge_c1(clean, profile="cpu").verdict == "supported"
    mixed = dataclasses.replace(clean.answers, responders=("human", "simulated: classifier"))
    assert judge_c1(dataclasses.replace(clean, answers=mixed), profile="cpu").verdict == "not evaluated"


def test_an_ideal_observer_has_the_sensitivity_that_it_was_given(tmp_path: Path) -> None:
    settings = StudySettings(subjects=2, real=250, refined=250, control=0, practice=0, attention=2)
    with create_study(tmp_path / "s.db", settings, stock(250), simulated=True) as study:
        respond(study, [IdealObserver(1.0, 0.3)] * 2)
    found = sensitivity(analyse(read_answers(tmp_path / "s.db")).cells)
    assert found.d_prime == pytest.approx(1.0, abs=0.25) and found.criterion == pytest.approx(0.3, abs=0.15)


def test_a_classifier_learns_what_can_be_told_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brightness tells these pictures apart; where the truths are shuffled, held-out pictures cannot be told."""
    settings = StudySettings(subjects=1, real=40, refined=40, control=0, practice=0, attention=0)
    with create_study(tmp_path / "s.db", settings, stock(40), simulated=True) as study:
        respond(study, [classifier_of(study, seed=0)])
        pictures, planned = study.pictures(list(study.plan().images())), study.plan().images()
    assert analyse(read_answers(tmp_path / "s.db")).cells.accuracy > 0.85
    names = sorted(planned)
    shuffled = dict(zip(names, np.random.default_rng(0).permutation([planned[n].source for n in names]), strict=True))
    blind = responders.Classifier(pictures, shuffled, seed=0)
    right = [(blind.logits[name] > 0) == (shuffled[name] == "real") for name in names]
    assert 0.25 < np.mean(right) < 0.75, "it has seen the pictures that it is asked about"


# --- analysis ---


def test_the_papers_answers_as_csv_give_the_papers_numbers(tmp_path: Path) -> None:
    answers(PAPER).to_csv(tmp_path / "paper.csv", index=False)
    found = simgan("analyse", tmp_path / "paper.csv")
    assert (found["n"], found["correct"], found["accuracy"]) == (1000, 517, 0.517)
    assert found["p_one_sided"] == pytest.approx(0.1483, abs=5e-5)
    assert [round(100 * end, 2) for end in found["interval"]] == [48.55, 54.84]
    assert (round(found["d_prime"], 3), round(found["criterion"], 3)) == (0.087, 0.174)
    assert found["confusion"] == {"real": {"real": 224, "refined": 276}, "refined": {"real": 207, "refined": 293}}
    assert len(found["per_subject"]) == 10 and found["equivalence"]["holds"] and not found["simulated"]


def test_rules_that_were_fixed_beforehand_are_applied() -> None:
    main = answers(Confusion(20, 0, 20, 0), subjects=2).assign(kind="main")
    practice = answers(Confusion(9, 0, 0, 9), subjects=2).assign(kind="practice")
    truth, answer = ["real", "refined"] * 2, ["real", "refined", "refined", "real"]
    subjects = ["s0", "s0", "s1", "s1"]
    checks = pd.DataFrame({"subject": subjects, "kind": "attention", "truth": truth, "answer": answer})
    late = pd.DataFrame({"subject": ["s0"], "kind": "main", "truth": ["real"], "answer": ["timeout"]})
    found = analyse(Answers(pd.concat([main, practice, checks, late], ignore_index=True), ("human",), {}))
    assert found.excluded == ("s1",) and found.timeouts == 1
    assert found.cells == Confusion(10, 0, 10, 0)


@pytest.mark.parametrize(
    ("wrong", "left_out"),
    [
        ([], False), ([("real", 1)], True),  # of 2 checks, one for each answer: as if one key were pressed throughout
        ([("real", 1), ("refined", 1)], True), ([("real", 3), ("refined", 0)], True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("each", [1, 3])
def test_who_presses_one_key_throughout_is_left_out(wrong: list[tuple[str, int]], left_out: bool, each: int) -> None:
    """Of three checks for each answer, one slip of each is forgiven; all of one answer are not."""
    missed = dict(wrong)
    rows = [("s0", truth, truth if k >= missed.get(truth, 0) else "timeout" if k else OTHER[truth])
            for truth in OTHER for k in range(each)]  # fmt: skip
    checks = pd.DataFrame(rows, columns=["subject", "truth", "answer"]).assign(kind="attention")
    main = answers(Confusion(20, 0, 20, 0), subjects=2).assign(kind="main")
    found = analyse(Answers(pd.concat([main, checks], ignore_index=True), ("human",), {}))
    forgiven = each == 3 and max(missed.values(), default=0) <= 1
    assert found.excluded == (("s0",) if left_out and not forgiven else ())
    assert found.attention["failed"].tolist() == [bool(found.excluded)]


def test_one_key_throughout_is_noticed_in_a_study_with_the_default_checks(tmp_path: Path) -> None:
    with small_study(tmp_path / "s.db", TWO) as study:
        for token in study.tokens().values():
            session = study.open_session(token)
            study.give_consent(session.key)
            for trial in study.plan().subjects[0]:
                study.record_answer(session.key, trial.number, "real")
    with pytest.raises(ValueError, match="2 subjects who failed the attention checks"):
        analyse(read_answers(tmp_path / "s.db"))


@pytest.mark.parametrize(
    ("main", "control", "subjects", "verdict"),
    [
        (Confusion(500, 500, 500, 500), Confusion(80, 20, 20, 80), 10, "supported"),
        (Confusion(700, 300, 300, 700), Confusion(80, 20, 20, 80), 10, "not supported"),
        (Confusion(300, 700, 700, 300), Confusion(80, 20, 20, 80), 10, "not supported"),
        (Confusion(25, 25, 25, 25), Confusion(80, 20, 20, 80), 10, "not supported"),  # too few answers for the claim
        (Confusion(500, 500, 500, 500), Confusion(50, 50, 50, 50), 10, "not evaluated"),  # nobody looked
        (Confusion(500, 500, 500, 500), None, 10, "not evaluated"),
        (Confusion(500, 500, 500, 500), Confusion(80, 20, 20, 80), 4, "not evaluated"),
    ],
)
def test_c1_is_judged_by_people_who_looked(
    main: Confusion, control: Confusion | None, subjects: int, verdict: str
) -> None:
    assert judge_c1(human(main, control, subjects), profile="cpu").verdict == verdict
    assert judge_c1(human(main, control, subjects), profile="smoke").verdict == "not evaluated"


def test_the_bounds_of_c1_are_those_of_the_equivalence_test() -> None:
    assert BY_ID["C1"].threshold == Within(45.0, 55.0)
    assert not Within(45.0, 55.0).holds(44.9, 50) and not Within(45.0, 55.0).holds(50, 55.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("subject,truth\na,real\n", "expected also answer"),
        ("subject,truth,answer\na,real,real\na,fake,real\n", "truth 'fake' in line 3"),
        ("subject,truth,answer\na,real,Real\n", "answer 'Real' in line 2"),
        ("subject,truth,answer\n,real,real\n", "a name for every subject"),
        ("subject,truth,answer,trial\na,real,real,1\na,real,real,1\n", "one answer per subject and trial"),
        ("subject,truth,answer\n", "none that counts"), ("", "no table"), ("\x00\xff", "columns|no table"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        analyse(read_answers(tmp_path / "bad.csv"))


def test_tables_of_other_programs_are_read(tmp_path: Path) -> None:
    (tmp_path / "semicolons.csv").write_text(
        "\ufeffsubject;truth;answer\n001; real ;real\n1e5;refined;real\n", encoding="utf-8"
    )
    found = read_answers(tmp_path / "semicolons.csv").table
    assert list(found["subject"]) == ["001", "1e5"] and list(found["truth"]) == ["real", "refined"]


# --- export ---


def test_an_export_gives_the_same_analysis_as_its_database(tmp_path: Path) -> None:
    simulated(tmp_path / "s.db", d_prime=1.5).close()
    results = []
    for name in ("s.csv", "s.parquet"):
        assert RUNNER.invoke(app, ["study", "export", str(tmp_path / "s.db"), str(tmp_path / name)]).exit_code == 0
        results.append(simgan("analyse", tmp_path / name))
    results.append(simgan("analyse", tmp_path / "s.db"))
    for result in results:
        assert result["mixed_model"] is not None
        del result["origin"]
    assert results[0] == results[1] == results[2]
    about = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"simgan_study"])
    assert about == json.loads((tmp_path / "s.study.json").read_text())
    assert about["settings"]["real"] == SMALL.real and about["software"].startswith("simgan-core ")


def test_an_export_holds_the_plan_and_no_secret(tmp_path: Path) -> None:
    with small_study(tmp_path / "s.db") as study:
        session = study.open_session(
            next(iter(study.tokens().values())), browser='=HYPERLINK("http://x")', window=(800, 600)
        )
        study.give_consent(session.key)
        study.record_answer(session.key, 0, "real", reaction_ms=612.25)
        files = [*export(study, tmp_path / "s.csv"), *export(study, tmp_path / "s.parquet")]
        secrets = [study._secret, *(token.encode() for token in study.tokens().values()),
                   study.experimenter_token.encode(), session.key.encode()]  # fmt: skip
    assert not any(secret in file.read_bytes() for file in files for secret in secrets)
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SMALL.subjects * SMALL.trials, "planned trials without an answer are part of the plan"
    assert rows[0]["reaction_ms"] == "612.25" and rows[0]["window_width"] == "800"
    assert rows[0]["browser"] == '\'=HYPERLINK("http://x")', "a spreadsheet would run it"
    assert rows[1]["answer"] == "" and rows[1]["correct"] == ""
    with pytest.raises(DataError, match="expected .csv or .parquet"), open_study(tmp_path / "s.db") as study:
        export(study, tmp_path / "s.xlsx")


def test_each_answer_has_its_window_and_the_software_that_stored_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study goes on under a newer version, in a window that is resized on the way."""
    with small_study(tmp_path / "s.db") as study:
        token = next(iter(study.tokens().values()))
        session = study.open_session(token, browser="b", window=(800, 600), pixel_ratio=1)
        study.give_consent(session.key)
        study.record_answer(session.key, 0, "real")
        study.record_answer(session.key, 1, "real", window=(390, 700), pixel_ratio=2)
        planned = study.software
        monkeypatch.setattr("simgan_core.study.database.__version__", "9.9")
        study.record_answer(study.open_session(token).key, 2, "real")
        files = [*export(study, tmp_path / "s.csv"), *export(study, tmp_path / "s.parquet")]
    for table in (pd.read_csv(files[0]), pd.read_parquet(files[2])):
        rows = table[["window_width", "window_height", "pixel_ratio", "software"]].head(4).astype(object)
        found = rows.where(rows.notna(), None).to_numpy().tolist()
        assert found[:2] == [[800, 600, 1, planned], [390, 700, 2, planned]]
        assert found[2:] == [[None, None, None, "simgan-core 9.9"], [None] * 4], "the last one is not answered"
    assert json.loads(files[1].read_text())["software"] == planned


def test_no_cell_is_a_formula() -> None:
    dangerous = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "|cmd", "%x"]
    table = pd.DataFrame({"file": [*dangerous, "eye_1.png", None], "n": range(12)})
    safe = spreadsheet_safe(table)
    assert list(safe["file"][:10]) == ["'" + text for text in dangerous]
    assert safe["file"][10] == "eye_1.png" and pd.isna(safe["file"][11]) and list(safe["n"]) == list(range(12))


# --- command line ---


def test_the_whole_way_by_commands(tmp_path: Path) -> None:
    folders = [folder(tmp_path / name, seed=seed) for seed, name in enumerate(("real", "refined", "synthetic"))]
    options = ["--n-real", "4", "--n-refined", "4", "--control", "2", "--practice", "0", "--subjects", "3"]
    named = [f"--{path.name}={path}" for path in folders]
    result = RUNNER.invoke(app, ["study", "create", str(tmp_path / "s.db"), *named, *options])
    assert result.exit_code == 0 and "3 subjects, 14 trials each" in result.output
    assert f"simgan study serve {tmp_path / 's.db'}" in result.output
    links = simgan("links", tmp_path / "s.db", "--base-url", "https://lab.example/study/")
    assert len(set(links["subjects"].values())) == 3
    assert all(link.startswith("https://lab.example/study/s/") for link in links["subjects"].values())
    assert links["experimenter"].startswith("https://lab.example/study/e/")
    assert simgan("power", "--margin", "0.1")["equivalence_trials"] == 275, "the 95 % interval, as C1 wants it"
    assert simgan("power", "--margin", "0.1", "--alpha", "0.05")["equivalence_trials"] == 227
    for name, seed in (("a.csv", 1), ("b.csv", 2)):
        noise = np.random.default_rng(seed).permutation(1000)
        table = answers(PAPER)
        table["subject"] = table["subject"].to_numpy()[noise]
        table.to_csv(tmp_path / name, index=False)
    compared = simgan("compare", tmp_path / "a.csv", tmp_path / "b.csv")
    assert compared["accuracy"]["value"] == 0 and compared["p_two_sided"] > 0.05
    assert compared["simulated"] is False and compared["excluded_subjects"] == []


def test_a_comparison_of_programs_is_stamped(tmp_path: Path) -> None:
    """One side suffices; in words and in JSON."""
    answers(PAPER).to_csv(tmp_path / "people.csv", index=False)
    simulated(tmp_path / "programs.db").close()
    both = [tmp_path / "people.csv", tmp_path / "programs.db"]
    for first, second in (both, both[::-1]):
        assert simgan("compare", first, second)["simulated"] is True
        printed = RUNNER.invoke(app, ["study", "compare", str(first), str(second)])
        assert printed.exit_code == 0 and printed.output.startswith("SIMULATED RESPONDERS")
    people = RUNNER.invoke(app, ["study", "compare", str(both[0]), str(both[0])])
    assert people.exit_code == 0 and "SIMULATED" not in people.output


def test_who_did_not_look_at_one_refiner_is_left_out_of_both(tmp_path: Path) -> None:
    table = answers(PAPER).assign(kind="main")
    bad = pd.DataFrame([("s3", "real", "refined")], columns=["subject", "truth", "answer"]).assign(kind="attention")
    table.to_csv(tmp_path / "a.csv", index=False)
    pd.concat([table, bad]).to_csv(tmp_path / "b.csv", index=False)
    found = simgan("compare", tmp_path / "a.csv", tmp_path / "b.csv")
    assert found["paired"] and found["excluded_subjects"] == ["s3"]


def test_the_report_says_what_each_equivalence_test_takes_for_granted(tmp_path: Path) -> None:
    answers(PAPER).to_csv(tmp_path / "paper.csv", index=False)
    printed = RUNNER.invoke(app, ["study", "analyse", str(tmp_path / "paper.csv")]).output
    lines = [line for line in printed.splitlines() if "right in one half" in line]
    assert len(lines) == 2 and "were all answers independent" in lines[0] and "over subjects" in lines[1]


def test_create_does_not_print_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(where: str, *_arguments: object, **_named: object) -> StudyStore:
        assert "opensesame" in where
        return small_study(tmp_path / "s.db", TWO)

    monkeypatch.setattr("simgan_core.study.creation.create_study", made)
    named = [f"--{name}={folder(tmp_path / name, count=60, seed=k)}" for k, name in enumerate(("real", "refined"))]
    url = "postgresql://lab:opensesame@db.example/study"
    result = RUNNER.invoke(app, ["study", "create", url, *named, "--control", "0"])
    assert result.exit_code == 0 and "opensesame" not in result.output
    assert "simgan study serve 'postgresql://lab:***@db.example/study'" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyse", "missing.csv", "--json"], "missing.csv"), (["links", "missing.db"], "missing.db"),
        (["create", "s.db"], "expected --real and --refined"),
        (["create", "s.db", "--real", "nowhere", "--refined", "nowhere", "--control", "0"], "nowhere"),
        (["create", "s.db", "--real", "a", "--refined", "b", "--n-real", "90", "--n-refined", "2"], "max_run"),
        (["power", "--margin", "5"], "between 0 and 0.5"),
    ],
)  # fmt: skip
def test_errors_are_one_message(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "simgan_core.cli", "study", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
