"""What a subject's screen shows next: the course of a study as messages, without any widget, browser or server.

    screen = SubjectScreen(study, token)
    for content, buffers in screen.receive({"type": "hello", ...}): ...

Consent, instructions, practice with feedback, trials, breaks, end. Every message from a browser is checked for its
size, names and types; what does not fit is refused and logged. An answer is stored before the next image is named. What
leaves here are texts, pixels and the numbers of trials: the truth only as feedback to a practice answer that is stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from simgan_core.study.records import NextTrial, Recorded, Refused, Session
from simgan_core.study.storage import StudyStore, fingerprint

Message = tuple[dict[str, Any], list[bytes]]  # content, buffers
LIMIT = 4096  # characters of a message as JSON; an answer has about 120
AHEAD = 4  # images that a browser holds beside the present one
QUESTION = "Which one is this?"
_TEXT, _NUMBER, _WHOLE = str, (int, float), int
_SHAPES: dict[str, dict[str, Any]] = {
    "hello": {"session": (str, type(None)), "client": dict},
    "take_over": {},
    "consent": {},
    "start": {},
    "next": {},
    "note": {"what": _TEXT, "client": dict},
    "answer": {"trial": _WHOLE, "answer": _TEXT, "reaction_ms": _NUMBER, "exposure_ms": _NUMBER},
}
_CLIENT: dict[str, Any] = {
    "user_agent": _TEXT, "window_width": _WHOLE, "window_height": _WHOLE, "pixel_ratio": _NUMBER,
}  # fmt: skip


NOTES = ("paused", "went on", "resized")  # what a page may note of itself


@dataclass
class _Client:
    """The browser as it describes itself."""

    user_agent: str
    window: tuple[int, int]
    pixel_ratio: float

    @classmethod
    def of(cls, client: Mapping[str, Any]) -> _Client:
        """The browser of a checked message."""
        return cls(client["user_agent"], (client["window_width"], client["window_height"]), client["pixel_ratio"])


class SubjectScreen:
    """The screen of one subject in one window."""

    def __init__(self, study: StudyStore, token: str) -> None:
        self._study = study
        self._token = token
        self._client: _Client | None = None
        self._session: Session | None = None
        self._next: NextTrial | None = None
        self._sent = 0  # images up to this trial were sent
        self._waits_for: tuple[str, ...] = ("hello",)

    def receive(self, message: object) -> list[Message]:
        """Take a message from the browser; what to send back, in this order."""
        try:
            checked = check_message(message)
        except Refused as refusal:
            self._study.log_refusal(refusal.kind, str(refusal))
            return []
        kind = checked["type"]
        if kind == "note":
            return self._note(checked)
        if kind not in self._waits_for:
            self._study.log_refusal("bad message", f"{kind} at a time that is none for it")
            return []
        steps: dict[str, Callable[[Mapping[str, Any]], list[Message]]] = {
            "hello": self._hello, "take_over": self._take_over, "consent": self._consent, "start": self._start,
            "next": self._go_on, "answer": self._answer,
        }  # fmt: skip
        try:
            return steps[kind](checked)
        except Refused as refusal:  # logged where it was raised
            return self._refused(refusal)

    def close(self) -> None:
        """End the session: the window was closed."""
        if self._session is not None:
            self._study.end_session(self._session.key)
            self._session = None

    # --- one method per message ---

    def _note(self, message: Mapping[str, Any]) -> list[Message]:
        """What the page says of itself: logged, and the window of the answers from here on. Nothing is sent back."""
        if self._session is None:
            return []  # a window that another one took over
        self._client = _Client.of(message["client"])
        width, height = self._client.window
        with suppress(Refused):  # logged where it was raised; the next answer will say so on the screen
            self._study.note(self._key, message["what"], f"{width} x {height}, ratio {self._client.pixel_ratio:g}")
        return []

    def _hello(self, message: Mapping[str, Any]) -> list[Message]:
        self._client = _Client.of(message["client"])
        live = self._study.live_session(self._token)
        own = None if self._session is None else fingerprint(self._session.key)
        if live is not None and live not in (message["session"], own):
            return self._wait("take_over", "hello") + [_screen(
                "occupied", "This study is open in another window",
                ["Please go on there, or continue here. The other window then stops; no answer is lost."],
                button="Continue here", action="take_over",
            )]  # fmt: skip
        return self._open()

    def _take_over(self, _message: Mapping[str, Any]) -> list[Message]:
        return self._open()

    def _consent(self, _message: Mapping[str, Any]) -> list[Message]:
        self._study.give_consent(self._key)
        return self._instructions()

    def _start(self, _message: Mapping[str, Any]) -> list[Message]:
        return self._trial()

    def _go_on(self, _message: Mapping[str, Any]) -> list[Message]:
        return self._after(was_practice=True)

    def _answer(self, message: Mapping[str, Any]) -> list[Message]:
        client = self._client
        assert client is not None, "answered before hello"
        reaction = None if message["answer"] == "timeout" else message["reaction_ms"]
        done = self._study.record_answer(
            self._key, message["trial"], message["answer"], reaction_ms=reaction,
            exposure_ms=message["exposure_ms"], window=client.window, pixel_ratio=client.pixel_ratio,
        )  # fmt: skip
        self._next = done.next
        if done.was_right is None:
            return self._after(was_practice=False)
        return self._wait("next") + [_feedback(done, message["answer"])]

    # --- screens ---

    def _open(self) -> list[Message]:
        assert self._client is not None, "opened before hello"
        client = self._client
        self._session = self._study.open_session(
            self._token, browser=client.user_agent, window=client.window, pixel_ratio=client.pixel_ratio
        )
        self._next, self._sent = self._session.next, 0
        return [(self._setup(), [])] + self._enter(self._session)

    def _enter(self, session: Session) -> list[Message]:
        settings = self._study.settings
        if session.next is None:
            return self._end()
        if not session.consented:
            return self._wait("consent") + [_screen(
                "consent", settings.title, _paragraphs(settings.consent), button="Go on", action="consent",
                choice="I have read this and agree to take part.",
            )]  # fmt: skip
        if session.answered == 0:
            return self._instructions()
        return self._wait("start") + [_screen(
            "resume", "Welcome back", ["Your answers so far are stored. The study goes on where you stopped."],
            button="Go on", action="start",
        )]  # fmt: skip

    def _instructions(self) -> list[Message]:
        settings = self._study.settings
        button = "Start the practice" if settings.practice else "Start"
        return self._wait("start") + [
            _screen("instructions", "How it works", _paragraphs(settings.instructions), button=button, action="start")
        ]

    def _after(self, *, was_practice: bool) -> list[Message]:
        """What follows a stored answer."""
        following = self._next
        if following is None:
            return self._end()
        if was_practice and following.phase == "trial":
            text = ["The practice is over. From now on you are not told whether you were right."]
            return self._wait("start") + [
                _screen("ready", "Ready?", text, button="Start", action="start", progress=self._progress(following))
            ]
        if following.offers_break:
            text = ["Rest your eyes for as long as you like."]
            return self._wait("start") + [
                _screen("break", "A short break", text, button="Go on", action="start",
                        progress=self._progress(following))
            ]  # fmt: skip
        return self._trial()

    def _trial(self) -> list[Message]:
        following = self._next
        if following is None:
            return self._end()
        content = {"type": "trial", "trial": following.number, **self._progress(following)}
        return self._wait("answer") + self._images(following) + [(content, [])]

    def _images(self, following: NextTrial) -> list[Message]:
        """The pictures of this trial and the next ones that the browser does not hold yet, by number of trial."""
        ids = self._study.upcoming(self._key, AHEAD + 1)
        made: list[Message] = []
        for number, image in enumerate(ids, start=following.number):
            if number >= self._sent:
                made.append(({"type": "image", "trial": number}, [self._study.image(self._key, image)]))
                self._sent = number + 1
        return made

    def _end(self) -> list[Message]:
        self.close()
        return self._wait() + [_screen("end", "Done", _paragraphs(self._study.settings.end))]

    def _refused(self, refusal: Refused) -> list[Message]:
        if refusal.kind == "session ended":
            self._session = None
            return self._wait("take_over") + [_screen(
                "superseded", "This study goes on in another window",
                ["You may close this window, or continue here. No answer is lost."],
                button="Continue here", action="take_over",
            )]  # fmt: skip
        if refusal.kind == "bad token":
            return self._wait() + [_screen("refused", "This link is not valid", [str(refusal)])]
        return []  # a message that the page itself never sends: nothing to show

    def _setup(self) -> dict[str, Any]:
        settings, session = self._study.settings, self._session
        assert session is not None
        pairs = zip(("real", "refined"), settings.keys, settings.labels, strict=True)
        return {
            "type": "setup", "subject": session.participant, "session": fingerprint(session.key), "question": QUESTION,
            "answers": [{"value": value, "key": key.lower(), "label": label} for value, key, label in pairs],
            "fixation_ms": settings.fixation_ms, "exposure_ms": settings.exposure_ms,
            "deadline_ms": settings.deadline_ms, "scale": settings.scale,
        }  # fmt: skip

    def _progress(self, following: NextTrial) -> dict[str, Any]:
        """Practice and trials are counted for themselves."""
        practice = self._study.settings.practice
        if following.phase == "practice":
            return {"practice": True, "done": following.number, "total": practice}
        return {"practice": False, "done": following.number - practice, "total": following.of - practice}

    def _wait(self, *kinds: str) -> list[Message]:
        self._waits_for = ("hello", *kinds)  # a page that was loaded again says hello at any time
        return []

    @property
    def _key(self) -> str:
        if self._session is None:
            raise Refused("session ended", "no session is open")
        return self._session.key


def check_message(message: object) -> dict[str, Any]:
    """The message, if it is one of those that the page sends.

    Raises:
        Refused: 'bad message', saying what is wrong without quoting it.

    """
    if not isinstance(message, dict):
        raise Refused("bad message", "not an object")
    try:
        size = len(json.dumps(message, allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        raise Refused("bad message", "not JSON") from None
    if size > LIMIT:
        raise Refused("bad message", f"{size} characters; expected at most {LIMIT}")
    kind = message.get("type")
    if not isinstance(kind, str) or kind not in _SHAPES:
        raise Refused("bad message", "unknown type")
    _check_names({name: value for name, value in message.items() if name != "type"}, _SHAPES[kind], kind)
    if kind in ("hello", "note"):
        _check_names(message["client"], _CLIENT, "client")
    if kind == "note" and message["what"] not in NOTES:
        raise Refused("bad message", "unknown note")
    return message


def _check_names(values: Mapping[Any, Any], shape: Mapping[str, Any], where: str) -> None:
    if set(values) != set(shape):
        raise Refused("bad message", f"{where} with other names than {', '.join(shape) or 'none'}")
    for name, types in shape.items():
        value = values[name]
        number = isinstance(value, (int, float))
        if not isinstance(value, types) or isinstance(value, bool) or (number and not math.isfinite(value)):
            raise Refused("bad message", f"{where}: {name} of another type than expected")


def _screen(
    kind: str,
    title: str,
    text: list[str],
    *,
    button: str | None = None,
    action: str | None = None,
    choice: str | None = None,
    progress: Mapping[str, Any] | None = None,
) -> Message:
    return {
        "type": "screen", "kind": kind, "title": title, "text": text, "button": button, "action": action,
        "choice": choice, "progress": None if progress is None else dict(progress),
    }, []  # fmt: skip


def _feedback(done: Recorded, answer: str) -> Message:
    """Feedback to a practice answer that is stored; after a timeout nobody is told what it was."""
    other = {"real": "refined", "refined": "real"}
    truth = None if answer not in other else answer if done.was_right else other[answer]
    return {"type": "feedback", "trial": done.number, "correct": done.was_right, "truth": truth}, []


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]
