"""Storage of a study: sessions, answers, events. What a screen calls, and all that it needs to call.

    study = create_study("study.db", StudySettings(), pictures)        # once: see `creation`
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

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import func, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from simgan_core.study import schema
from simgan_core.study.access import LONGEST_MS, Refusal, check_answer, consenting, live_of, subject_of
from simgan_core.study.database import StudyDatabase, sha256_of, software, timestamp
from simgan_core.study.progress import feedback, position
from simgan_core.study.records import NextTrial, Recorded, Refused, Session, StudyError
from simgan_core.study.untrusted import number_up_to, printable, window_columns

PRELOAD = 8  # images beyond the present trial that a screen may fetch
MOST_NOTES = 2_000  # of one subject
FINGERPRINT = 32  # hexadecimal digits


def fingerprint(key: str) -> str:
    """What a window may remember of its session's key: it tells that session from another, and opens nothing."""
    return sha256_of(key)[:FINGERPRINT]


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


class StudyStore(StudyDatabase):
    """The opened database of one study, for its experimenter and for its subjects' screens."""

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
        key, now = secrets.token_urlsafe(32), timestamp()
        with self._refusing(), self._writing() as connection:
            subject = subject_of(connection, token)
            connection.execute(
                update(schema.session)
                .where(schema.session.c.subject_id == subject.id, schema.session.c.ended.is_(None))
                .values(ended=now, ended_by="taken over")
            )
            connection.execute(
                insert(schema.session).values(
                    key_sha256=sha256_of(key), subject_id=subject.id, started=now, last_seen=now,
                    browser=printable(str(browser), 300), software=software(), **window_columns(window, pixel_ratio),
                )
            )  # fmt: skip
            answered, following = position(connection, subject.id, self.settings)
            return Session(key, subject.participant, subject.consented is not None, answered, following)

    def live_session(self, token: object) -> str | None:
        """Fingerprint of the session that is open for a token, None when none is: a second window asks before it opens.

        Raises:
            Refused: 'bad token'.

        """
        with self._refusing(), self._reading() as connection:
            subject = subject_of(connection, token)
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
            live = live_of(connection, key)
            if not live.consented:
                connection.execute(
                    update(schema.subject).where(schema.subject.c.id == live.subject_id).values(consented=timestamp())
                )

    def next_trial(self, key: object) -> NextTrial | None:
        """The first trial without an answer; None when there is none.

        Raises:
            Refused: 'session ended', 'no consent'.

        """
        with self._refusing(), self._reading() as connection:
            live = consenting(live_of(connection, key))
            return position(connection, live.subject_id, self.settings)[1]

    def upcoming(self, key: object, count: int = PRELOAD) -> list[str]:
        """Ids of the images of the next trials in order, for preloading: at most `count` and at most `PRELOAD`.

        Raises:
            Refused: 'session ended', 'no consent'.

        """
        with self._refusing(), self._reading() as connection:
            live = consenting(live_of(connection, key))
            start = position(connection, live.subject_id, self.settings)[0]
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
            live = consenting(live_of(connection, key))
            last = position(connection, live.subject_id, self.settings)[0] + PRELOAD
            shown = (schema.trial.c.subject_id == live.subject_id) & (schema.trial.c.number < last)
            query = (
                select(schema.image.c.png)
                .join(schema.trial, schema.trial.c.image_id == schema.image.c.id)
                .where(shown, schema.image.c.id == str(image_id)[:64])
            )
            png: bytes | None = connection.execute(query).scalars().first()
            if png is None:
                raise Refusal(
                    "unknown image", f"image {printable(str(image_id), 80)!r} is none of this session's.", live
                )
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
            live = consenting(live_of(connection, key))
            answered, following = position(connection, live.subject_id, self.settings)
            check_answer(answer, number, reaction_ms, exposure_ms, live, deadline=self.settings.deadline_ms)
            duplicate = isinstance(number, int) and number < answered
            if not duplicate:
                if following is None or number != following.number:
                    raise Refusal("out of order", f"trial {number} answered; trial {answered} is next.", live)
                now = timestamp()
                shown = window_columns(window, pixel_ratio) if window is not None else live.window
                connection.execute(
                    insert(schema.answer).values(
                        subject_id=live.subject_id, number=number, session_id=live.session_id, answer=answer,
                        reaction_ms=number_up_to(reaction_ms, LONGEST_MS),
                        exposure_ms=number_up_to(exposure_ms, LONGEST_MS), answered=now, **shown,
                    )
                )  # fmt: skip
                connection.execute(
                    update(schema.session).where(schema.session.c.id == live.session_id).values(last_seen=now)
                )
                answered, following = position(connection, live.subject_id, self.settings)
                if following is None:
                    connection.execute(
                        update(schema.subject).where(schema.subject.c.id == live.subject_id).values(finished=now)
                    )
            assert isinstance(number, int)
            return Recorded(number, duplicate, feedback(connection, live.subject_id, number), following)

    def seen(self, key: object) -> None:
        """Note that the session is alive, e.g. while its subject pauses.

        Raises:
            Refused: 'session ended'.

        """
        with self._refusing(), self._writing() as connection:
            live = live_of(connection, key)
            connection.execute(
                update(schema.session).where(schema.session.c.id == live.session_id).values(last_seen=timestamp())
            )

    def note(self, key: object, kind: str, detail: str = "") -> None:
        """Write what a subject's screen did (pause, break, window resized, ...) to the event log.

        Raises:
            Refused: 'session ended'; 'bad message' after too many notes of one subject.

        """
        with self._refusing(), self._writing() as connection:
            live = live_of(connection, key)
            own = select(func.count()).select_from(schema.log).where(schema.log.c.subject_id == live.subject_id)
            if connection.execute(own).scalar_one() >= MOST_NOTES:
                raise Refusal("bad message", f"more than {MOST_NOTES} events of one subject.", None)
            values = {"at": timestamp(), "kind": printable(kind, 40), "detail": printable(detail, 400)}
            connection.execute(insert(schema.log).values(subject_id=live.subject_id, **values))

    def end_session(self, key: object) -> None:
        """End a session (window closed, or page left); one that has ended stays ended."""
        with self._writing() as connection:
            connection.execute(
                update(schema.session)
                .where(schema.session.c.key_sha256 == sha256_of(str(key)), schema.session.c.ended.is_(None))
                .values(ended=timestamp(), ended_by="closed")
            )

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Log a refusal after its transaction was rolled back, and pass it on."""
        try:
            yield
        except Refusal as refusal:
            subject_id = None if refusal.live is None else refusal.live.subject_id
            self.log_refusal(refusal.kind, str(refusal), subject_id)
            raise Refused(refusal.kind, str(refusal)) from None


def shown_name(where: str | Path) -> str:
    """A database's name for messages, without a password."""
    return str(make_url(str(where)).render_as_string()) if "://" in str(where) else str(where)
