"""A real PostgreSQL server for the tests of the study: Debian's package, started on a free port of loopback."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own on a free port; the URL without a database."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server found; on Debian: apt-get install postgresql")
    bin_folder = BINARIES[0].parent
    folder = tmp_path_factory.mktemp("postgres")
    user = None
    if os.geteuid() == 0:  # the server refuses to run as root
        user = "postgres"
        for place in (folder, *folder.parents):
            if place.owner() == pwd.getpwuid(os.geteuid()).pw_name and place.stat().st_mode & 0o055 != 0o055:
                place.chmod(place.stat().st_mode | 0o055)
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, log = folder / "data", folder / "log"
    subprocess.run(
        [bin_folder / "initdb", "-D", data, "-U", "lab", "--auth=trust", "--encoding=UTF8", "--no-sync"],
        check=True, capture_output=True, user=user, cwd=folder, env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c shared_buffers=16MB"
    control = [bin_folder / "pg_ctl", "-D", data, "-l", log, "-w", "-t", "60"]
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, user=user, cwd=folder,
                   env=environment)  # fmt: skip
    try:
        yield f"postgresql://lab@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, user=user, cwd=folder,
                       env=environment)  # fmt: skip


def new_database(server: str) -> str:
    """URL of an empty database."""
    import psycopg

    name = f"study_{os.urandom(4).hex()}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")  # type: ignore[arg-type]
    return f"{server}/{name}"
