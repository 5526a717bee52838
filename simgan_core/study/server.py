"""The page of a study: Voilà for subjects, one kernel each, and a plain page for the experimenter.

    /                      what this is
    /s/<token>             the study, for the subject of that token (`server_pages.py`)
    /e/<token>             live counts, for the experimenter; /e/<token>/counts the same as JSON
    /alive                 whether the server is back, for pages that lost it

Voilà's other addresses (files, folders, notebooks, kernels by list) are not served at all. Tokens are checked before a
kernel is started, and are left out of the log. What a page may say to its kernel is decided in `gate.py`.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.web
from jupyter_core.utils import ensure_async
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server.utils import url_path_join
from tornado.log import gen_log
from traitlets.config import Config
from voila.app import Voila

from simgan_core.study.gate import FRAME_LIMIT, PROTOCOL, Refused, passed
from simgan_core.study.page import ALIVE, DATABASE, token_of_page
from simgan_core.study.server_pages import (
    HEADERS,
    WEB,
    Alive,
    Channels,
    ExperimenterCounts,
    ExperimenterPage,
    Extensions,
    Front,
    KernelState,
    NothingHere,
    StaticFiles,
    SubjectPage,
    WindowClosed,
    log_request,
)
from simgan_core.study.storage import StudyStore

KERNEL = r"(?P<kernel_id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
EXTENSIONS = ("@voila-dashboards/widgets-manager8", "@jupyter-widgets/jupyterlab-manager", "anywidget")
BODY_LIMIT = 64 * 1024  # bytes of a request
WINDOWS = 3  # kernels of one subject at the same time: a page being reloaded, and a second window
MOST_REFUSED_FRAMES = 20  # of one connection, which is closed then
PING_MS = 30_000  # an answer may take three of them: with one, each connection is closed at its first ping
IDLE_SECONDS = 300  # a kernel whose page is gone for so long is ended


@dataclass(frozen=True)
class Place:
    """Where the page is served."""

    host: str = "127.0.0.1"
    port: int = 8866
    base_url: str = "/"
    most_kernels: int = 40


class StudyServer(Voila):  # type: ignore[misc]  # Voilà has no types
    """Voilà with the addresses of a study and no others."""

    template_paths: list[str]

    def __init__(self, study: StudyStore, database: str, place: Place) -> None:
        base = "/" + place.base_url.strip("/") + "/" if place.base_url.strip("/") else "/"
        super().__init__(config=_configuration(), base_url=base, ip=place.host, port=place.port, open_browser=False)
        self.study = study
        self.place = place
        self.tokens = {token: participant for participant, token in study.tokens().items()}
        self.on_listening: Callable[[], None] = lambda: None
        self.kernels_of: dict[str, list[str]] = {}
        os.environ[DATABASE] = database  # kernels inherit it
        os.environ[ALIVE] = url_path_join(base, "alive")

    def run(self) -> None:
        """Serve until Ctrl-C or SIGTERM."""
        self.initialize([])
        self.start()

    def setup_template_dirs(self) -> None:
        """Put the study's own page before Voilà's."""
        super().setup_template_dirs()
        self.template_paths = [str(WEB / "template"), *self.template_paths]

    def init_handlers(self) -> list[Any]:
        """All addresses; anything else is answered by `NothingHere`."""
        page = {
            "notebook_path": Path(self.notebook_path).name, "template_paths": self.template_paths,
            "config": self.config, "voila_configuration": self.voila_configuration,
        }  # fmt: skip
        names = "|".join(map(re.escape, EXTENSIONS))
        routes: list[tuple[Any, ...]] = [
            ("/", Front),
            ("/alive", Alive),
            ("/s/([^/]*)", SubjectPage, page),
            ("/e/([^/]*)", ExperimenterPage),
            ("/e/([^/]*)/counts", ExperimenterCounts),
            (f"/api/kernels/{KERNEL}", KernelState),
            (f"/api/kernels/{KERNEL}/channels", Channels),
            (f"/voila/api/shutdown/{KERNEL}", WindowClosed),
            (r"/voila/static/([\w.-]+)", StaticFiles, {"paths": self.static_paths}),
            (rf"/voila/labextensions/((?:{names})/static/[\w.-]+)", Extensions,
             {"path": self.labextensions_path, "no_cache_paths": []}),
        ]  # fmt: skip
        return [(url_path_join(self.base_url, route), *rest) for route, *rest in routes]

    def start(self) -> None:
        """Serve until a signal ends it."""
        with tempfile.TemporaryDirectory(prefix="simgan-study-") as connections:
            self.connection_dir = connections
            settings = self.init_settings() | {
                "study_server": self, "default_handler_class": NothingHere, "log_function": log_request,
                "websocket_max_message_size": FRAME_LIMIT * 4, "ws_ping_interval": PING_MS,
                "ws_ping_timeout": 3 * PING_MS, "headers": HEADERS,
                "kernel_websocket_connection_class": GatedConnection, "server_header": False,
            }  # fmt: skip
            self.app = tornado.web.Application(**settings)
            self.app.add_handlers(".*$", self.init_handlers())
            self.listen()

    def listen(self) -> None:
        """Bind to exactly the port that was asked for (links name it), and run."""
        try:
            sockets = tornado.netutil.bind_sockets(self.place.port, self.place.host)
        except OSError as error:
            where = f"{self.place.host}:{self.place.port}"
            raise ValueError(
                f"cannot listen on {where} ({error.strerror}); end what listens there, or name another "
                "--port or --host."
            ) from error
        self.port = sockets[0].getsockname()[1]
        server = tornado.httpserver.HTTPServer(self.app, max_body_size=BODY_LIMIT, max_buffer_size=4 * BODY_LIMIT)
        server.add_sockets(sockets)
        self.ioloop = tornado.ioloop.IOLoop.current()
        unreadable = _Unreadable(self)
        gen_log.setLevel(logging.INFO)
        gen_log.addHandler(unreadable)
        self.on_listening()
        try:
            self.ioloop.start()
        except KeyboardInterrupt:
            pass
        finally:
            gen_log.removeHandler(unreadable)
            server.stop()
            self.ioloop.run_sync(self.kernel_manager.shutdown_all)

    @property
    def address(self) -> str:
        """Address of the front page."""
        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        return f"http://{host}:{self.port}{self.base_url}"

    def refuse(self, kind: Any, detail: str, participant: str | None = None) -> None:
        """Log a refusal: to the study's event log and to the server's."""
        self.log.warning("refused (%s): %s%s", kind, detail, "" if participant is None else f" [{participant}]")
        self.study.log_refusal(kind, detail if participant is None else f"{participant}: {detail}")

    def has_kernel(self, participant: str) -> bool:
        """Whether a kernel of this subject runs."""
        return any(kernel in self.kernel_manager for kernel in self.kernels_of.get(participant, []))

    async def make_room(self, participant: str) -> bool:
        """End the oldest kernels of a subject with too many windows; False when the server is full."""
        alive = set(self.kernel_manager.list_kernel_ids())
        self.kernels_of = {one: [k for k in kernels if k in alive] for one, kernels in self.kernels_of.items()}
        own = self.kernels_of.get(participant, [])
        while len(own) >= WINDOWS:
            await ensure_async(self.kernel_manager.shutdown_kernel(own.pop(0)))
        return len(self.kernel_manager.list_kernel_ids()) < self.place.most_kernels


def _configuration() -> Config:
    config = Config()
    config.VoilaConfiguration.template = "lab"
    config.VoilaConfiguration.theme = "light"
    config.VoilaConfiguration.allow_template_override = "NO"
    config.VoilaConfiguration.allow_theme_override = "NO"
    config.VoilaConfiguration.file_allowlist = []
    config.VoilaConfiguration.extension_allowlist = list(EXTENSIONS)
    config.VoilaConfiguration.multi_kernel_manager_class = SubjectKernels
    config.MappingKernelManager.cull_idle_timeout = IDLE_SECONDS
    config.MappingKernelManager.cull_interval = 60
    config.MappingKernelManager.cull_connected = False
    config.Voila.notebook_path = str(WEB / "subject.ipynb")
    config.KernelManager.transport = "ipc"  # files of this user, not ports that every user of the machine can reach
    config.Voila.identity_provider_class = NoAccounts
    config.Voila.root_dir = str(WEB)
    config.Voila.log_level = logging.WARNING
    return config


class _Unreadable(logging.Handler):
    """Requests that tornado refuses before any page sees them go to the study's log too, without what was sent."""

    def __init__(self, server: StudyServer) -> None:
        super().__init__(logging.INFO)
        self.server = server

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Unsatisfiable read") or "too long" in text:
            self.server.refuse("bad message", "an oversized request")
        elif text.startswith("Malformed HTTP message"):
            self.server.refuse("bad message", "a malformed request")


class NoAccounts(IdentityProvider):  # type: ignore[misc]
    """Nobody logs in: the token in the address is checked by the pages themselves, and no cookie is set."""

    def get_user(self, handler: Any) -> User:
        """The same for everybody."""
        return User("subject")

    @property
    def auth_enabled(self) -> bool:
        """No."""
        return False


class SubjectKernels(AsyncMappingKernelManager):  # type: ignore[misc]
    """Kernels, each noted with the subject that it was started for."""

    async def start_kernel(self, **arguments: Any) -> str:
        """Start a kernel for the token at the end of the page's address."""
        server: StudyServer = self.parent
        participant = server.tokens[token_of_page(str(arguments["env"]["SCRIPT_NAME"]))]
        kernel: str = await super().start_kernel(**arguments)
        server.kernels_of.setdefault(participant, []).append(kernel)
        return kernel


class GatedConnection(ZMQChannelsWebsocketConnection):  # type: ignore[misc]
    """A page's connection to its kernel, with the gate in between."""

    refused = 0

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """Send on what a kernel says, to a page that is there and speaks the protocol.

        To one that has just gone, or that never agreed on the protocol, an image would be written in the old protocol,
        whose first bytes Voilà takes for a number of parts: the server would count to 10^17 and serve nobody.
        """
        if self.subprotocol == PROTOCOL:
            super().handle_outgoing_message(stream, outgoing_msg)

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass a frame on, or refuse and log it."""
        try:
            if self.subprotocol != PROTOCOL:
                raise Refused(f"another protocol than {PROTOCOL}")
            frame = passed(incoming_msg)
        except Refused as refusal:
            self.refused += 1
            self.websocket_handler.refuse_frame(str(refusal), close=self.refused >= MOST_REFUSED_FRAMES)
            return
        super().handle_incoming_message(frame)
