"""What may pass from a page to its kernel: nothing that runs code, reads objects or sets traits."""

import json
from typing import Any

import pytest
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1

from simgan_core.study.gate import FRAME_LIMIT, Refused, passed
from simgan_core.study.load_client import frame


def raw(kind: str, content: Any, *, channel: str = "shell", header: Any = None, extra: tuple[bytes, ...] = ()) -> bytes:
    parts = [header or {"msg_type": kind, "msg_id": "1"}, {}, {}, content]
    made: bytes = serialize_msg_to_ws_v1([*(json.dumps(part).encode() for part in parts), *extra], channel)
    return made


def comm(**data: Any) -> dict[str, Any]:
    return {"comm_id": "a", "data": data}


@pytest.mark.parametrize(
    "good",
    [
        raw("kernel_info_request", {}), raw("comm_info_request", {"target_name": "jupyter.widget"}),
        raw("comm_open", {"comm_id": "a", "target_name": "jupyter.widget.control", "data": {}}),
        raw("comm_msg", comm(method="request_states")), raw("comm_close", {"comm_id": "a"}),
        frame("0" * 32, {"type": "consent"}),
    ],
)  # fmt: skip
def test_what_the_page_needs_passes_unchanged(good: bytes) -> None:
    channel, parts = deserialize_msg_from_ws_v1(passed(good))
    before = deserialize_msg_from_ws_v1(good)
    assert channel == before[0]
    assert [json.loads(part) for part in parts] == [json.loads(part) for part in before[1]]


@pytest.mark.parametrize(
    "bad",
    [
        raw("execute_request", {"code": "1"}), raw("inspect_request", {}), raw("complete_request", {}),
        raw("history_request", {}), raw("shutdown_request", {}, channel="control"), raw("debug_request", {}),
        raw("comm_msg", comm(method="custom"), channel="control"), raw("input_reply", {"value": "x"}, channel="stdin"),
        raw("comm_open", {"comm_id": "a", "target_name": "jupyter.widget", "data": {"state": {}}}),
        raw("comm_open", {"comm_id": "a", "target_module": "os", "target_name": "x"}),
        raw("comm_msg", comm(method="update", state={"alive_url": "x"})), raw("comm_msg", {"comm_id": "a", "data": []}),
        raw("comm_msg", comm(method="custom"), extra=(b"buffer",)), raw("comm_msg", comm(method=["custom"])),
        raw("comm_msg", []), raw("", {}, header=["execute_request"]),
        raw("comm_msg", comm(method="custom", x="y" * FRAME_LIMIT)), b"", b"\x06", b"\xff" * 64,
        b'{"channel": "shell"}',
        (6).to_bytes(8, "little") + b"\x00" * 64, '{"channel": "shell"}', None,
        raw("comm_msg", comm(method="custom"))[:-3],
    ],
)  # fmt: skip
def test_everything_else_is_refused(bad: Any) -> None:
    with pytest.raises(Refused):
        passed(bad)


def test_what_was_checked_is_what_the_kernel_reads() -> None:
    """Names that occur twice: parsers differ in which one counts, so the frame is written anew."""
    header = b'{"msg_type": "execute_request", "msg_type": "comm_msg"}'
    doubled = serialize_msg_to_ws_v1([header, b"{}", b"{}", json.dumps(comm(method="custom")).encode()], "shell")
    assert b"execute_request" not in passed(doubled)
