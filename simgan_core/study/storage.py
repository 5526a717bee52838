"""Storage of a study: plan, subjects, sessions, answers, events. What a screen calls, and all that it needs to call.

    study = create_study("study.db", StudySettings(), pictures)        # once
    study = open_study("study.db")                                     # every process
    session = study.open_session(token, browser="...", window=(390, 844), pixel_ratio=3.0)
    study.give_consent(session.key)
    trial = session.next                                               # id of the image, never its truth
    png = study.image(session.key, trial.image)
    done = study.record_answer(session.key, trial.number, "real", reaction_ms=512.5)   # durable when it returns
    trial = done.next                                                  # None: finished

A subject is known by an unguessable token. The session that was opened last is the live one: opening ends the session
before, whose calls are then refused. The same answer may be sent twice and counts once. Whatever is refused raises
`Refused` and is written to the event log. No method hands out a truth, except the feedback of a practice trial.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, func, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from simgan_core import __version__
from simgan_core.study import schema
from simgan_core.study.plan import (
    Plan,
    PlannedImage,
    Source,
    StudySettings,
    Trial,
    make_plan,
    right_answer,
    standin_texts,
)

RefusalKind = Literal[
    "bad token", "session ended", "no consent", "out of order", "bad answer", "unknown image", "bad message"
]
ANSWERS = ("real", "refined", "timeout")
PRELOAD = 8  # images beyond the present trial that a screen may fetch
LONGEST_MS = 3_600_000.0
MOST_REFUSALS = 10_000  # of strangers; further ones are not logged, so that nobody can fill the disk
MOST_NOTES = 2_000  # of one subject
_TOKEN_LENGTH = 43
FINGERPRINT = 32  # hexadecimal digits


class Refused(ValueError):
    """A request that is not allowed; `kind` says why, for the screen to react to. Its text may be shown."""

    def __init__(self, kind: RefusalKind, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class StudyError(ValueError):
    """The database cannot be created or opened as asked: found, expected, remedy."""


@dataclass(frozen=True)
class Picture:
    """A picture on its way into a study: its own name (kept on the server) and its PNG bytes."""

    name: str
    png: bytes


@dataclass(frozen=True)
class NextTrial:
    """What a screen may know of a trial before the answer. An attention check looks like any other trial.

    Attributes:
        number: from 0, practice included; `record_answer` wants it.
        of: trials of this subject, practice included.
        phase: 'practice' (feedback after the answer) or 'trial'.
        image: opaque id for `StudyStore.image`.
        starts_block: first trial of a block (practice, main, control): a screen may announce it.
        offers_break: a break is due before this trial.

    """

    number: int
    of: int
    phase: Literal["practice", "trial"]
    image: str
    starts_block: bool
    offers_break: bool


@dataclass(frozen=True)
class Session:
    """An opened session. `key` is for all further calls; `next` is where to go on, None when all is answered."""

    key: str
    participant: str
    consented: bool
    answered: int
    next: NextTrial | None


@dataclass(frozen=True)
class Recorded:
    """An answer that is on disk.

    `duplicate`: it was there before, and what was there before counts. `was_right` only after practice.
    """

    number: int
    duplicate: bool
    was_right: bool | None
    next: NextTrial | None


@dataclass(frozen=True)
class _Live:
    """The live session behind a key."""

    session_id: int
    subject_id: int
    consented: bool
    window: dict[str, float | None]  # as the session began


def fingerprint(key: str) -> str:
    """What a window may remember of its session's key: it tells that session from another, and opens nothing."""
    return _sha256(key)[:FINGERPRINT]


def create_study(
    where: str | Path,
    settings: StudySettings,
    pictures: Mapping[Source, Sequence[Picture]],
    *,
    simulated: bool = False,
    source: Mapping[str, object] | None = None,
) -> StudyStore:
    """Plan a study and write it with its pictures to a new database: a file of SQLite, or a PostgreSQL URL.

    `simulated` stamps every answer of this study as a program's; `source` says where the pictures came from: with
    `real_is_standin` among it, the default texts do not call them real. Pictures of attention checks are made here. The
    database appears whole or not at all.

    Raises:
        StudyError: the file exists, or the database holds a study already.
        ValueError: fewer pictures than the plan needs.

    """
    from simgan_core.study.pictures import with_attention_checks

    if source and source.get("real_is_standin"):
        settings = standin_texts(settings)
    stock = with_attention_checks(settings, pictures)
    secret = secrets.token_bytes(32)
    plan = make_plan(settings, {name: len(found) for name, found in stock.items()}, secret)
    file = schema.sqlite_file(where)
    if file is not None:
        _new_file(file)
    engine = schema.make_engine(where)
    try:
        with engine.begin() as connection:
            if inspect(connection).has_table(schema.study.name):
                raise StudyError(f"{engine.url!r} holds a study already; expected an empty database. Name another one.")
            schema.metadata.create_all(connection)
            _write_plan(connection, plan, stock, secret, simulated=simulated, source=source or {})
    except BaseException:
        engine.dispose()
        if file is not None:
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        raise
    engine.dispose()
    return open_study(where)


def open_study(where: str | Path) -> StudyStore:
    """Open the study in a database. Cheap: every process of a page does it.

    Raises:
        StudyError: no such file, no study in it, or a study of another schema version.

    """
    file = schema.sqlite_file(where)
    if file is not None and not file.is_file():
        raise StudyError(f"{file}: no such file; expected the database of a study. Make one with: simgan study create")
    engine = schema.make_engine(where)
    try:
        with engine.connect().execution_options(reads=True) as connection:
            if not inspect(connection).has_table(schema.study.name):
                raise StudyError(
                    f"{shown_name(where)}: no study found; expected one. Make one with: simgan study create"
                )
            row = connection.execute(select(schema.study)).one()
    except SQLAlchemyError as error:
        engine.dispose()
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StudyError(f"{shown_name(where)}: not the database of a study ({reason}).") from error
    except StudyError:
        engine.dispose()
        raise
    if row.schema_version != schema.SCHEMA_VERSION:
        engine.dispose()
        raise StudyError(
            f"{shown_name(where)}: schema version {row.schema_version} found; expected {schema.SCHEMA_VERSION}. "
            f"Export it with the version that wrote it ({row.software}), or install that version."
        )
    return StudyStore(engine, row)


class StudyStore:
    """The opened database of one study. Safe to use from several threads and processes."""

    def __init__(self, engine: Engine, row: Row[Any]) -> None:
        self._engine = engine
        self._secret: bytes = row.secret
        self.settings = StudySettings.from_json(row.settings)
        self.simulated: bool = row.simulated
        self.software: str = row.software
        self.source: dict[str, object] = json.loads(row.source)
        self.created: str = row.created

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def __enter__(self) -> StudyStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for the experimenter ---

    def tokens(self) -> dict[str, str]:
        """Random participant id -> the subject's token, in the order of the plan. For links; keep them private."""
        with self._reading() as connection:
            rows = connection.execute(select(schema.subject).order_by(schema.subject.c.number)).all()
        return {row.participant: _token(self._secret, row.participant) for row in rows}

    @property
    def experimenter_token(self) -> str:
        """The token of the experimenter's page."""
        return _token(self._secret, "experimenter")

    def is_experimenter(self, token: object) -> bool:
        """Whether this is the experimenter's token; a wrong one is logged."""
        if isinstance(token, str) and hmac.compare_digest(token.encode(), self.experimenter_token.encode()):
            return True
        self.log_refusal("bad token", "experimenter's page")
        return False

    def counts(self) -> list[dict[str, Any]]:
        """Progress, one row per subject: participant, responder, answered, of, consented, finished, live, last_seen.

        `live` is true while a session is open; `last_seen` is the time of its last request (None: never here). No row
        tells how many answers were right.
        """
        answered = select(schema.answer.c.subject_id, func.count().label("answered")).group_by("subject_id").subquery()
        planned = select(schema.trial.c.subject_id, func.count().label("planned")).group_by("subject_id").subquery()
        seen = (
            select(
                schema.session.c.subject_id,
                func.max(schema.session.c.last_seen).label("last_seen"),
                (func.count() - func.count(schema.session.c.ended)).label("live"),
            )
            .group_by("subject_id")
            .subquery()
        )
        query = (
            select(schema.subject, answered.c.answered, planned.c.planned, seen.c.last_seen, seen.c.live)
            .outerjoin(answered, answered.c.subject_id == schema.subject.c.id)
            .outerjoin(planned, planned.c.subject_id == schema.subject.c.id)
            .outerjoin(seen, seen.c.subject_id == schema.subject.c.id)
            .order_by(schema.subject.c.number)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            {
                "participant": row.participant, "responder": row.responder, "answered": row.answered or 0,
                "of": row.planned or 0, "consented": row.consented is not None, "finished": row.finished is not None,
                "live": bool(row.live), "last_seen": row.last_seen,
            }
            for row in rows
        ]  # fmt: skip

    def events(self, limit: int = 1000) -> list[dict[str, str]]:
        """The newest events, newest first: at, kind, detail, participant ('' where none is known)."""
        query = (
            select(schema.log, schema.subject.c.participant)
            .outerjoin(schema.subject, schema.subject.c.id == schema.log.c.subject_id)
            .order_by(schema.log.c.id.desc())
            .limit(limit)
        )
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            {"at": row.at, "kind": row.kind, "detail": row.detail, "participant": row.participant or ""} for row in rows
        ]

    def plan(self) -> Plan:
        """The plan as it was stored."""
        subjects: dict[int, list[Trial]] = {}
        query = (
            select(schema.subject.c.number.label("subject"), schema.trial, schema.image)
            .select_from(schema.trial)
            .join(schema.subject, schema.subject.c.id == schema.trial.c.subject_id)
            .join(schema.image, schema.image.c.id == schema.trial.c.image_id)
            .order_by(schema.subject.c.number, schema.trial.c.number)
        )
        with self._reading() as connection:
            for row in connection.execute(query):
                image = PlannedImage(row.image_id, row.source, row.source_index)
                subjects.setdefault(row.subject, []).append(Trial(row.number, row.kind, image))
        return Plan(self.settings, tuple(tuple(trials) for trials in subjects.values()))

    def rows(self) -> list[dict[str, Any]]:
        """One row per planned trial, answered or not, with truth, answer, times, browser, window, software.

        `answer` and what follows it are None where nothing was answered.
        """
        answered = (schema.answer.c.subject_id == schema.trial.c.subject_id) & (
            schema.answer.c.number == schema.trial.c.number
        )
        query = (
            select(
                schema.subject.c.participant.label("subject"), schema.subject.c.responder,
                schema.trial.c.number.label("trial"), schema.trial.c.kind, schema.image.c.id.label("image"),
                schema.image.c.source, schema.image.c.name.label("file"), schema.answer.c.answer,
                schema.answer.c.reaction_ms, schema.answer.c.exposure_ms, schema.answer.c.answered,
                schema.session.c.id.label("session"), schema.session.c.browser, schema.answer.c.window_width,
                schema.answer.c.window_height, schema.answer.c.pixel_ratio, schema.session.c.software,
            )
            .select_from(schema.trial)
            .join(schema.subject, schema.subject.c.id == schema.trial.c.subject_id)
            .join(schema.image, schema.image.c.id == schema.trial.c.image_id)
            .outerjoin(schema.answer, answered)
            .outerjoin(schema.session, schema.session.c.id == schema.answer.c.session_id)
            .order_by(schema.subject.c.number, schema.trial.c.number)
        )  # fmt: skip
        with self._reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return [row | {"truth": right_answer(row["source"])} for row in rows]

    def pictures(self, ids: Sequence[str]) -> dict[str, bytes]:
        """PNG bytes of images by id, for the analysis (not for a subject's screen)."""
        query = select(schema.image.c.id, schema.image.c.png).where(schema.image.c.id.in_(list(ids)))
        with self._reading() as connection:
            return {row.id: row.png for row in connection.execute(query)}

    def name_responder(self, participant: str, responder: str) -> None:
        """Say which program answers for a subject of a simulated study.

        Raises:
            ValueError: the study is one of people, or the name does not begin with 'simulated'.

        """
        if not self.simulated or not responder.startswith("simulated"):
            raise ValueError(
                f"responder {responder!r} found in a study {'by programs' if self.simulated else 'of people'}; "
                "expected a name that begins with 'simulated' in a simulated study. Create one with simulated=True."
            )
        with self._writing() as connection:
            connection.execute(
                update(schema.subject)
                .where(schema.subject.c.participant == participant)
                .values(responder=responder)
            )  # fmt: skip

    # --- for the subject's screen ---

    def open_session(
        self,
        token: object,
        *,
        browser: str = "",
        window: tuple[int, int] | None = None,
        pixel_ratio: float | None = None,
    ) -> Session:
        """Open a session for a token and go on where the subject stopped; an older session of the token ends.

        Raises:
            Refused: 'bad token'.

        """
        key, now = secrets.token_urlsafe(32), _now()
        with self._refusing(), self._writing() as connection:
            subject = _subject_of(connection, token)
            connection.execute(
                update(schema.session)
                .where(schema.session.c.subject_id == subject.id, schema.session.c.ended.is_(None))
                .values(ended=now, ended_by="taken over")
            )
            connection.execute(
                insert(schema.session).values(
                    key_sha256=_sha256(key), subject_id=subject.id, started=now, last_seen=now,
                    browser=_clean(str(browser), 300), software=_software(), **_window(window, pixel_ratio),
                )
            )  # fmt: skip
            answered, following = self._position(connection, subject.id)
            return Session(key, subject.participant, subject.consented is not None, answered, following)

    def live_session(self, token: object) -> str | None:
        """Fingerprint of the session that is open for a token, None when none is: a second window asks before it opens.

        Raises:
            Refused: 'bad token'.

        """
        with self._refusing(), self._reading() as connection:
            subject = _subject_of(connection, token)
            query = select(schema.session.c.key_sha256).where(
                schema.session.c.subject_id == subject.id, schema.session.c.ended.is_(None)
            )
            digest = connection.execute(query).scalars().first()
            return None if digest is None else str(digest)[:FINGERPRINT]

    def give_consent(self, key: object) -> None:
        """Note that the subject agreed to take part; may be called again.

        Raises:
            Refused: 'session ended'.

        """
        with self._refusing(), self._writing() as connection:
            live = _live(connection, key)
            if not live.consented:
                connection.execute(
                    update(schema.subject).where(schema.subject.c.id == live.subject_id).values(consented=_now())
                )

    def next_trial(self, key: object) -> NextTrial | None:
        """The first trial without an answer; None when there is none.

        Raises:
            Refused: 'session ended', 'no consent'.

        """
        with self._refusing(), self._reading() as connection:
            live = _consenting(_live(connection, key))
            return self._position(connection, live.subject_id)[1]

    def upcoming(self, key: object, count: int = PRELOAD) -> list[str]:
        """Ids of the images of the next trials in order, for preloading: at most `count` and at most `PRELOAD`.

        Raises:
            Refused: 'session ended', 'no consent'.

        """
        with self._refusing(), self._reading() as connection:
            live = _consenting(_live(connection, key))
            start = self._position(connection, live.subject_id)[0]
            query = (
                select(schema.trial.c.image_id)
                .where(schema.trial.c.subject_id == live.subject_id, schema.trial.c.number >= start)
                .order_by(schema.trial.c.number)
                .limit(max(0, min(count, PRELOAD)))
            )
            return list(connection.execute(query).scalars())

    def image(self, key: object, image_id: object) -> bytes:
        """PNG bytes of an image that this session may see now or soon (see `upcoming`), or has seen.

        Raises:
            Refused: 'session ended', 'no consent', 'unknown image' (also for images of later trials and of others).

        """
        with self._refusing(), self._reading() as connection:
            live = _consenting(_live(connection, key))
            last = self._position(connection, live.subject_id)[0] + PRELOAD
            shown = (schema.trial.c.subject_id == live.subject_id) & (schema.trial.c.number < last)
            query = (
                select(schema.image.c.png)
                .join(schema.trial, schema.trial.c.image_id == schema.image.c.id)
                .where(shown, schema.image.c.id == str(image_id)[:64])
            )
            png: bytes | None = connection.execute(query).scalars().first()
            if png is None:
                raise _Refusal("unknown image", f"image {_clean(str(image_id), 80)!r} is none of this session's.", live)
            return png

    def record_answer(
        self,
        key: object,
        number: object,
        answer: object,
        *,
        reaction_ms: object = None,
        exposure_ms: object = None,
        window: tuple[int, int] | None = None,
        pixel_ratio: float | None = None,
    ) -> Recorded:
        """Store the answer to trial `number`; it is durable when this returns, and may be sent again after a failure.

        `answer` is 'real', 'refined' or, with a deadline, 'timeout'. Times are milliseconds as the browser measured
        them: from the frame that shows the image to the answer, and how long it stood. `window` and `pixel_ratio` are
        those at the answer; without them those of the session count. Sent again, the first counts.

        Raises:
            Refused: 'session ended', 'no consent', 'bad answer', 'out of order' (not the next trial).

        """
        with self._refusing(), self._writing() as connection:
            live = _consenting(_live(connection, key))
            answered, following = self._position(connection, live.subject_id)
            _check_answer(answer, number, reaction_ms, exposure_ms, live, deadline=self.settings.deadline_ms)
            duplicate = isinstance(number, int) and number < answered
            if not duplicate:
                if following is None or number != following.number:
                    raise _Refusal("out of order", f"trial {number} answered; trial {answered} is next.", live)
                now = _now()
                shown = _window(window, pixel_ratio) if window is not None else live.window
                connection.execute(
                    insert(schema.answer).values(
                        subject_id=live.subject_id, number=number, session_id=live.session_id, answer=answer,
                        reaction_ms=_number(reaction_ms, LONGEST_MS), exposure_ms=_number(exposure_ms, LONGEST_MS),
                        answered=now, **shown,
                    )
                )  # fmt: skip
                connection.execute(
                    update(schema.session).where(schema.session.c.id == live.session_id).values(last_seen=now)
                )
                answered, following = self._position(connection, live.subject_id)
                if following is None:
                    connection.execute(
                        update(schema.subject).where(schema.subject.c.id == live.subject_id).values(finished=now)
                    )
            assert isinstance(number, int)
            return Recorded(number, duplicate, _feedback(connection, live.subject_id, number), following)

    def seen(self, key: object) -> None:
        """Note that the session is alive, e.g. while its subject pauses.

        Raises:
            Refused: 'session ended'.

        """
        with self._refusing(), self._writing() as connection:
            live = _live(connection, key)
            connection.execute(
                update(schema.session).where(schema.session.c.id == live.session_id).values(last_seen=_now())
            )

    def note(self, key: object, kind: str, detail: str = "") -> None:
        """Write what a subject's screen did (pause, break, window resized, ...) to the event log.

        Raises:
            Refused: 'session ended'; 'bad message' after too many notes of one subject.

        """
        with self._refusing(), self._writing() as connection:
            live = _live(connection, key)
            own = select(func.count()).select_from(schema.log).where(schema.log.c.subject_id == live.subject_id)
            if connection.execute(own).scalar_one() >= MOST_NOTES:
                raise _Refusal("bad message", f"more than {MOST_NOTES} events of one subject.", None)
            values = {"at": _now(), "kind": _clean(kind, 40), "detail": _clean(detail, 400)}
            connection.execute(insert(schema.log).values(subject_id=live.subject_id, **values))

    def end_session(self, key: object) -> None:
        """End a session (window closed, or page left); one that has ended stays ended."""
        with self._writing() as connection:
            connection.execute(
                update(schema.session)
                .where(schema.session.c.key_sha256 == _sha256(str(key)), schema.session.c.ended.is_(None))
                .values(ended=_now(), ended_by="closed")
            )

    def log_refusal(self, kind: RefusalKind, detail: str, subject_id: int | None = None) -> None:
        """Write a refusal to the event log; `detail` is shortened and freed of control characters."""
        with self._writing() as connection:
            total = connection.execute(select(func.count()).select_from(schema.log)).scalar_one()
            if total < MOST_REFUSALS:
                connection.execute(
                    insert(schema.log).values(at=_now(), kind=kind, detail=_clean(detail, 400), subject_id=subject_id)
                )

    # --- inside ---

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(reads=True) as connection:
            yield connection

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Log a refusal after its transaction was rolled back, and pass it on."""
        try:
            yield
        except _Refusal as refusal:
            subject_id = None if refusal.live is None else refusal.live.subject_id
            self.log_refusal(refusal.kind, str(refusal), subject_id)
            raise Refused(refusal.kind, str(refusal)) from None

    def _position(self, connection: Connection, subject_id: int) -> tuple[int, NextTrial | None]:
        """Number of answers, which is the number of the next trial, and that trial."""
        answers = select(func.count()).select_from(schema.answer).where(schema.answer.c.subject_id == subject_id)
        trials = select(func.count()).select_from(schema.trial).where(schema.trial.c.subject_id == subject_id)
        answered, planned = connection.execute(answers).scalar_one(), connection.execute(trials).scalar_one()
        query = select(schema.trial).where(
            schema.trial.c.subject_id == subject_id, schema.trial.c.number.in_([answered - 1, answered])
        )
        around = {row.number: row for row in connection.execute(query)}
        if answered not in around:
            return answered, None
        row, before = around[answered], around.get(answered - 1)
        starts = before is None or _block(before.kind) != _block(row.kind)
        return answered, NextTrial(
            answered, planned, "practice" if row.kind == "practice" else "trial", row.image_id, starts,
            self._offers_break(answered, starts=starts, practice=row.kind == "practice"),
        )  # fmt: skip

    def _offers_break(self, number: int, *, starts: bool, practice: bool) -> bool:
        if practice or number <= self.settings.practice:
            return False
        every = self.settings.break_every
        return starts or (every is not None and (number - self.settings.practice) % every == 0)


class _Refusal(Exception):
    """A refusal inside a transaction, with the session that it concerns."""

    def __init__(self, kind: RefusalKind, message: str, live: _Live | None = None) -> None:
        self.kind, self.live = kind, live
        super().__init__(message)


def _write_plan(
    connection: Connection,
    plan: Plan,
    stock: Mapping[Source, Sequence[Picture]],
    secret: bytes,
    *,
    simulated: bool,
    source: Mapping[str, object],
) -> None:
    connection.execute(
        insert(schema.study).values(
            id=1, schema_version=schema.SCHEMA_VERSION, settings=plan.settings.to_json(), secret=secret,
            simulated=simulated, software=_software(), source=json.dumps(dict(source), ensure_ascii=False),
            created=_now(),
        )
    )  # fmt: skip
    images = []
    for planned in plan.images().values():
        picture = stock[planned.source][planned.index]
        digest = hashlib.sha256(picture.png).hexdigest()
        images.append({"id": planned.id, "source": planned.source, "source_index": planned.index,
                       "name": picture.name, "png": picture.png, "sha256": digest})  # fmt: skip
    connection.execute(insert(schema.image), images)
    participants: dict[str, None] = {}
    while len(participants) < len(plan.subjects):
        participants[secrets.token_hex(4)] = None
    responder = "simulated" if simulated else "human"
    for number, (participant, trials) in enumerate(zip(participants, plan.subjects, strict=True)):
        connection.execute(
            insert(schema.subject).values(
                id=number + 1, number=number, participant=participant, responder=responder,
                token_sha256=_sha256(_token(secret, participant)),
            )
        )  # fmt: skip
        rows = [
            {"subject_id": number + 1, "number": trial.number, "kind": trial.kind, "image_id": trial.image.id}
            for trial in trials
        ]
        connection.execute(insert(schema.trial), rows)


def _new_file(file: Path) -> None:
    """Create the database's file, readable by its owner alone: it holds tokens and answers of people."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise StudyError(f"{file} exists; expected a new file. Name another one, or move this one away.") from None


def _subject_of(connection: Connection, token: object) -> Row[Any]:
    if not isinstance(token, str) or len(token) != _TOKEN_LENGTH:
        raise _Refusal("bad token", "This link is not valid; please ask for a new one.")
    query = select(schema.subject).where(schema.subject.c.token_sha256 == _sha256(token)).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise _Refusal("bad token", "This link is not valid; please ask for a new one.")
    return row


def _live(connection: Connection, key: object) -> _Live:
    """The live session of a key, its subject's row locked while a server's transaction lasts."""
    query = (
        select(schema.session, schema.subject.c.consented)
        .join(schema.subject, schema.subject.c.id == schema.session.c.subject_id)
        .where(schema.session.c.key_sha256 == _sha256(str(key)[:200]))
        .with_for_update()
    )
    row = connection.execute(query).first()
    if row is None:
        raise _Refusal("session ended", "No such session; please open your link again.")
    window: dict[str, float | None] = {
        name: getattr(row, name) for name in ("window_width", "window_height", "pixel_ratio")
    }
    live = _Live(row.id, row.subject_id, row.consented is not None, window)
    if row.ended is not None:
        raise _Refusal("session ended", "This study goes on in another window; please close this one.", live)
    return live


def _consenting(live: _Live) -> _Live:
    if not live.consented:
        raise _Refusal("no consent", "Please agree to take part first.", live)
    return live


def _check_answer(
    answer: object, number: object, reaction_ms: object, exposure_ms: object, live: _Live, *, deadline: int | None
) -> None:
    allowed = ANSWERS if deadline is not None else ANSWERS[:2]
    if answer not in allowed:
        raise _Refusal("bad answer", f"answer {_clean(repr(answer), 80)}; expected one of {', '.join(allowed)}.", live)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise _Refusal("bad answer", f"trial {_clean(repr(number), 80)}; expected a whole number from 0.", live)
    for name, value in (("reaction_ms", reaction_ms), ("exposure_ms", exposure_ms)):
        if value is not None and _number(value, LONGEST_MS) is None:
            raise _Refusal(
                "bad answer", f"{name} {_clean(repr(value), 80)}; expected milliseconds from 0 to an hour.", live
            )


def _feedback(connection: Connection, subject_id: int, number: int) -> bool | None:
    """Whether the stored answer to a practice trial was right; None for every other trial."""
    query = (
        select(schema.trial.c.kind, schema.image.c.source, schema.answer.c.answer)
        .join(schema.image, schema.image.c.id == schema.trial.c.image_id)
        .join(
            schema.answer,
            (schema.answer.c.subject_id == schema.trial.c.subject_id)
            & (schema.answer.c.number == schema.trial.c.number),
        )
        .where(schema.trial.c.subject_id == subject_id, schema.trial.c.number == number)
    )
    row = connection.execute(query).one()
    return bool(row.answer == right_answer(row.source)) if row.kind == "practice" else None


def _block(kind: str) -> str:
    return "main" if kind == "attention" else kind


def _token(secret: bytes, name: str) -> str:
    """An unguessable token; it follows from the study's secret, so that links can be listed again."""
    digest = hmac.new(secret, f"token/{name}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _software() -> str:
    return f"simgan-core {__version__}"


def _clean(text: str, length: int) -> str:
    """Printable characters only, at most `length`."""
    return "".join(character if character.isprintable() else "?" for character in text[:length])


def _number(value: object, most: float) -> float | None:
    """A finite number from 0 to `most`, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= most else None


def _window(window: tuple[int, int] | None, pixel_ratio: float | None) -> dict[str, float | None]:
    """The columns of a window."""
    width, height = (None, None) if window is None else (_pixels(window[0]), _pixels(window[1]))
    return {"window_width": width, "window_height": height, "pixel_ratio": _number(pixel_ratio, 100.0)}


def _pixels(value: object) -> int | None:
    number = _number(value, 100_000.0)
    return None if number is None else round(number)


def shown_name(where: str | Path) -> str:
    """A database's name for messages, without a password."""
    return str(make_url(str(where)).render_as_string()) if "://" in str(where) else str(where)
