"""Where a subject stands: how many trials are answered, which is next, and whether a practice answer was right."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from simgan_core.study import schema
from simgan_core.study.plan import StudySettings, right_answer
from simgan_core.study.records import NextTrial


def position(connection: Connection, subject_id: int, settings: StudySettings) -> tuple[int, NextTrial | None]:
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
        _offers_break(settings, answered, starts=starts, practice=row.kind == "practice"),
    )  # fmt: skip


def _offers_break(settings: StudySettings, number: int, *, starts: bool, practice: bool) -> bool:
    if practice or number <= settings.practice:
        return False
    every = settings.break_every
    return starts or (every is not None and (number - settings.practice) % every == 0)


def feedback(connection: Connection, subject_id: int, number: int) -> bool | None:
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
