"""A reader process as the user's process sees it: started, asked, timed, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ResourceError, explain
from stretrieve.slides.protocol import (
    FAULT,
    JOB,
    REPLY,
    ClosedError,
    Job,
    receive_bytes,
    receive_message,
    send_message,
)
from stretrieve.slides.readers.base import Header
from stretrieve.slides.shared import SharedBlock

BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from stretrieve.slides.worker import main; main(int(sys.argv[2]))"
)
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_REMARK_BYTES: Final = 2_000
_END_S: Final = 5.0


class DeadReaderError(Exception):
    """A reader process crashed or did not answer in time; it is gone."""


class HungReaderError(DeadReaderError):
    """A reader process did not answer in time; it is gone."""


class ReaderFaultError(Exception):
    """A reader process refused a file or could not read a region; it is alive."""


class ReaderProcess:
    """One running reader process and its open file.

    Parameters
    ----------
    path
        The slide.
    timeout_s
        Seconds to open it.

    Raises
    ------
    ReaderFaultError
        When the file cannot be used.
    DeadReaderError
        When the process crashed or hung while opening it.
    ResourceError
        When no process can be started.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        with contextlib.ExitStack() as undo:
            try:
                self._remarks = undo.enter_context(tempfile.TemporaryFile())
                self._block = SharedBlock.create()
                undo.callback(self._block.close)
                self._channel, theirs = socket.socketpair()
                undo.callback(self._channel.close)
                with theirs:
                    self._process = self._start(theirs)
            except OSError as error:
                raise ResourceError(
                    explain("reader process", got=f"not started ({error})")
                ) from error
            undo.pop_all()
        self._place = 0
        self.header = self._open(path, timeout_s)

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-P", "-c", BOOT, _ROOT, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._remarks,
            pass_fds=(theirs.fileno(), self._block.descriptor),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def _open(self, path: Path, timeout_s: float) -> Header:
        self._channel.settimeout(timeout_s)
        name = os.fsencode(path.resolve()).hex()
        try:
            send_message(self._channel, {"path": name, "block": self._block.descriptor})
            reply = receive_message(self._channel)
        except (ClosedError, TimeoutError, ValueError) as error:
            raise self._obituary(error, timeout_s) from error
        except BaseException:
            self.close()
            raise
        if "fault" in reply:
            self.close()
            raise ReaderFaultError(str(reply["fault"]))
        return Header.from_dict(reply["header"])

    def request(self, jobs: Sequence[Job]) -> None:
        """Ask for regions; their pixels are fetched one by one with :meth:`fetch`.

        Raises
        ------
        DeadReaderError
            When the process is gone.
        ResourceError
            When there is no memory for the pixels.
        """
        self._channel.settimeout(_END_S)
        payload = b"".join(JOB.pack(*job) for job in jobs)
        wanted = sum(job.out_bytes for job in jobs)
        try:
            size = self._block.resize(wanted)
        except OSError as error:
            raise ResourceError(
                explain("memory for pixels", got=f"{wanted} bytes refused ({error})")
            ) from error
        self._place = 0
        try:
            send_message(self._channel, {"jobs": len(jobs), "block": size}, payload)
        except (ClosedError, TimeoutError) as error:
            raise self._obituary(error, _END_S) from error

    def fetch(self, out: npt.NDArray[np.uint8], *, timeout_s: float) -> None:
        """Take the pixels of the next job.

        Parameters
        ----------
        out
            ``(out_height, out_width, 3)`` array to fill.
        timeout_s
            Seconds to wait.

        Raises
        ------
        ReaderFaultError
            When the region could not be read.
        DeadReaderError
            When the process crashed or hung; it is gone.
        """
        self._channel.settimeout(timeout_s)
        place = self._place
        self._place += out.nbytes
        try:
            kind, n_bytes = REPLY.unpack(receive_bytes(self._channel, REPLY.size))
            if kind == FAULT:
                raise ReaderFaultError(
                    receive_bytes(self._channel, n_bytes).decode(errors="replace")
                )
        except (ClosedError, TimeoutError) as error:
            raise self._obituary(error, timeout_s) from error
        if n_bytes != out.nbytes:
            raise self._obituary(ClosedError(), timeout_s)
        pixels = np.frombuffer(self._block.pixels, np.uint8, count=out.nbytes, offset=place)
        out[...] = pixels.reshape(out.shape)

    def _obituary(self, error: Exception, timeout_s: float) -> DeadReaderError:
        """End the process and say what it died of."""
        if isinstance(error, TimeoutError):
            self.close()
            return HungReaderError(f"did not answer within {timeout_s:g} s")
        try:
            code = self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            code = 0
        remark = self._last_remark()
        self.close()
        return DeadReaderError(f"crashed ({_cause(code)}){remark and ': '}{remark}")

    def _last_remark(self) -> str:
        end = self._remarks.seek(0, os.SEEK_END)
        self._remarks.seek(max(0, end - _REMARK_BYTES))
        lines = self._remarks.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return "".join(c for c in said[-1] if c.isprintable())[:200] if said else ""

    def close(self) -> None:
        """End the process, without waiting longer than a moment for one that the kernel holds."""
        self._channel.close()
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_END_S)
        self._remarks.close()
        self._block.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
