"""Clients of the load test: a server as a process, and subjects that speak the kernel's protocol to it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from simgan_core.study.gate import PROTOCOL

START_PATIENCE = 120.0  # seconds for a server to listen, and for a page to be served
ANSWER_PATIENCE = 30.0
TRIAL_PATIENCE = 3.0  # seconds a trial, beside the time to think: 20 times what is asked of the page
KERNEL_ID = re.compile(r'"kernelId": ?"([0-9a-f-]{36})"')
MODEL_ID = re.compile(r'"model_id": ?"([0-9a-f]{32})"')


@dataclass
class Run:
    """What one run measured."""

    subjects: int
    trials: int
    killed: bool
    latencies_ms: list[float] = field(default_factory=list)
    confirmed: dict[str, dict[int, str]] = field(default_factory=dict)
    finished: int = 0
    gave_up: int = 0
    page_seconds: list[float] = field(default_factory=list)
    kernel_mib: list[float] = field(default_factory=list)
    server_mib: float = 0.0


class Server:
    """`simgan study serve` as a process of its own."""

    def __init__(self, database: Path | str, port: int | None = None, base_url: str = "") -> None:
        self.database = database
        self.port = port or free_port()
        self.base_url = base_url
        self._process: subprocess.Popen[bytes] | None = None
        # A pipe that nobody reads would stop the server once it is full.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop()

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: it ended, or took too long; the message holds its output.

        """
        code = "import typer; from simgan_core.cli_study_serve import serve; typer.run(serve)"
        command = [sys.executable, "-c", code, str(self.database), "--port", str(self.port), "--base-url",
                   self.base_url or "/"]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=self._log, env=_environment(),
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + START_PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"the study's server did not start: {self.log()[-2000:]}")

    def log(self) -> str:
        """What it wrote to its log until now."""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it at once; its kernels notice that their parent is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)

    def stop(self) -> str:
        """End it in good order; what it logged."""
        self.kill(signal.SIGTERM)
        with self._log:
            return self.log()

    @property
    def pid(self) -> int:
        """Number of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        """Address of the front page, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}{self.base_url}"


class LostConnection(Exception):
    """The server went away."""


class Subject:
    """One client. Its answers are drawn at random: the study is marked as simulated."""

    def __init__(self, name: str, address: str, token: str, run: Run, think_ms: float, seed: int) -> None:
        self._address, self._page = address, f"{address}/s/{token}"
        self._run, self._think, self._rng = run, think_ms / 1000, random.Random(seed)
        # The server is started at most twice; thinking takes half the mean longer at most.
        self.patience = 3 * START_PATIENCE + run.trials * (TRIAL_PATIENCE + 1.5 * self._think)
        self._confirmed = run.confirmed.setdefault(name, {})
        self._waiting: tuple[int, str] | None = None  # answered, but not confirmed
        self._session: str | None = None

    async def take_part(self) -> None:
        """Take the whole study, through as many connections as it needs, or give up after `patience` seconds."""
        try:
            async with asyncio.timeout(self.patience):
                while not await self._window_or_none():
                    await asyncio.sleep(0.5 + self._rng.random())
        except TimeoutError:
            self._run.gave_up += 1
        else:
            self._run.finished += 1

    async def _window_or_none(self) -> bool:
        try:
            return await self._one_window()
        except LostConnection:
            return False

    async def _one_window(self) -> bool:
        import websockets

        begun = time.perf_counter()
        text = await asyncio.to_thread(get_page, self._page)
        kernel, model = KERNEL_ID.search(text), MODEL_ID.search(text)
        if kernel is None or model is None:
            raise LostConnection
        self._run.page_seconds.append(time.perf_counter() - begun)
        socket_address = self._address.replace("http", "ws", 1)
        url = f"{socket_address}/api/kernels/{kernel[1]}/channels?session_id={uuid.uuid4().hex}"
        origin = websockets.Origin("http://" + urlsplit(self._page).netloc)
        try:
            async with websockets.connect(
                url, subprotocols=[websockets.Subprotocol(PROTOCOL)], origin=origin, max_size=None,
                open_timeout=START_PATIENCE,
            ) as connection:  # fmt: skip
                return await self._talk(connection, model[1])
        except (OSError, websockets.WebSocketException, TimeoutError):
            raise LostConnection from None

    async def _talk(self, connection: Any, model: str) -> bool:
        client = {"user_agent": "simgan study load", "window_width": 1280, "window_height": 800, "pixel_ratio": 1.0}
        await connection.send(frame(model, {"type": "hello", "session": self._session, "client": client}))
        sent = None
        while True:
            content = custom(await asyncio.wait_for(connection.recv(), ANSWER_PATIENCE), model)
            if content is None or content["type"] == "image":
                continue
            if content["type"] == "setup":
                self._session = content["session"]
                continue
            if content["type"] in ("trial", "screen") and sent is not None:
                self._run.latencies_ms.append(1000 * (time.perf_counter() - sent))
                sent = None
            if content["type"] == "screen":
                if content["kind"] == "end":
                    self._confirm(None)
                    return True
                if content["kind"] != "resume":
                    self._confirm(None)
                await connection.send(frame(model, {"type": content["action"]}))
            elif content["type"] == "trial":
                answer = await self._answer(content["trial"])
                sent = time.perf_counter()
                await connection.send(frame(model, answer))

    async def _answer(self, trial: int) -> dict[str, Any]:
        """The answer to a trial; one that was not confirmed is sent again as it was."""
        self._confirm(trial)
        if self._waiting is None:
            await asyncio.sleep(self._think * (0.5 + self._rng.random()))
            self._waiting = (trial, self._rng.choice(("real", "refined")))
        return {
            "type": "answer",
            "trial": trial,
            "answer": self._waiting[1],
            "reaction_ms": 500.0,
            "exposure_ms": 500.0,
        }

    def _confirm(self, asked: int | None) -> None:
        """Another question confirms the answer before it."""
        if self._waiting is not None and self._waiting[0] != asked:
            self._confirmed[self._waiting[0]] = self._waiting[1]
            self._waiting = None


def frame(model: str, content: dict[str, Any]) -> bytes:
    """A message of the widget `model` as the browser's side of Voilà sends it."""
    from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

    header = {
        "msg_id": uuid.uuid4().hex, "msg_type": "comm_msg", "username": "", "session": secrets.token_hex(8),
        "date": datetime.now(UTC).isoformat(), "version": "5.3",
    }  # fmt: skip
    body = {"comm_id": model, "data": {"method": "custom", "content": content}}
    made: bytes = serialize_msg_to_ws_v1([json.dumps(part).encode() for part in (header, {}, {}, body)], "shell")
    return made


def custom(received: Any, model: str) -> dict[str, Any] | None:
    """Content of a message of the widget; None for everything else that a kernel says."""
    from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1

    if not isinstance(received, bytes):
        return None
    _channel, parts = deserialize_msg_from_ws_v1(received)
    if json.loads(parts[0]).get("msg_type") != "comm_msg":
        return None
    content = json.loads(parts[3])
    if content.get("comm_id") != model or content["data"].get("method") != "custom":
        return None
    found: dict[str, Any] = content["data"]["content"]
    return found


def get_page(url: str) -> str:
    """A page's text; the server may be away.

    Raises:
        LostConnection: it is.

    """
    import http.client
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=START_PATIENCE) as reply:  # this machine's own server
            return str(reply.read().decode())
    except (URLError, OSError, http.client.HTTPException):
        raise LostConnection from None


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """One thread per kernel: 25 of them share the cores."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
