"""The database of one study, opened: its settings and tokens, and what the experimenter may read of it.

`storage.StudyStore` adds what a subject's screen calls. No method hands out a truth but `rows` and `plan`, which no
screen can reach.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from simgan_core import __version__
from simgan_core.study import schema
from simgan_core.study.plan import Plan, PlannedImage, StudySettings, Trial, right_answer
from simgan_core.study.records import RefusalKind
from simgan_core.study.untrusted import printable

MOST_REFUSALS = 10_000  # of strangers; further ones are not logged, so that nobody can fill the disk


class StudyDatabase:
    """The opened database of one study, for its experimenter. Safe to use from several threads and processes."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tokens(self) -> dict[str, str]:
        """Random participant id -> the subject's token, in the order of the plan. For links; keep them private."""
        with self._reading() as connection:
            rows = connection.execute(select(schema.subject).order_by(schema.subject.c.number)).all()
        return {row.participant: token_of(self._secret, row.participant) for row in rows}

    @property
    def experimenter_token(self) -> str:
        """The token of the experimenter's page."""
        return token_of(self._secret, "experimenter")

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

    def log_refusal(self, kind: RefusalKind, detail: str, subject_id: int | None = None) -> None:
        """Write a refusal to the event log; `detail` is shortened and freed of control characters."""
        with self._writing() as connection:
            total = connection.execute(select(func.count()).select_from(schema.log)).scalar_one()
            if total < MOST_REFUSALS:
                connection.execute(
                    insert(schema.log).values(
                        at=timestamp(), kind=kind, detail=printable(detail, 400), subject_id=subject_id
                    )
                )

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(reads=True) as connection:
            yield connection


def token_of(secret: bytes, name: str) -> str:
    """An unguessable token; it follows from the study's secret, so that links can be listed again."""
    digest = hmac.new(secret, f"token/{name}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def sha256_of(text: str) -> str:
    """Checksum of a text, hexadecimal: what is stored of tokens and keys."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def timestamp() -> str:
    """The present time, UTC, ISO 8601 to milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def software() -> str:
    """The name and version that go into the database."""
    return f"simgan-core {__version__}"
