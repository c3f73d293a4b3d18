"""Frames between the lab and the agent in a host: a JSON object and bytes, each with its length before it.

Used on both sides, so nothing but the standard library, from Python 3.11 on.
"""

import json
import struct
from collections.abc import Callable
from typing import Any

LENGTHS = struct.Struct("!II")
PORT = "vgicmgr.agent"
"""The virtio-serial port's name."""


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(payload)) + text + payload


def decode(read: Callable[[int], bytes]) -> tuple[dict[str, Any], bytes]:
    """The next frame; ``read`` returns exactly as many bytes as it is asked for, or raises."""
    text_length, payload_length = LENGTHS.unpack(read(LENGTHS.size))
    header: dict[str, Any] = json.loads(read(text_length))
    return header, read(payload_length)
