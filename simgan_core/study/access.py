"""Who may do what: the subject behind a token, the live session behind a key, and the checks of what a screen sends.

All raise `Refusal` inside the transaction of the call; `storage.StudyStore` logs it once that is rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from simgan_core.study import schema
from simgan_core.study.database import sha256_of
from simgan_core.study.records import RefusalKind
from simgan_core.study.untrusted import number_up_to, printable

ANSWERS = ("real", "refined", "timeout")
LONGEST_MS = 3_600_000.0
_TOKEN_LENGTH = 43


@dataclass(frozen=True)
class Live:
    """The live session behind a key."""

    session_id: int
    subject_id: int
    consented: bool
    window: dict[str, float | None]  # as the session began


class Refusal(Exception):
    """A refusal inside a transaction, with the session that it concerns."""

    def __init__(self, kind: RefusalKind, message: str, live: Live | None = None) -> None:
        self.kind, self.live = kind, live
        super().__init__(message)


def subject_of(connection: Connection, token: object) -> Row[Any]:
    """The subject of a token, the row locked while a server's transaction lasts; refuses a 'bad token'."""
    if not isinstance(token, str) or len(token) != _TOKEN_LENGTH:
        raise Refusal("bad token", "This link is not valid; please ask for a new one.")
    query = select(schema.subject).where(schema.subject.c.token_sha256 == sha256_of(token)).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise Refusal("bad token", "This link is not valid; please ask for a new one.")
    return row


def live_of(connection: Connection, key: object) -> Live:
    """The live session of a key, its subject's row locked while a server's transaction lasts."""
    query = (
        select(schema.session, schema.subject.c.consented)
        .join(schema.subject, schema.subject.c.id == schema.session.c.subject_id)
        .where(schema.session.c.key_sha256 == sha256_of(str(key)[:200]))
        .with_for_update()
    )
    row = connection.execute(query).first()
    if row is None:
        raise Refusal("session ended", "No such session; please open your link again.")
    window: dict[str, float | None] = {
        name: getattr(row, name) for name in ("window_width", "window_height", "pixel_ratio")
    }
    live = Live(row.id, row.subject_id, row.consented is not None, window)
    if row.ended is not None:
        raise Refusal("session ended", "This study goes on in another window; please close this one.", live)
    return live


def consenting(live: Live) -> Live:
    """The same session; refuses one whose subject has not agreed to take part ('no consent')."""
    if not live.consented:
        raise Refusal("no consent", "Please agree to take part first.", live)
    return live


def check_answer(
    answer: object, number: object, reaction_ms: object, exposure_ms: object, live: Live, *, deadline: int | None
) -> None:
    """Refuse a 'bad answer': none of the allowed ones, no trial's number, or times that are none."""
    allowed = ANSWERS if deadline is not None else ANSWERS[:2]
    if answer not in allowed:
        raise Refusal(
            "bad answer", f"answer {printable(repr(answer), 80)}; expected one of {', '.join(allowed)}.", live
        )
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise Refusal("bad answer", f"trial {printable(repr(number), 80)}; expected a whole number from 0.", live)
    for name, value in (("reaction_ms", reaction_ms), ("exposure_ms", exposure_ms)):
        if value is not None and number_up_to(value, LONGEST_MS) is None:
            raise Refusal(
                "bad answer", f"{name} {printable(repr(value), 80)}; expected milliseconds from 0 to an hour.", live
            )
