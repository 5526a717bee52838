"""The commands `simgan study serve` and `simgan study load`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def serve(
    database: Annotated[str, typer.Argument(help="The study: a file of SQLite, or a PostgreSQL URL.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all, then behind a proxy that speaks HTTPS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8866,
    base_url: Annotated[str, typer.Option(help="Path below which the page lives, e.g. /study.")] = "/",
    public_url: Annotated[
        str | None, typer.Option(help="Address that subjects use, e.g. https://lab.org/study; for the printed links.")
    ] = None,
    most_kernels: Annotated[
        int, typer.Option(min=1, help="Windows open at once; each takes about 60 MiB of memory.")
    ] = 40,
) -> None:
    """Serve a study's page: one private link per subject, and one for the experimenter. Ctrl-C ends it."""
    from simgan_core.study.server import Place, StudyServer
    from simgan_core.study.storage import open_study

    study = open_study(database)
    where = database if "://" in database else str(Path(database).resolve())
    server = StudyServer(study, where, Place(host, port, base_url, most_kernels))
    server.on_listening = lambda: _print_links(server, public_url)
    server.run()


def load(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports/study-load"),
    subjects: Annotated[int, typer.Option(min=1, help="Subjects at once in the run with the kill.")] = 25,
    trials: Annotated[int, typer.Option(min=2, help="Trials of each subject.")] = 100,
    think_ms: Annotated[int, typer.Option(min=0, help="Mean time that a subject takes for an answer.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the page: latency with 10 subjects, then 25 with the server killed half way; no answer may be lost."""
    from simgan_core.study.load import measure

    found = measure(out, subjects=subjects, trials=trials, think_ms=think_ms)
    typer.echo(json.dumps(found) if as_json else str(out / "README.md"))
    if not found["passed"]:
        raise typer.Exit(1)


def _print_links(server: object, public_url: str | None) -> None:
    from simgan_core.study.server import StudyServer

    assert isinstance(server, StudyServer)
    base = (public_url or server.address).rstrip("/")
    typer.echo(f"listening: {server.address}")
    typer.echo(f"experimenter: {base}/e/{server.study.experimenter_token}")
    for token, participant in server.tokens.items():
        typer.echo(f"subject {participant}: {base}/s/{token}")
