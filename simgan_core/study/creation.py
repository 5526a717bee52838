"""Making a study: the plan, its pictures and its tokens, written to a new database whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, insert, inspect

from simgan_core.study import schema
from simgan_core.study.database import sha256_of, software, timestamp, token_of
from simgan_core.study.plan import Plan, Source, StudySettings, make_plan, standin_texts
from simgan_core.study.records import Picture, StudyError
from simgan_core.study.storage import StudyStore, open_study


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
    plan = make_plan(settings, {name: len(found) for name, found in stock.items()}, secret, open_order=simulated)
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
            simulated=simulated, software=software(), source=json.dumps(dict(source), ensure_ascii=False),
            created=timestamp(),
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
                token_sha256=sha256_of(token_of(secret, participant)),
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
