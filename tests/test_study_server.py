"""The server without a browser: who gets in, what is not served, and what a subject cannot do to a kernel."""

import asyncio
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tornado.web
import websockets
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from study_tools import NAMES, small_study, study_file
from test_study_gate import comm, raw

from simgan_core.study.gate import FRAME_LIMIT, PROTOCOL
from simgan_core.study.load_client import KERNEL_ID, MODEL_ID, Server, custom, frame, get_page
from simgan_core.study.server import PING_MS, Place, StudyServer
from simgan_core.study.server_pages import ExperimenterCounts, SubjectPage
from simgan_core.study.storage import StudyStore

HELLO = {"type": "hello", "session": None,
         "client": {"user_agent": "test", "window_width": 1, "window_height": 1, "pixel_ratio": 1}}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StudyStore, Server]]:
    study = small_study(tmp_path_factory.mktemp("served") / "study.db")
    server = Server(study_file(study))
    server.start()
    yield study, server
    log = server.stop()
    for token in (*study.tokens().values(), study.experimenter_token):
        assert token not in log, "whoever reads the log could take part"
    study.close()


def request(
    server: Server, path: str, method: str = "GET", body: bytes | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)  # as it is: no client cleans the path
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    reply = connection.getresponse()
    text = reply.read().decode("utf-8", "replace")
    connection.close()
    return reply.status, text, {name.lower(): value for name, value in reply.getheaders()}


def test_bad_and_foreign_tokens_get_a_clear_page_and_are_logged(place: tuple[StudyStore, Server]) -> None:
    study, server = place
    subject = next(iter(study.tokens().values()))
    wrong = [
        f"/s/{token}" for token in ("", "x", subject[:-1], subject + "x", study.experimenter_token, "%00", "..%2f..")
    ]
    wrong += [f"/e/{token}" for token in ("", "x", subject, study.experimenter_token[:-1])]
    wrong += [f"/e/{subject}/counts"]
    for path in wrong:
        before = len([event for event in study.events() if event["kind"] == "bad token"])
        status, text, headers = request(server, path)
        assert status == 403, path
        assert "not valid" in text
        assert "set-cookie" not in headers
        assert subject not in text and study.experimenter_token not in text
        assert len([event for event in study.events() if event["kind"] == "bad token"]) == before + 1, path


def test_experimenter_sees_counts_and_no_score(place: tuple[StudyStore, Server]) -> None:
    study, server = place
    status, page, headers = request(server, f"/e/{study.experimenter_token}")
    assert status == 200
    assert f"<h1>{study.settings.title}</h1>" in page and "<title>Study: live counts</title>" in page
    assert "'nonce-" in headers["content-security-policy"]
    status, text, _headers = request(server, f"/e/{study.experimenter_token}/counts")
    found = json.loads(text)
    assert status == 200 and len(found["subjects"]) == 4 and found["simulated"] is True
    assert not [word for word in ("right", "correct", "truth", "accuracy") if word in json.dumps(found["subjects"])]


def test_tokens_of_another_study_get_nobody_in_and_are_logged(place: tuple[StudyStore, Server], tmp_path: Path) -> None:
    study, server = place
    with small_study(tmp_path / "other.db") as other:
        tried = {f"/s/{next(iter(other.tokens().values()))}": "subject's page",
                 f"/e/{other.experimenter_token}": "experimenter's page",
                 f"/e/{other.experimenter_token}/counts": "experimenter's page"}  # fmt: skip
    for path, where in tried.items():
        before = len(study.events())
        assert request(server, path)[0] == 403
        newest, *rest = study.events()
        assert (newest["kind"], newest["detail"], len(rest)) == ("bad token", where, before), "once, without the token"


@pytest.mark.parametrize(
    "path",
    [
        "/s/%ff%fe", "/e/%c3%28", "/e/%ff/counts", "/voila/static/nothing.js", "/voila/static/..",
        "/voila/labextensions/anywidget/static/..", "/voila/labextensions/anywidget/static/nothing.js",
        "/voila/labextensions/anywidget/static/../../../../etc/passwd", "/voila/static/%2e%2e%2fsetup", "/%ff",
    ],
)  # fmt: skip
def test_invalid_text_and_path_tricks_are_in_the_log_once(place: tuple[StudyStore, Server], path: str) -> None:
    study, server = place
    before = len(study.events())
    assert request(server, path)[0] in (400, 403, 404)
    wait_for(lambda: len(study.events()) > before)
    assert len(study.events()) == before + 1
    event = study.events(1)[0]
    assert event["kind"] in ("bad message", "bad token") and event["detail"].isprintable()
    assert "static" not in path or "/voila/" in event["detail"], "it says what was asked for"


def test_a_mistyped_address_leaves_no_token_in_the_event_log(place: tuple[StudyStore, Server]) -> None:
    study, server = place
    tokens = (next(iter(study.tokens().values())), study.experimenter_token)
    for path in (
        f"/S/{tokens[0]}",
        f"/s//{tokens[0]}",
        f"/study/{tokens[0]}",
        f"/E/{tokens[1]}/counts",
        f"/{tokens[1]}",
    ):
        assert request(server, path)[0] == 404
        assert study.events(1)[0]["detail"].startswith("no such address: ") and "***" in study.events(1)[0]["detail"]
    assert not [event for event in study.events() if any(token in event["detail"] for token in tokens)]


def test_a_link_that_a_mail_program_encoded_is_that_link(place: tuple[StudyStore, Server]) -> None:
    study, server = place
    token = list(study.tokens().values())[2]
    status, text, _headers = request(server, f"/s/%{ord(token[0]):02x}{token[1:]}")
    assert status == 200 and KERNEL_ID.search(text)


@pytest.mark.parametrize("error", [OSError("disk I/O error of {}"), tornado.web.HTTPError(400, "no such thing: {}")])
def test_what_a_page_runs_into_is_logged_without_its_token(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    token = "Ab-_" * 10 + "Cd9"
    arguments = [str(one).format(token) for one in error.args]
    request = SimpleNamespace(path=f"/e/{token}/counts", method="GET", uri=f"/e/{token}/counts")
    try:
        raise type(error)(400, arguments[-1]) if isinstance(error, tornado.web.HTTPError) else type(error)(*arguments)
    except Exception:
        for page in (ExperimenterCounts, SubjectPage):
            page.log_exception(SimpleNamespace(request=request), *sys.exc_info())  # type: ignore[arg-type]
    assert caplog.text.count("GET /e/***/counts") == 2 and token not in caplog.text


def test_loopback_alone_by_default(place: tuple[StudyStore, Server]) -> None:
    psutil = pytest.importorskip("psutil")
    assert Place().host == "127.0.0.1"
    process = psutil.Process(place[1].pid)
    listening = {one.laddr.ip for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}, "`simgan study serve` without --host"


@pytest.mark.parametrize(
    "path",
    [
        "/voila/files/study.db", "/voila/static/../../../../../etc/passwd", "/voila/static/..%2f..%2fetc%2fpasswd",
        "/voila/labextensions/anywidget/static/../../../../../../etc/passwd", "/voila/render/subject.ipynb",
        "/voila/labextensions/anywidget/static/..%2f..%2f..%2fetc/passwd", "/login",
        "/voila/labextensions/anywidget/package.json",
        "/voila/api/contents/", "/voila/templates/lab/static/index.css", "/voila/execution/x", "/voila/query/x",
        "/voila/tree/", "/tree",
        "/api/kernels", "/api/contents", "/api/sessions", "/api/kernelspecs", "/lab", "/subject.ipynb",
        "/images/../../study.db", "/s/../../../etc/passwd", "//etc/passwd", "/static/style.css", "/files/study.db",
    ],
)  # fmt: skip
def test_nothing_else_is_served(place: tuple[StudyStore, Server], path: str) -> None:
    status, text, _headers = request(place[1], path)
    assert status in (403, 404), text[:200]
    assert "root:" not in text and "subject_page" not in text and "Traceback" not in text


def test_kernels_can_not_be_started_listed_or_driven_over_http(place: tuple[StudyStore, Server]) -> None:
    server = place[1]
    kernel = "00000000-0000-0000-0000-000000000000"
    for method, path in (("POST", "/api/kernels"), ("POST", f"/api/kernels/{kernel}/restart"),
                         ("POST", f"/api/kernels/{kernel}/interrupt"), ("DELETE", f"/api/kernels/{kernel}"),
                         ("PUT", "/voila/api/contents/x"), ("POST", f"/api/kernels/{kernel}/execute")):  # fmt: skip
        status, _text, _headers = request(server, path, method, b"{}")
        assert status in (403, 404, 405), (method, path)


def refusals(study: StudyStore) -> int:
    return len([event for event in study.events() if event["kind"] == "bad message"])


@pytest.mark.parametrize(("lines", "length"), [({}, 300_000), ({"X-Long": "x" * 100_000}, 0), ({"Bad": "\x01"}, 0)])
def test_oversized_and_malformed_requests_are_refused_and_logged(
    place: tuple[StudyStore, Server], lines: dict[str, str], length: int
) -> None:
    study, server = place
    before = refusals(study)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", "/", b"x" * length, lines)
        assert connection.getresponse().status in (400, 413, 431)
    except (ConnectionError, http.client.HTTPException):
        pass  # cut off while sending
    finally:
        connection.close()
    wait_for(lambda: refusals(study) == before + 1)
    assert request(server, "/alive")[1] == "alive"


def wait_for(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def test_page_is_private_and_self_contained(place: tuple[StudyStore, Server]) -> None:
    study, server = place
    name, token = list(study.tokens().items())[1]
    status, text, headers = request(server, f"/s/{token}")
    assert status == 200
    assert "set-cookie" not in headers, "no cookie without need"
    assert headers["referrer-policy"] == "no-referrer", "the address is a secret"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    for word in ("https://", "subject_page", "study.db", name, *NAMES):
        assert word not in text, word


def test_a_killed_server_leaves_nobody_in_a_window(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study.db", subjects=1)
    server = Server(study_file(study))
    server.start()

    def live() -> bool:
        counts = json.loads(request(server, f"/e/{study.experimenter_token}/counts")[1])
        return bool(counts["subjects"][0]["live"])

    asyncio.run(conversation(server, next(iter(study.tokens().values())), []))
    assert live(), "its kernel waits for the page to come back"
    server.kill()
    server.start()
    assert not live() and study.counts()[0]["live"], "the session that nobody ended is still there"
    server.stop()
    study.close()


async def conversation(server: Server, token: str, frames: list[Any]) -> tuple[list[Any], str]:
    """Open a subject's page, send frames, and say hello last; what came back until its answer, and the model."""
    text = await asyncio.to_thread(get_page, f"{server.address}/s/{token}")
    kernel, model = KERNEL_ID.search(text), MODEL_ID.search(text)
    assert kernel is not None and model is not None
    url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel[1]}/channels?session_id=x"
    received: list[Any] = []
    async with websockets.connect(
        url, subprotocols=[websockets.Subprotocol(PROTOCOL)], origin=websockets.Origin(server.address)
    ) as connection:
        for one in frames:
            await connection.send(one)
        await connection.send(frame(model[1], HELLO))
        while True:
            message = await asyncio.wait_for(connection.recv(), 60)
            received.append(message)
            content = custom(message, model[1])
            if content is not None and content["type"] == "screen":
                return received, model[1]


def test_subject_can_not_run_code_in_the_kernel(place: tuple[StudyStore, Server], tmp_path: Path) -> None:
    """The kernel knows the plan. Each way in is tried on a kernel that runs, which then still serves its page."""
    study, server = place
    token = list(study.tokens().values())[2]
    proof = tmp_path / "proof"
    code = {
        "code": f"open({str(proof)!r}, 'w')",
        "silent": False,
        "store_history": False,
        "user_expressions": {"a": "1"},
    }
    attempts = [
        raw("execute_request", code), raw("execute_request", code, channel="control"),
        raw("inspect_request", {"code": "os"}),
        raw("complete_request", {"code": "os."}), raw("debug_request", code, channel="control"),
        raw("comm_open", {"comm_id": "a", "target_name": "jupyter.widget", "data": {"state": {}}}),
        serialize_msg_to_ws_v1([b'{"msg_type": "comm_msg", "msg_type": "execute_request"}', b"{}", b"{}",
                                json.dumps(code).encode()], "shell"),
        json.dumps({"header": {"msg_type": "execute_request"}, "content": code, "channel": "shell"}), b"\x00" * 40,
        raw("comm_msg", comm(method="custom", padding="x" * FRAME_LIMIT)),
    ]  # fmt: skip
    before = len(study.events())
    received, _model = asyncio.run(conversation(server, token, attempts))
    kinds = {json.loads(part)["msg_type"] for part in map(_header, received) if part}
    assert not kinds & {"execute_reply", "execute_result", "error", "inspect_reply", "complete_reply", "debug_reply"}
    assert not proof.exists()
    refused = [event for event in study.events() if event["kind"] == "bad message"]
    assert len(study.events()) - before >= len(attempts) and len(refused) >= len(attempts)


def test_a_listener_with_the_old_protocol_does_not_stop_the_server(tmp_path: Path) -> None:
    """Images reach every connection of a kernel; also one that closes at that moment counts as of the old protocol."""
    study = small_study(tmp_path / "study.db", subjects=1)
    server = Server(study_file(study))
    server.start()

    async def listen() -> None:
        text = await asyncio.to_thread(get_page, f"{server.address}/s/{next(iter(study.tokens().values()))}")
        kernel, model = KERNEL_ID.search(text), MODEL_ID.search(text)
        assert kernel is not None and model is not None
        url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel[1]}/channels?session_id="
        origin = websockets.Origin(server.address)
        async with (
            websockets.connect(url + "old", origin=origin),
            websockets.connect(url + "page", origin=origin, subprotocols=[websockets.Subprotocol(PROTOCOL)]) as page,
        ):
            for message in (HELLO, {"type": "consent"}, {"type": "start"}):
                await page.send(frame(model[1], message))
            content = None
            while content is None or content["type"] != "trial":
                content = custom(await asyncio.wait_for(page.recv(), 20), model[1])

    try:
        asyncio.run(listen())
        assert request(server, "/alive")[1] == "alive"
    finally:
        server.kill()
        server.stop()
        study.close()


@pytest.mark.slow
def test_a_window_in_which_nothing_happens_keeps_its_connection(place: tuple[StudyStore, Server]) -> None:
    """Beyond the first ping: somebody thinks about an image for as long as that."""
    study, server = place

    async def wait() -> str:
        text = await asyncio.to_thread(get_page, f"{server.address}/s/{list(study.tokens().values())[1]}")
        kernel, model = KERNEL_ID.search(text), MODEL_ID.search(text)
        assert kernel is not None and model is not None
        url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel[1]}/channels?session_id=x"
        async with websockets.connect(
            url, subprotocols=[websockets.Subprotocol(PROTOCOL)], origin=websockets.Origin(server.address)
        ) as page:
            await asyncio.sleep(PING_MS / 1000 + 3)
            await page.send(frame(model[1], HELLO))
            while (content := custom(await asyncio.wait_for(page.recv(), 30), model[1])) is None:
                pass
            return str(content["type"])

    assert asyncio.run(wait()) in ("setup", "screen")


def _header(message: Any) -> bytes | None:
    from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1

    return deserialize_msg_from_ws_v1(message)[1][0] if isinstance(message, bytes) else None


@pytest.mark.parametrize("size", [FRAME_LIMIT * 5, FRAME_LIMIT * 200])
def test_huge_frames_end_the_connection_and_are_logged(place: tuple[StudyStore, Server], size: int) -> None:
    study, server = place
    token = list(study.tokens().values())[3]
    before = refusals(study)
    with pytest.raises((websockets.ConnectionClosed, ConnectionError)):
        asyncio.run(conversation(server, token, [b"x" * size]))
    wait_for(lambda: refusals(study) == before + 1)
    assert "too large" in study.events(1)[0]["detail"]


def test_other_sites_can_not_connect(place: tuple[StudyStore, Server]) -> None:
    study, server = place
    token = list(study.tokens().values())[3]
    kernel = KERNEL_ID.search(get_page(f"{server.address}/s/{token}"))
    assert kernel is not None
    url = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel[1]}/channels"

    async def connect(origin: str | None, url: str) -> None:
        async with websockets.connect(url, origin=websockets.Origin(origin) if origin else None):
            pass

    for origin in ("http://evil.example", None):
        with pytest.raises(websockets.InvalidStatus, match="40[34]"):
            asyncio.run(connect(origin, url))
    with pytest.raises(websockets.InvalidStatus, match="40[34]"):
        asyncio.run(connect(server.address, url.replace(kernel[1], "00000000-0000-0000-0000-000000000000")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tornado leaves its socket open
def test_a_port_that_is_taken_is_named(place: tuple[StudyStore, Server], tmp_path: Path) -> None:
    study, server = place
    second = StudyServer(study, str(tmp_path / "s.db"), Place("127.0.0.1", server.port, "/", 1))
    with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1:{server.port} .* name another --port"):
        second.listen()
