"""Storage: no acknowledged answer is lost or double, one session a subject, refusals are logged; on two databases."""

import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from study_pictures import SMALL, small_study, stock
from study_postgres import new_database, postgres  # noqa: F401  # a fixture

from simgan_core.study.creation import create_study
from simgan_core.study.plan import StudySettings
from simgan_core.study.records import NextTrial, Refused, StudyError
from simgan_core.study.storage import PRELOAD, StudyStore, open_study


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a new study, in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "study.db")
    return new_database(request.getfixturevalue("postgres"))


def begun(study: StudyStore, number: int = 0) -> tuple[str, NextTrial]:
    """A session of a subject who agreed, and its first trial."""
    session = study.open_session(
        list(study.tokens().values())[number], browser="test", window=(390, 844), pixel_ratio=3
    )
    study.give_consent(session.key)
    following = study.next_trial(session.key)
    assert following is not None
    return session.key, following


def test_a_whole_study_and_what_is_left_of_it(where: str) -> None:
    study = small_study(where)
    key, following = begun(study)
    seen: list[NextTrial] = []
    done = None
    while following is not None:
        assert study.image(key, following.image).startswith(b"\x89PNG")
        seen.append(following)
        done = study.record_answer(key, following.number, "real", reaction_ms=400.5, exposure_ms=100)
        assert (done.was_right is None) == (following.phase == "trial"), "feedback is for practice alone"
        following = done.next
    assert len(seen) == SMALL.trials and [trial.number for trial in seen] == list(range(SMALL.trials))
    assert [trial.number for trial in seen if trial.starts_block] == [0, 2, 12]
    with open_study(where) as again:
        rows = [row for row in again.rows() if row["answer"] is not None]
        assert again.plan() == study.plan()
    assert len(rows) == SMALL.trials
    assert {(row["browser"], row["window_width"], row["pixel_ratio"]) for row in rows} == {("test", 390, 3.0)}
    assert {row["reaction_ms"] for row in rows} == {400.5} and {row["responder"] for row in rows} == {"human"}
    counts = study.counts()
    assert [row["answered"] for row in counts] == [SMALL.trials, 0]
    assert [row["finished"] for row in counts] == [True, False]
    study.close()


def test_the_same_answer_counts_once_and_the_first_stands(where: str) -> None:
    study = small_study(where)
    key, first = begun(study)
    assert not study.record_answer(key, first.number, "real").duplicate
    again = study.record_answer(key, first.number, "refined")
    assert again.duplicate and again.next is not None and again.next.number == 1
    rows = [row for row in study.rows() if row["answer"] is not None]
    assert [row["answer"] for row in rows] == ["real"]
    study.close()


def test_the_same_answer_from_many_threads_counts_once(where: str) -> None:
    study = small_study(where)
    key, first = begun(study)
    barrier = threading.Barrier(8)

    def send(_: int) -> bool:
        barrier.wait()
        return study.record_answer(key, first.number, "real").duplicate

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(send, range(8))) == [False] + [True] * 7
    assert sum(row["answer"] is not None for row in study.rows()) == 1
    study.close()


def test_a_second_window_takes_over_and_goes_on(where: str) -> None:
    study = small_study(where)
    key, first = begun(study)
    study.record_answer(key, first.number, "real")
    second = study.open_session(next(iter(study.tokens().values())))
    assert second.consented and second.answered == 1 and second.next is not None and second.next.number == 1
    for call in (lambda: study.record_answer(key, 1, "real"), lambda: study.next_trial(key),
                 lambda: study.image(key, first.image)):  # fmt: skip
        with pytest.raises(Refused, match="another window") as refusal:
            call()
        assert refusal.value.kind == "session ended"
    assert study.record_answer(second.key, 1, "real").next is not None
    study.close()


def test_one_live_session_even_when_windows_open_at_once(where: str) -> None:
    study = small_study(where)
    token = next(iter(study.tokens().values()))
    with ThreadPoolExecutor(6) as pool:
        keys = [session.key for session in pool.map(lambda _: study.open_session(token), range(6))]
    study_alive = 0
    for key in keys:
        try:
            study.seen(key)
            study_alive += 1
        except Refused:
            pass
    assert study_alive == 1
    study.close()


def test_what_is_refused_is_logged_and_changes_nothing(where: str) -> None:
    study = small_study(where, StudySettings(subjects=2, real=10, refined=10, control=0, practice=0, attention=0))
    tokens = list(study.tokens().values())
    for token in ("", "x" * 43, tokens[0][:-1], tokens[0] + "x", "é" * 43, "x" * 10**6, None, 7, ["a"], "\ud800" * 43):
        with pytest.raises(Refused) as refusal:
            study.open_session(token)
        assert refusal.value.kind == "bad token"
    session = study.open_session(tokens[0])
    with pytest.raises(Refused, match="agree"):
        study.next_trial(session.key)
    study.give_consent(session.key)
    bad = [(0, "synthetic"), (0, "timeout"), (0, None), (0, "real\n"), ("0", "real"), (True, "real"), (-1, "real"),
           (1.0, "real"), (5, "real"), (10**30, "real")]  # fmt: skip
    for number, answer in bad:
        with pytest.raises(Refused):
            study.record_answer(session.key, number, answer)
    for time in (-1, float("nan"), float("inf"), "5", 10**9, [1], True):
        with pytest.raises(Refused, match="reaction_ms"):
            study.record_answer(session.key, 0, "real", reaction_ms=time)
    plan = study.plan()
    later = plan.subjects[0][PRELOAD].image.id
    for image in (later, "../../etc/passwd", "real_0.png", "", None, "x" * 10**6, "%2e%2e", 5):
        with pytest.raises(Refused) as refusal:
            study.image(session.key, image)
        assert refusal.value.kind == "unknown image"
    with pytest.raises(Refused, match="No such session"):
        study.seen("nobody's key")
    assert study.upcoming(session.key) == [trial.image.id for trial in plan.subjects[0][:PRELOAD]]
    assert all(row["answer"] is None for row in study.rows())
    events = study.events()
    assert {event["kind"] for event in events} >= {"bad token", "no consent", "bad answer", "out of order",
                                                   "unknown image", "session ended"}  # fmt: skip
    assert all(event["detail"].isprintable() and len(event["detail"]) <= 400 for event in events)
    assert not any(token in event["detail"] for event in events for token in tokens)
    study.close()


def test_nothing_that_a_screen_gets_tells_the_truth(where: str) -> None:
    study = small_study(where)
    key, following = begun(study)
    plan = study.plan().subjects[0]
    attention = next(trial.number for trial in plan if trial.kind == "attention")
    while following.number < attention:
        done = study.record_answer(key, following.number, "real")
        assert done.next is not None
        following = done.next
    assert set(vars(following)) == {"number", "of", "phase", "image", "starts_block", "offers_break"}
    assert following.phase == "trial" and len(following.image) == 32
    png = study.image(key, plan[attention + 1].image.id)
    assert b"tEXt" not in png and b"real" not in png and b"refined" not in png
    study.close()


def test_tokens_are_unguessable_and_not_in_the_database(where: str, tmp_path: Path) -> None:
    study = small_study(where)
    tokens = [*study.tokens().values(), study.experimenter_token]
    assert len(set(tokens)) == 3 and all(len(token) == 43 for token in tokens)
    assert study.is_experimenter(study.experimenter_token) and not study.is_experimenter(tokens[0])
    assert not study.is_experimenter("é") and not study.is_experimenter(None)
    with pytest.raises(Refused):
        study.open_session(study.experimenter_token)
    if "://" not in where:
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert not any(token.encode() in content for token in tokens)
        assert Path(where).stat().st_mode & 0o077 == 0, "others on the machine can read it"
    study.close()


def test_an_attention_check_is_a_picture_of_the_button(tmp_path: Path) -> None:
    from simgan_core.study.pictures import decode_png

    study = small_study(tmp_path / "study.db")
    checks = [trial for trial in study.plan().subjects[0] if trial.kind == "attention"]
    pictures = study.pictures([trial.image.id for trial in checks])
    assert {trial.right_answer for trial in checks} == {"real", "refined"} and len(pictures) == 2
    for png in pictures.values():
        word = decode_png(png)
        assert word.shape == (1, 12 * SMALL.scale, 18 * SMALL.scale) and word.min() < 40 and word.max() == 128
    study.close()


def test_a_database_is_made_whole_or_not_at_all(where: str, tmp_path: Path) -> None:
    few = {source: pictures[:1] for source, pictures in stock().items()}
    with pytest.raises(ValueError, match="expected at least"):
        create_study(where, SMALL, few)
    assert not list(tmp_path.glob("study.db*"))
    small_study(where).close()
    with pytest.raises(StudyError, match="exists|holds a study already"):
        small_study(where)
    with open_study(where) as study:
        assert len(study.tokens()) == 2, "the refused creation harmed the study"


def test_other_files_and_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no such file"):
        open_study(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("subject,truth,answer\n" * 100)
    with pytest.raises(StudyError, match="not the database of a study"):
        open_study(tmp_path / "text.db")
    small_study(tmp_path / "study.db").close()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("update study set schema_version = 99")
    connection.close()
    with pytest.raises(StudyError, match="schema version 99 found; expected 2"):
        open_study(tmp_path / "study.db")


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    """WAL: a page's kernels read while another writes. FULL (2): an acknowledged answer survives a power cut."""
    with small_study(tmp_path / "study.db") as study, study._engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]
    with sqlite3.connect(tmp_path / "study.db") as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",), "it is the file's own mode"
    plain.close()


WRITER = """
import sys
from simgan_core.study.storage import open_study
study = open_study(sys.argv[1])
session = study.open_session(list(study.tokens().values())[int(sys.argv[2])])
study.give_consent(session.key)
following = study.next_trial(session.key)
while following is not None:
    done = study.record_answer(session.key, following.number, "real", reaction_ms=following.number)
    print(following.number, flush=True)  # acknowledged
    following = done.next
"""


def test_no_acknowledged_answer_is_lost_when_a_writer_is_killed(where: str) -> None:
    settings = StudySettings(subjects=2, real=150, refined=150, control=0, practice=0, attention=0)
    pictures = stock(150)
    create_study(where, settings, pictures).close()
    acknowledged = 0
    for stop_after in (7, 23, 41):
        command = [sys.executable, "-c", WRITER, where, "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                assert int(line) == acknowledged, "it did not go on where it had stopped"
                acknowledged += 1
                if acknowledged % 60 >= stop_after:
                    break
            writer.send_signal(signal.SIGKILL)
            # What it acknowledged between our last look and its death counts too.
            acknowledged += len(writer.stdout.read().splitlines())
        study = open_study(where)
        own = [row for row in study.rows() if row["answer"] is not None]
        study.close()
        # The last answer may be stored and not yet acknowledged.
        assert acknowledged <= len(own) <= acknowledged + 1
        assert [row["reaction_ms"] for row in own] == list(range(len(own)))
        acknowledged = len(own)


def test_several_processes_write_at_once(where: str) -> None:
    settings = StudySettings(subjects=4, real=10, refined=10, control=0, practice=0, attention=0)
    create_study(where, settings, stock()).close()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, where, str(number)], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    assert [len(writer.communicate()[0].split()) for writer in writers] == [20] * 4
    study = open_study(where)
    assert all(row["finished"] and row["answered"] == 20 for row in study.counts())
    study.close()
