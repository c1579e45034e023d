"""The reader process: opens one file and answers requests for regions until the channel closes.

Slide files are decoded here and nowhere else, so that a file that makes a C library abort, hang or
eat memory ends this process and not the user's. It imports no more than the file's decoder needs.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from stretrieve._priority import step_back
from stretrieve.slides.limits import MAX_CHILD_BYTES, MAX_READ_PX
from stretrieve.slides.protocol import (
    FAULT,
    JOB,
    PIXELS,
    REPLY,
    ClosedError,
    Job,
    receive_bytes,
    receive_message,
    send_message,
)
from stretrieve.slides.readers.base import Reader, ReaderError
from stretrieve.slides.readers.choose import open_reader
from stretrieve.slides.shared import SharedBlock

_FAULTS = (
    ReaderError,
    OSError,
    ValueError,
    MemoryError,
    OverflowError,
    ArithmeticError,
    LookupError,
)
_ALIGNED_PX = 1e-3
_REDUCING_GAP = 3.0
_MAX_TEXT = 300
_PARENT_CHECK_S = 1.0


def main(descriptor: int) -> None:
    """Serve the channel of this file descriptor until it closes."""
    _protect()
    channel = socket.socket(fileno=descriptor)
    try:
        _serve(channel)
    except ClosedError:
        return


def _protect() -> None:
    """Bound the memory of this process, ignore Ctrl-C, step back and follow the parent into its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    step_back()
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = MAX_CHILD_BYTES if hard == resource.RLIM_INFINITY else min(hard, MAX_CHILD_BYTES)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


def _serve(channel: socket.socket) -> None:
    request = receive_message(channel)
    try:
        reader = open_reader(Path(os.fsdecode(bytes.fromhex(request["path"]))))
    except _FAULTS as error:
        send_message(channel, {"fault": _one_line(error)})
        return
    send_message(channel, {"header": reader.header.to_dict()})
    block = SharedBlock(int(request["block"]))
    while True:
        asked = receive_message(channel)
        jobs = receive_bytes(channel, int(asked["jobs"]) * JOB.size)
        block.follow(int(asked["block"]))
        place = 0
        for values in JOB.iter_unpack(jobs):
            job = Job(*values)
            _answer(channel, reader, job, memoryview(block.pixels)[place : place + job.out_bytes])
            place += job.out_bytes


def _answer(channel: socket.socket, reader: Reader, job: Job, out: memoryview) -> None:
    with out:
        try:
            pixels = sample(reader, job).tobytes()
            out[:] = pixels
        except _FAULTS as error:
            text = _one_line(error).encode()
            _send(channel, REPLY.pack(FAULT, len(text)), text)
        else:
            _send(channel, REPLY.pack(PIXELS, len(pixels)))


def _send(channel: socket.socket, *parts: bytes) -> None:
    try:
        for part in parts:
            channel.sendall(part)
    except ConnectionError as error:
        raise ClosedError from error


def sample(reader: Reader, job: Job) -> Image.Image:
    """Read the region of a job and resample the part to show.

    Parameters
    ----------
    reader
        The open file.
    job
        What to read.

    Returns
    -------
    Image
        ``out_width`` x ``out_height``, RGB.
    """
    if job.width * job.height > MAX_READ_PX:
        raise ReaderError(
            f"a read of {job.width} x {job.height} px; expected {MAX_READ_PX} px or less"
        )
    image = reader.read(job.level, (job.x, job.y), (job.width, job.height))
    box = (job.left, job.top, job.right, job.bottom)
    size = (job.out_width, job.out_height)
    whole = tuple(round(value) for value in box)
    aligned = all(abs(value - near) <= _ALIGNED_PX for value, near in zip(box, whole, strict=True))
    if aligned and (whole[2] - whole[0], whole[3] - whole[1]) == size:
        return image if whole == (0, 0, *image.size) else image.crop(box)
    return image.resize(
        size, resample=Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP
    )


def _one_line(error: BaseException) -> str:
    text: Any = str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:_MAX_TEXT]
