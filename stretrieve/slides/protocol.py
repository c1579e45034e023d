"""What the user's process and a reader process say to each other over a socket.

Every message begins with its length. Requests and headers are JSON; jobs are raw numbers. Pixels lie in
a block of memory that both see, one region after the other, and only word of them crosses the socket.
Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final, NamedTuple

_LENGTH: Final = struct.Struct("<I")
_MAX_MESSAGE_BYTES: Final = 1 << 20
REPLY: Final = struct.Struct("<BI")
"""Outcome of one job and the size of its pixels, or of the text that follows."""
PIXELS: Final = 0
FAULT: Final = 1


class Job(NamedTuple):
    """One region to read and to resample.

    Parameters
    ----------
    level
        Level to read.
    x, y
        Top left corner of the region, level-0 px.
    width, height
        Size of the region, in pixels of the level.
    left, top, right, bottom
        Part of the region to show, in its pixels; may begin and end within a pixel.
    out_width, out_height
        Size of the picture to return.
    """

    level: int
    x: int
    y: int
    width: int
    height: int
    left: float
    top: float
    right: float
    bottom: float
    out_width: int
    out_height: int

    @property
    def out_bytes(self) -> int:
        """Size of the picture, RGB."""
        return 3 * self.out_width * self.out_height


JOB: Final = struct.Struct("<5q4d2q")


class ClosedError(Exception):
    """The other side is gone."""


def receive_exactly(channel: socket.socket, view: memoryview) -> None:
    """Fill ``view`` from the channel.

    Raises
    ------
    ClosedError
        When the other side is gone.
    TimeoutError
        When nothing came within the channel's timeout.
    """
    while view:
        try:
            n = channel.recv_into(view)
        except ConnectionError as error:
            raise ClosedError from error
        if n == 0:
            raise ClosedError
        view = view[n:]


def receive_bytes(channel: socket.socket, n_bytes: int) -> bytes:
    """Return the next ``n_bytes`` of the channel."""
    data = bytearray(n_bytes)
    receive_exactly(channel, memoryview(data))
    return bytes(data)


def send_message(channel: socket.socket, message: dict[str, Any], payload: bytes = b"") -> None:
    """Send a JSON message, followed by raw bytes that it announces.

    Raises
    ------
    ClosedError
        When the other side is gone.
    """
    text = json.dumps(message).encode()
    try:
        channel.sendall(_LENGTH.pack(len(text)) + text + payload)
    except ConnectionError as error:
        raise ClosedError from error


def receive_message(channel: socket.socket) -> dict[str, Any]:
    """Return the next JSON message.

    Raises
    ------
    ClosedError
        When the other side is gone or does not keep to the protocol.
    """
    (length,) = _LENGTH.unpack(receive_bytes(channel, _LENGTH.size))
    if length > _MAX_MESSAGE_BYTES:
        raise ClosedError
    message = json.loads(receive_bytes(channel, length))
    if not isinstance(message, dict):
        raise ClosedError
    return message
