"""The course of a study as messages, without a browser: what is shown when, what is refused, what never leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
from study_tools import NAMES, small_study, truths

from simgan_core.study.session import AHEAD, LIMIT, Message, SubjectScreen
from simgan_core.study.storage import StudyStore

CLIENT = {"user_agent": "test", "window_width": 390, "window_height": 844, "pixel_ratio": 3.0}
HELLO = {"type": "hello", "session": None, "client": CLIENT}


@pytest.fixture
def study(tmp_path: Path) -> StudyStore:
    return small_study(tmp_path / "study.db")


def first(study: StudyStore) -> tuple[str, str]:
    return next(iter(study.tokens().items()))


def answer(trial: int, value: str = "real") -> dict[str, Any]:
    return {"type": "answer", "trial": trial, "answer": value, "reaction_ms": 512.5, "exposure_ms": 512.5}


def last(messages: list[Message]) -> dict[str, Any]:
    return messages[-1][0]


def started(study: StudyStore, token: str) -> SubjectScreen:
    screen = SubjectScreen(study, token)
    for message in (HELLO, {"type": "consent"}, {"type": "start"}):
        screen.receive(message)
    return screen


def test_whole_study_in_order(study: StudyStore) -> None:
    name, token = first(study)
    screen = SubjectScreen(study, token)
    kinds = []
    sent: list[Message] = screen.receive(HELLO)
    while last(sent).get("kind") != "end":
        message = last(sent)
        kinds.append(message.get("kind", message["type"]))
        if message["type"] == "trial":
            sent = screen.receive(answer(message["trial"]))
        else:
            sent = screen.receive({"type": message.get("action", "next")})
    assert kinds == ["consent", "instructions", "trial", "feedback", "trial", "feedback", "ready",
                     "trial", "trial", "trial", "trial", "break", "trial", "trial"]  # fmt: skip
    rows = [row for row in study.rows() if row["subject"] == name]
    assert [row["answer"] for row in rows] == ["real"] * 8
    assert {row["reaction_ms"] for row in rows} == {512.5}
    assert {row["window_width"] for row in rows} == {390}


def test_breaks_between_blocks_are_offered_whatever_break_every_says(tmp_path: Path) -> None:
    for every, breaks in ((None, [6]), (4, [4, 6, 8])):
        study = small_study(tmp_path / f"{every}.db", control=2, break_every=every)
        screen = started(study, first(study)[1])
        found = []
        for number in range(study.settings.trials):
            done = last(screen.receive(answer(number)))
            if done.get("kind") == "break":
                found.append(number + 1 - study.settings.practice)
            if done["type"] != "trial":
                screen.receive({"type": done.get("action") or "next"})
            if done.get("type") == "feedback":
                screen.receive({"type": "start"})
        assert found == breaks, every
        study.close()


def test_an_answer_is_stored_before_the_next_image_is_sent(study: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name, token = first(study)
    screen = started(study, token)

    def fails(*_arguments: object, **_named: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(study, "record_answer", fails)
        with pytest.raises(OSError, match="disk full"):
            screen.receive(answer(0))
    assert last(screen.receive(answer(0)))["type"] == "feedback"
    assert [row["answer"] for row in study.rows() if row["subject"] == name][0] == "real"


def test_each_button_has_the_key_and_the_label_of_its_answer(tmp_path: Path) -> None:
    """Swapped labels would turn every result into its opposite."""
    study = small_study(tmp_path / "keys.db", keys=("a", "l"), labels=("Photograph", "Computer"))
    setup = SubjectScreen(study, first(study)[1]).receive(HELLO)[0][0]
    assert setup["answers"] == [
        {"value": "real", "key": "a", "label": "Photograph"}, {"value": "refined", "key": "l", "label": "Computer"},
    ]  # fmt: skip


def test_the_next_images_are_there_before_they_are_needed(study: StudyStore) -> None:
    """A browser decodes them ahead, so that no image appears late; it never holds more than those few."""
    screen = SubjectScreen(study, first(study)[1])
    screen.receive(HELLO)
    screen.receive({"type": "consent"})
    sent = [content for content, _ in screen.receive({"type": "start"})]
    assert [one["trial"] for one in sent if one["type"] == "image"] == list(range(AHEAD + 1))
    assert sent[-1]["type"] == "trial", "the images come before the trial is announced"
    screen.receive(answer(0))
    after = [content for content, _ in screen.receive({"type": "next"})]
    assert [one["trial"] for one in after if one["type"] == "image"] == [AHEAD + 1]


def test_same_answer_twice_counts_once(study: StudyStore) -> None:
    _name, token = first(study)
    screen = started(study, token)
    screen.receive(answer(0, "real"))
    screen.receive({"type": "next"})
    screen.receive(answer(1, "real"))
    screen.receive({"type": "next"})
    screen.receive({"type": "start"})
    assert last(screen.receive(answer(2, "real")))["trial"] == 3
    assert last(screen.receive(answer(2, "refined")))["trial"] == 3
    answers = [row["answer"] for row in study.rows() if row["answer"]]
    assert answers == ["real"] * 3


def test_truth_names_and_sources_never_leave(study: StudyStore) -> None:
    """All messages of a whole study together differ between truths only in feedback to practice answers."""
    name, token = first(study)
    screen = SubjectScreen(study, token)
    sent = screen.receive(HELLO)
    texts, buffers = [], []
    while last(sent).get("kind") != "end":
        texts += [json.dumps(content) for content, _ in sent if content["type"] not in ("feedback", "setup")]
        buffers += [buffer for _, own in sent for buffer in own]
        message = last(sent)
        kind = {"trial": answer(message.get("trial", 0)), "feedback": {"type": "next"}}
        sent = screen.receive(kind.get(message["type"], {"type": message.get("action")}))
    everything = "\n".join(texts)
    for word in (*NAMES, "attention", "control", '"main"', "truth", "correct", "source", "sha256"):
        assert word not in everything, word
    for row in study.rows():
        assert row["image"] not in everything
    assert '"real"' not in everything and '"refined"' not in everything
    assert len(buffers) == len(truths(study, name)), "each image is sent once"
    for buffer in buffers:
        assert buffer.startswith(b"\x89PNG")
        assert not [chunk for chunk in (b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME", b"pHYs") if chunk in buffer]


def test_feedback_tells_the_truth_after_the_answer_and_only_in_practice(study: StudyStore) -> None:
    name, token = first(study)
    right = truths(study, name)
    screen = started(study, token)
    for trial in (0, 1):
        feedback = last(screen.receive(answer(trial, "real")))
        assert feedback == {
            "type": "feedback",
            "trial": trial,
            "correct": right[trial] == "real",
            "truth": right[trial],
        }
        screen.receive({"type": "next"})
    screen.receive({"type": "start"})
    assert last(screen.receive(answer(2)))["type"] == "trial"


def test_second_window_is_asked_and_the_first_then_told(study: StudyStore) -> None:
    _name, token = first(study)
    one = started(study, token)
    two = SubjectScreen(study, token)
    assert last(two.receive(HELLO))["kind"] == "occupied"
    assert not two.receive(answer(0)), "an occupied window cannot answer"
    assert last(one.receive(answer(0)))["type"] == "feedback", "asking takes nothing from the first"
    assert last(two.receive({"type": "take_over"}))["kind"] == "resume"
    assert last(one.receive({"type": "next"}))["type"] == "screen"
    assert last(one.receive({"type": "take_over"}))["kind"] == "resume"
    assert last(two.receive({"type": "start"}))["kind"] == "superseded"


def test_reload_of_the_same_window_goes_on_without_asking(study: StudyStore) -> None:
    _name, token = first(study)
    screen = SubjectScreen(study, token)
    session = screen.receive(HELLO)[0][0]["session"]
    screen.receive({"type": "consent"})
    screen.receive({"type": "start"})
    screen.receive(answer(0))
    again = SubjectScreen(study, token)
    assert last(again.receive(HELLO | {"session": session}))["kind"] == "resume"
    assert last(again.receive({"type": "start"}))["trial"] == 1


def test_closed_window_leaves_no_session_behind(study: StudyStore) -> None:
    _name, token = first(study)
    started(study, token).close()
    assert last(SubjectScreen(study, token).receive(HELLO))["kind"] == "instructions"


def test_finished_study_stays_finished(study: StudyStore) -> None:
    _name, token = first(study)
    test_whole_study_in_order(study)
    screen = SubjectScreen(study, token)
    assert last(screen.receive(HELLO))["kind"] == "end"
    assert not screen.receive(answer(7))


def test_deadline(tmp_path: Path) -> None:
    study = small_study(tmp_path / "deadline.db", deadline_ms=700)
    name, token = first(study)
    screen = started(study, token)
    assert last(screen.receive(answer(0, "timeout"))) == {
        "type": "feedback",
        "trial": 0,
        "correct": False,
        "truth": None,
    }
    row = next(row for row in study.rows() if row["subject"] == name)
    assert (row["answer"], row["reaction_ms"]) == ("timeout", None)


@pytest.mark.parametrize(
    "message",
    [
        None, [], "hello", 7, {}, {"type": []}, {"type": "update"}, {"type": "hello"},
        {"type": "hello", "session": 3, "client": CLIENT},
        {"type": "hello", "session": None, "client": CLIENT | {"window_width": True}},
        {"type": "hello", "session": None, "client": CLIENT | {"pixel_ratio": float("nan")}},
        {"type": "hello", "session": "x" * LIMIT, "client": CLIENT},
        {"type": "note", "what": "right", "client": CLIENT}, {"type": "note", "what": "paused", "client": {}},
        {"type": "answer", "trial": 0}, answer(0) | {"truth": "real"}, answer(0) | {"trial": "0"},
        answer(0) | {"trial": True}, answer(0) | {"reaction_ms": float("inf")}, answer(0) | {"answer": None},
        answer(0) | {"answer": b"real"}, {"type": "answer", 1: 2}, {"type": "consent", "agreed": True},
        answer(0) | {"answer": "a" * LIMIT}, answer(0, "../../study.db"), answer(0, "timeout"), answer(3), answer(-1),
        answer(0) | {"reaction_ms": -5.0},
    ],
)  # fmt: skip
def test_malformed_messages_are_refused_and_logged(study: StudyStore, message: Any) -> None:
    _name, token = first(study)
    screen = started(study, token)
    before = len(study.events())
    assert screen.receive(message) == []
    assert len(study.events()) == before + 1
    assert not [row for row in study.rows() if row["answer"] is not None]
    assert last(screen.receive(answer(0)))["type"] == "feedback", "the page goes on after a bad message"


def test_nothing_happens_before_its_time(study: StudyStore) -> None:
    _name, token = first(study)
    screen = SubjectScreen(study, token)
    for message in (answer(0), {"type": "start"}, {"type": "consent"}, {"type": "take_over"}, {"type": "next"}):
        assert screen.receive(message) == []
    screen.receive(HELLO)
    for message in (answer(0), {"type": "start"}, {"type": "next"}):
        assert screen.receive(message) == [], "without consent there is no trial"


def test_pauses_and_sizes_are_noted_and_count_for_the_answers_after_them(study: StudyStore) -> None:
    name, token = first(study)
    screen = started(study, token)
    screen.receive(answer(0))
    screen.receive({"type": "next"})
    for what, width in (("paused", 390), ("resized", 844), ("went on", 844)):
        noted = {"type": "note", "what": what, "client": CLIENT | {"window_width": width}}
        assert screen.receive(noted) == [], "nothing is sent back, and the trial stays"
    assert last(screen.receive(answer(1)))["type"] == "feedback"
    events = [(event["kind"], event["detail"], event["participant"]) for event in reversed(study.events())]
    assert events == [("paused", "390 x 844, ratio 3", name), ("resized", "844 x 844, ratio 3", name),
                      ("went on", "844 x 844, ratio 3", name)]  # fmt: skip
    assert [row["window_width"] for row in study.rows()][:2] == [390, 844]
    SubjectScreen(study, token).receive({"type": "note", "what": "paused", "client": CLIENT})
    assert len(study.events()) == 3, "a window without a session has nothing to note"


def test_wrong_token_shows_a_page_and_nothing_else(study: StudyStore) -> None:
    other = study.experimenter_token
    for token in ("", "x", other, "../" * 20):
        (message,) = SubjectScreen(study, token).receive(HELLO)
        assert message[0]["kind"] == "refused"
