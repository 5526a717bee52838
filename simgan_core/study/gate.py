"""What a subject's browser may say to its kernel: the widget's own messages, and nothing that runs code.

Voilà gives each page a Jupyter kernel behind a websocket. The kernel's protocol can execute code, complete names, read
objects and open widgets of any class; through it a subject could read the plan and the right answers. So each frame is
parsed here, before the kernel sees it, and passes only if it is one of the few kinds that the widget needs.
"""

from __future__ import annotations

import json
from typing import Any

from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1, serialize_msg_to_ws_v1

PROTOCOL = "v1.kernel.websocket.jupyter.org"
FRAME_LIMIT = 16 * 1024  # bytes; an answer has about 700
MESSAGE_TYPES = ("kernel_info_request", "comm_info_request", "comm_open", "comm_msg", "comm_close")
PARTS = 4  # header, parent header, metadata, content
CONTROL = "jupyter.widget.control"  # the comm through which a page asks for the state of its widgets
METHODS = ("custom", "request_states")  # of comm_msg: no 'update', so no trait can be set from outside


class Refused(ValueError):
    """A frame that must not reach the kernel; the message says why, without quoting what was sent."""


def passed(frame: object) -> bytes:
    """The frame as the kernel may see it: written anew, so that what was checked here is what is read there.

    Raises:
        Refused: it may not.

    """
    if not isinstance(frame, bytes):
        raise Refused("a text frame; expected the binary protocol")
    if len(frame) > FRAME_LIMIT:
        raise Refused(f"{len(frame)} bytes; expected at most {FRAME_LIMIT}")
    channel, parts = _parse(frame)
    header, content = parts[0], parts[3]
    if channel != "shell":
        raise Refused("another channel than shell")
    kind = header.get("msg_type")
    if kind not in MESSAGE_TYPES:
        raise Refused(f"message type {str(kind)[:40]!r}")
    if kind == "comm_open" and content.get("target_name") != CONTROL:
        raise Refused("comm_open of another target than the widgets' control")
    if kind == "comm_msg":
        data = content.get("data")
        method = data.get("method") if isinstance(data, dict) else None
        if method not in METHODS:
            raise Refused(f"comm_msg with method {str(method)[:40]!r}")
    written: bytes = serialize_msg_to_ws_v1([json.dumps(part).encode() for part in parts], channel)
    return written


def _parse(frame: bytes) -> tuple[str, list[dict[str, Any]]]:
    """Channel, and header, parent header, metadata and content."""
    if int.from_bytes(frame[:8], "little") != PARTS + 2:
        raise Refused("not header, parent, metadata and content alone; buffers are not accepted")
    try:
        channel, raw = deserialize_msg_from_ws_v1(frame)
        parts = [json.loads(part) for part in raw]
    except (ValueError, IndexError, RecursionError) as error:
        raise Refused("not a message of the kernel protocol") from error
    if len(parts) != PARTS or not all(isinstance(part, dict) for part in parts):
        raise Refused("a part that is not an object")
    return channel, parts
