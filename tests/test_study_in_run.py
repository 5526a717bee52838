"""Notebook 06's half without a screen: whose answers a run shows, its metrics, its figures and their stamps."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot as plt
from study_pictures import answers
from toy_eyes import toy_store

from simgan_core.profiles import profile
from simgan_core.run_folder import RunFolder
from simgan_core.study import figures, in_run, responders
from simgan_core.study.analysis import Analysis, Answers, analyse, judge_c1
from simgan_core.study.scoring import PAPER, Confusion
from simgan_core.study.storage import open_study


@pytest.fixture(autouse=True)
def no_other_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(in_run.VARIABLE, raising=False)
    monkeypatch.setattr(responders, "TRAINING_STEPS", 5)  # how well programs do is not asked here


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of profile smoke with toy stores, refined ones included."""
    made = RunFolder.create(tmp_path / "run", data="embedded", config=profile("smoke"))
    for seed, path in enumerate((made.stores / "real", made.stores / "synthetic", made.refined(0))):
        toy_store(path, 40, seed, real=path.name == "real")
    return made


def people(cells: Confusion = PAPER, subjects: int = 10, **columns: object) -> Analysis:
    table = answers(cells, subjects).assign(kind="main", **columns)
    control = answers(Confusion(81, 19, 19, 81), subjects).assign(kind="control")
    return analyse(Answers(pd.concat([table, control], ignore_index=True), ("human",), {}))


def take(run: RunFolder, subjects: int) -> None:
    """People take the run's study: they are right about every other real image and never about refined ones."""
    for _ in range(subjects):
        study, token = in_run.people_study(run, 0)
        assert token is not None
        session = study.open_session(token)
        study.give_consent(session.key)
        following = study.next_trial(session.key)
        while following is not None:
            answer = "real" if following.number % 2 else "refined"
            following = study.record_answer(session.key, following.number, answer, reaction_ms=500).next
        study.end_session(session.key)
        study.close()


def test_without_people_programs_answer_and_every_number_says_so(run: RunFolder) -> None:
    where, found = in_run.answers_of(run, 0)
    assert where.endswith(in_run.SIMULATED) and found.answers.simulated
    kinds = {name.split(",")[0] for name in found.answers.responders}
    assert kinds == {"simulated: ideal observer", "simulated: classifier"}
    metrics = in_run.metrics(found)
    assert {metric.note for metric in metrics.values()} == {"simulated responders, not people"}
    assert metrics["turing.people"].value == 0
    assert "simulated" in in_run.table_1(found, PAPER).columns[1]
    again = in_run.answers_of(run, 0)[1]
    assert again.cells == found.cells, "a headless run gives the same numbers again"


def test_peoples_answers_take_the_place_of_programs(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_run.state(run) == ""
    study, token = in_run.people_study(run, 0)
    study.close()
    assert token is not None
    assert in_run.answers_of(run, 0)[1].answers.simulated, "a study that nobody has taken is as good as none"
    before = in_run.state(run)
    take(run, 2)
    assert in_run.state(run) != before, "new answers make the notebook out of date"
    where, found = in_run.answers_of(run, 0)
    assert where == str(run.path / "study.db")
    assert found.answers.responders == ("human",) and found.subjects == 2
    assert {metric.note for metric in in_run.metrics(found).values()} == {""}
    take(run, 2)
    assert in_run.people_study(run, 0)[1] is None, "all have finished"
    elsewhere = run.path / "of_the_lab.db"
    (run.path / "study.db").rename(elsewhere)
    monkeypatch.setenv(in_run.VARIABLE, str(elsewhere))
    assert in_run.answers_of(run, 0)[0] == str(elsewhere)


def test_answers_about_another_refiner_are_not_this_runs(run: RunFolder) -> None:
    take(run, 1)
    assert not in_run.answers_of(run, 0)[1].answers.simulated
    shutil.rmtree(run.refined(0))
    toy_store(run.refined(0), 40, 9)  # trained anew since
    found = in_run.answers_of(run, 0)[1]
    claim = judge_c1(found, profile="smoke")
    assert found.answers.simulated and claim.verdict == "not evaluated"
    assert "set aside" in claim.note and "study.db: its pictures are not those of this run" in claim.note
    with pytest.raises(ValueError, match=r"study.db: its pictures .* Keep it under another name"):
        in_run.people_study(run, 0)
    (run.path / "study.db").rename(run.path / "before.db")
    study, token = in_run.people_study(run, 0)
    study.close()
    assert token is not None


def test_a_study_whose_answers_do_not_count_yet_stops_no_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    take(run, 1)
    monkeypatch.setattr(in_run, "read_answers", _all_late(in_run.read_answers))
    found = in_run.answers_of(run, 0)[1]
    assert found.answers.simulated and "none that counts" in judge_c1(found, profile="smoke").note


def _all_late(read: Callable[[str], Answers]) -> Callable[[str], Answers]:
    def late(where: str) -> Answers:
        answers = read(where)
        people = answers.responders == ("human",)
        return replace(answers, table=answers.table.assign(answer="timeout")) if people else answers

    return late


def test_a_run_on_the_stand_in_never_tells_people_that_it_is_real(run: RunFolder) -> None:
    study, _token = in_run.people_study(run, 0)
    settings = study.settings
    study.close()
    texts = " ".join((settings.title, *settings.labels, settings.consent, settings.instructions))
    assert settings.labels == ("Target", "Imitation") and "photo" not in texts and "real" not in texts.lower()
    mini = RunFolder.create(run.path.parent / "mini", data="mini", config=profile("smoke"))
    for seed, path in enumerate((mini.stores / "real", mini.stores / "synthetic", mini.refined(0))):
        toy_store(path, 40, seed, real=path.name == "real")
    study, _token = in_run.people_study(mini, 0)
    assert study.settings.labels == ("Real", "Synthetic") and "photograph of a real eye" in study.settings.instructions
    study.close()


def test_metrics_have_the_names_that_other_programs_read() -> None:
    metrics = in_run.metrics(people())
    accuracy = metrics["turing.accuracy"]
    assert (accuracy.value, accuracy.unit, accuracy.n) == (pytest.approx(51.7), "%", 1000)
    assert accuracy.low is not None and accuracy.high is not None and accuracy.low <= 48.56 and accuracy.high >= 54.83
    assert metrics["turing.d_prime"].value == pytest.approx(0.0866, abs=1e-3)
    assert metrics["turing.control.accuracy"].value == 81 and metrics["turing.people"].value == 10


def test_hardest_images_are_those_called_wrongly_most_often(run: RunFolder) -> None:
    table = pd.DataFrame({
        "subject": ["a", "b"] * 4, "truth": ["real"] * 6 + ["refined"] * 2, "kind": "main",
        "image": ["x", "x", "y", "y", "z", "z", "w", "w"],
        "answer": ["refined", "refined", "real", "refined", "real", "real", "real", "refined"],
    })  # fmt: skip
    found = analyse(Answers(table, ("human",), {}))
    hardest = in_run.hardest(found, "real")
    assert list(zip(hardest["image"], hardest["wrong"], hardest["shown"], strict=True)) == [("x", 1, 2), ("y", 0.5, 2)]
    assert list(in_run.hardest(found, "refined")["image"]) == ["w"]


def test_sheet_shows_the_pictures_of_the_database_and_who_answered(run: RunFolder) -> None:
    where, found = in_run.answers_of(run, 0)
    table = in_run.hardest(found, "real", count=5)
    pictures = in_run.pictures(where, table)
    figure = figures.hardest_sheet(found, pictures, table, "Real, called synthetic")
    assert sum(len(axes.images) for axes in figure.axes) == len(table) > 0
    assert "SIMULATED" in figure.get_suptitle() and "% wrong" in figure.axes[0].get_title()
    with open_study(where) as study:
        truths = {row["image"]: row["truth"] for row in study.rows()}
    assert {truths[name] for name in table["image"]} == {"real"}
    empty = figures.hardest_sheet(found, {}, table.head(0), "None")
    assert "no image" in empty.texts[0].get_text()
    plt.close("all")


def test_learning_follows_the_order_of_trials() -> None:
    """Everybody is wrong in the first half and right in the second; the curve must rise."""
    order = [number // 10 for number in range(1000)]  # trial of each subject: rows are dealt out in turn
    found = people(trial=order)
    main = found.main
    right = pd.to_numeric(main["trial"]) >= 50
    other = {"real": "refined", "refined": "real"}
    main = main.assign(answer=main["truth"].where(right, main["truth"].map(other)))
    figure = figures.learning(replace(found, main=main))
    assert figure is not None
    heights = figure.axes[0].lines[1].get_ydata()
    assert list(heights) == [0] * 5 + [100] * 5
    assert figure.axes[0].get_title() == "10 people"
    assert figures.learning(people()) is None, "without an order of trials there is no curve"
    plt.close("all")


def test_reaction_times_are_split_by_right_and_wrong() -> None:
    found = people()
    right = found.main["truth"] == found.main["answer"]
    times = found.main.assign(reaction_ms=right.map({True: 400.0, False: 900.0}))
    figure = figures.reaction_times(replace(found, main=times))
    assert figure is not None
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["right: median 0.40 s", "wrong: median 0.90 s"]
    assert figures.reaction_times(found) is None
    assert figures.shares(found) is not None
    plt.close("all")
