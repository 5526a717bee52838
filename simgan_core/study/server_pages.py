"""The addresses of a study's page: for subjects, for the experimenter, and a clear refusal for everything else."""

from __future__ import annotations

import html
import json
import re
import secrets
import traceback
from pathlib import Path
from string import Template
from types import TracebackType
from typing import TYPE_CHECKING, Any

import tornado.ioloop
import tornado.web
from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import FileFindHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from tornado.log import access_log, app_log
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

if TYPE_CHECKING:
    from simgan_core.study.server import StudyServer

WEB = Path(__file__).parent / "web"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
EXPERIMENTER_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "no-store",
}
AWAY_SECONDS = 20  # that a page may lose its websocket, say in a tunnel, before its kernel is ended
TOO_BIG = 1009  # what the websocket protocol calls it
_SECRET_PATH = re.compile(r"(/[se]/+)[^/?\s]+", re.IGNORECASE)
_TOKEN = re.compile(r"[\w-]{43,}", re.ASCII)  # 256 bits in base64url, also where an address was mistyped around it


def redacted(text: str) -> str:
    """`text` without tokens: who reads a log must not be able to take part."""
    return _TOKEN.sub("***", _SECRET_PATH.sub(r"\1***", text))


def log_failure(
    handler: tornado.web.RequestHandler,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Log what a page ran into; tornado would write the whole request, its address included."""
    request = f"{handler.request.method} {redacted(handler.request.path)}"
    if isinstance(error, tornado.web.HTTPError):
        access_log.warning("%d %s: %s", error.status_code, request, redacted(error.get_message() or ""))
    else:
        app_log.error("%s\n%s", request, redacted("".join(traceback.format_exception(kind, error, trace))))


def log_request(handler: tornado.web.RequestHandler) -> None:
    """Log failed requests, without tokens: who reads the log must not be able to take part.

    A refusal also goes to the study's event log, unless its page has written it there in better words.
    """
    status = handler.get_status()
    if status < 400:
        return
    path, method = redacted(handler.request.path)[:120], handler.request.method
    access_log.warning("%d %s %s %s", status, method, path, handler.request.remote_ip)
    if status < 500 and not getattr(handler, "refusal_is_logged", False):
        server: StudyServer = handler.settings["study_server"]
        server.refuse("bad message", f"{status} {method} {path!r}")


class _Plain(tornado.web.RequestHandler):
    """A page without Jupyter."""

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    @property
    def server(self) -> StudyServer:
        found: StudyServer = self.settings["study_server"]
        return found

    def say(self, status: int, title: str, text: str) -> None:
        """Answer with a short page for people."""
        self.set_status(status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(message_page(title, text))

    def write_error(self, status_code: int, **_arguments: Any) -> None:
        self.say(status_code, "This did not work", "The server could not answer this request.")

    def log_exception(self, *error: Any) -> None:
        log_failure(self, *error)


def message_page(title: str, text: str) -> str:
    """A short page for people."""
    return Template((WEB / "message.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title), text=html.escape(text)
    )


class Front(_Plain):
    """The address without a token."""

    def get(self) -> None:
        """Say what this is."""
        self.say(200, "A study on pictures", "To take part, please open the link that you were given.")


class Alive(_Plain):
    """For pages that lost their server."""

    def get(self) -> None:
        """Say that the server is there."""
        self.set_header("Content-Type", "text/plain")
        self.finish("alive")


class NothingHere(_Plain):
    """Every address that the study does not have."""

    def prepare(self) -> None:
        """Refuse whatever the method."""
        path = redacted(self.request.path)
        self.server.refuse("unknown image" if "image" in path else "bad message", f"no such address: {path[:120]!r}")
        self.refusal_is_logged = True
        self.say(404, "There is nothing here", "Please open the link that you were given.")


class SubjectPage(TornadoVoilaHandler):  # type: ignore[misc]
    """The study, for one subject."""

    def _request_summary(self) -> str:
        return redacted(str(super()._request_summary()))

    def log_exception(self, *error: Any) -> None:
        """Without the token."""
        log_failure(self, *error)

    async def get(self, path: str = "") -> None:
        """Check the token, then let Voilà start a kernel and write the page."""
        server: StudyServer = self.settings["study_server"]
        participant = server.tokens.get(path)
        if participant is None:
            server.refuse("bad token", "subject's page")
            self.refusal_is_logged = True
            self.say(
                403, "This link is not valid", "Please check that the whole address was copied, or ask for it again."
            )
            return
        if not await server.make_room(participant):
            server.log.warning("full: %d kernels are running", server.place.most_kernels)
            self.set_header("Retry-After", "60")
            self.say(503, "The study is full at the moment", "Please try again in a few minutes.")
            return
        async for part in self.get_generator(path=None):
            self.write(part)
            self.flush()

    def say(self, status: int, title: str, text: str) -> None:
        """Answer with a short page for people."""
        self.set_status(status)
        self.finish(message_page(title, text))

    def write_error(self, status_code: int, **_arguments: Any) -> None:
        """Show no traceback and no address."""
        self.say(status_code, "This did not work", "Please load the page again in a minute.")


class Channels(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """The websocket of a page; its kernel's id is a random number that only this page knows."""

    async def get(self, kernel_id: str) -> None:
        """Open it for a kernel that runs, for a page of this server."""
        if self.request.headers.get("Origin") is None or kernel_id not in self.kernel_manager:
            server: StudyServer = self.settings["study_server"]
            server.refuse("bad message", "websocket without origin, or to a kernel that does not run")
            self.refusal_is_logged = True
            raise tornado.web.HTTPError(403)
        await super().get(kernel_id=kernel_id)

    def get_websocket_protocol(self) -> Any:
        """The connection, which also notes a message that is too large to be read at all."""
        protocol = super().get_websocket_protocol()
        if protocol is not None:
            end = protocol.close

            def close(code: int | None = None, reason: str | None = None) -> None:
                if code == TOO_BIG:
                    self.refuse_frame("a message too large to be read", close=False)
                end(code, reason)

            protocol.close = close
        return protocol

    def on_close(self) -> None:
        """A page that is closed does not always say so: one that stays away loses its kernel, and so its session."""
        super().on_close()
        tornado.ioloop.IOLoop.current().call_later(AWAY_SECONDS, self._end_if_left)

    async def _end_if_left(self) -> None:
        manager, kernel = self.kernel_manager, self.kernel_id
        if kernel in manager and not manager.kernel_model(kernel)["connections"]:
            await ensure_async(manager.shutdown_kernel(kernel))

    def refuse_frame(self, reason: str, *, close: bool) -> None:
        """Log a frame that the gate refused; end a connection with too many of them."""
        server: StudyServer = self.settings["study_server"]
        server.refuse("bad message", reason, participant=_participant(server, self.kernel_id))
        if close:
            self.close(1008, "too many refused messages")


class KernelState(KernelHandler):  # type: ignore[misc]
    """Voilà's page asks once whether its kernel runs; it may not do more."""

    async def delete(self, kernel_id: str) -> None:
        """Refuse."""
        raise tornado.web.HTTPError(405)


class WindowClosed(_Plain):
    """What a page posts when it is left."""

    async def post(self, kernel_id: str) -> None:
        """End its kernel, and with it the session."""
        if kernel_id in self.server.kernel_manager:
            await ensure_async(self.server.kernel_manager.shutdown_kernel(kernel_id))
        self.set_status(204)


class StaticFiles(MultiStaticFileHandler):  # type: ignore[misc]
    """Voilà's own scripts."""


class Extensions(FileFindHandler):  # type: ignore[misc]
    """The scripts of ipywidgets and anywidget."""


class _ForExperimenter(_Plain):
    def allowed(self, token: str) -> bool:
        """Whether the token is the experimenter's; answers the request if not."""
        if self.server.study.is_experimenter(token):
            return True
        self.server.log.warning("refused (bad token): experimenter's page")
        self.refusal_is_logged = True  # by the store
        self.say(403, "This link is not valid", "It is not the experimenter's.")
        return False


class ExperimenterPage(_ForExperimenter):
    """Live counts."""

    def get(self, token: str) -> None:
        """Write the page; it asks for the counts itself."""
        if self.allowed(token):
            nonce = secrets.token_urlsafe(16)
            self.set_header("Content-Security-Policy", EXPERIMENTER_POLICY.format(nonce=nonce))
            page = Template((WEB / "experimenter.html").read_text(encoding="utf-8"))
            self.finish(page.substitute(title=html.escape(self.server.study.settings.title), nonce=nonce))


class ExperimenterCounts(_ForExperimenter):
    """The counts as JSON."""

    def get(self, token: str) -> None:
        """One row per subject; no row says how many answers were right."""
        if self.allowed(token):
            study = self.server.study
            events = [event | {"detail": event["detail"][:160]} for event in study.events(20)]
            # A killed server or kernel leaves sessions open that nobody is in.
            rows = [
                row | {"live": row["live"] and self.server.has_kernel(row["participant"])} for row in study.counts()
            ]
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps({"simulated": study.simulated, "subjects": rows, "events": events,
                                    "kernels": len(self.server.kernel_manager.list_kernel_ids())}))  # fmt: skip


def _participant(server: StudyServer, kernel_id: str) -> str | None:
    return next((one for one, kernels in server.kernels_of.items() if kernel_id in kernels), None)
