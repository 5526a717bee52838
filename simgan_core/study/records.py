"""What a study's database hands out and refuses: plain records, and the errors that a screen or a user reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RefusalKind = Literal[
    "bad token", "session ended", "no consent", "out of order", "bad answer", "unknown image", "bad message"
]


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
