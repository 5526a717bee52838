"""Tables of a study's database, and the engine that opens it: SQLite in WAL mode, or PostgreSQL by its URL.

One database holds one study. Times are ISO 8601 in UTC. Every statement that writes runs in a transaction which SQLite
begins as IMMEDIATE, so that two processes wait for each other instead of failing half way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import make_url

SCHEMA_VERSION = 2  # 2: software of a session, window of an answer
BUSY_MS = 30_000  # how long a writer waits for another one
metadata = MetaData()

study = Table(
    "study", metadata,
    Column("id", Integer, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("settings", Text, nullable=False),  # StudySettings as JSON
    Column("secret", LargeBinary, nullable=False),  # makes image ids and tokens; is never exported
    Column("simulated", Boolean, nullable=False),  # answers of programs: never evidence about people
    Column("software", String(200), nullable=False),
    Column("source", Text, nullable=False),  # where the images came from, as JSON
    Column("created", String(32), nullable=False),
)  # fmt: skip
subject = Table(
    "subject", metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("participant", String(32), nullable=False, unique=True),  # random; the only name that leaves the database
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("responder", String(200), nullable=False),  # 'human', or 'simulated: ...'
    Column("consented", String(32)),
    Column("finished", String(32)),
)  # fmt: skip
image = Table(
    "image", metadata,
    Column("id", String(32), primary_key=True),
    Column("source", String(20), nullable=False),
    Column("source_index", Integer, nullable=False),
    Column("name", Text, nullable=False),  # the file's own name: never sent to a browser
    Column("png", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
)  # fmt: skip
trial = Table(
    "trial", metadata,
    Column("subject_id", ForeignKey("subject.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("image_id", ForeignKey("image.id"), nullable=False),
)  # fmt: skip
session = Table(
    "session", metadata,
    Column("id", Integer, primary_key=True),
    Column("key_sha256", String(64), nullable=False, unique=True),
    Column("subject_id", ForeignKey("subject.id"), nullable=False),
    Column("started", String(32), nullable=False),
    Column("last_seen", String(32), nullable=False),
    Column("ended", String(32)),
    Column("ended_by", String(40)),
    Column("browser", String(300), nullable=False),
    Column("window_width", Integer),
    Column("window_height", Integer),
    Column("pixel_ratio", Float),
    Column("software", String(200), nullable=False),  # that stored this session's answers
)  # fmt: skip
Index("one_live_session", session.c.subject_id, unique=True,
      sqlite_where=session.c.ended.is_(None), postgresql_where=session.c.ended.is_(None))  # fmt: skip
answer = Table(
    "answer", metadata,
    Column("id", Integer, primary_key=True),
    Column("subject_id", ForeignKey("subject.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("session_id", ForeignKey("session.id"), nullable=False),
    Column("answer", String(10), nullable=False),
    Column("reaction_ms", Float),
    Column("exposure_ms", Float),  # measured, not planned
    Column("answered", String(32), nullable=False),
    Column("window_width", Integer),  # at the answer: it may have been resized since the session began
    Column("window_height", Integer),
    Column("pixel_ratio", Float),
    UniqueConstraint("subject_id", "number", name="one_answer_per_trial"),
)  # fmt: skip
log = Table(
    "event", metadata,
    Column("id", Integer, primary_key=True),
    Column("at", String(32), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("detail", String(400), nullable=False),
    Column("subject_id", ForeignKey("subject.id")),
)  # fmt: skip


def make_engine(where: str | Path) -> Engine:
    """Engine for a file of SQLite, or for a URL (`postgresql://user@host/database`, `sqlite:///file`)."""
    url = make_url(str(where)) if "://" in str(where) else make_url("sqlite://").set(database=str(Path(where)))
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def sqlite_file(where: str | Path) -> Path | None:
    """The file that `where` names, or None for a database server."""
    if "://" not in str(where):
        return Path(where)
    url = make_url(str(where))
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would be a deferred one
    cursor = connection.cursor()
    # FULL: an acknowledged answer survives even a power cut, for one fsync a trial.
    for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    reads = connection.get_execution_options().get("reads", False)
    connection.execute(text("BEGIN" if reads else "BEGIN IMMEDIATE"))
