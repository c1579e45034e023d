"""A reader process as the user's process sees it: started, asked, timed, ended."""

from __future__ import annotations

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
    receive_exactly,
    receive_message,
    send_message,
)
from stretrieve.slides.readers.base import Header

BOOT: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from stretrieve.slides.worker import main; main(int(sys.argv[2]))"
)
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_BUFFER_BYTES: Final = 1 << 20
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
        self._remarks = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        ours, theirs = socket.socketpair()
        self._channel = ours
        try:
            self._process = self._start(theirs)
        except OSError as error:
            ours.close()
            self._remarks.close()
            raise ResourceError(explain("reader process", got=f"not started ({error})")) from error
        finally:
            theirs.close()
        self.header = self._open(path, timeout_s)

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        for side in (self._channel, theirs):
            side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        return subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-P", "-c", BOOT, _ROOT, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._remarks,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def _open(self, path: Path, timeout_s: float) -> Header:
        self._channel.settimeout(timeout_s)
        try:
            send_message(self._channel, {"path": os.fsencode(path.resolve()).hex()})
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
        """
        self._channel.settimeout(_END_S)
        payload = b"".join(JOB.pack(*job) for job in jobs)
        try:
            send_message(self._channel, {"jobs": len(jobs)}, payload)
        except (ClosedError, TimeoutError) as error:
            raise self._obituary(error, _END_S) from error

    def fetch(self, out: npt.NDArray[np.uint8], *, timeout_s: float) -> None:
        """Receive the pixels of the next job.

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
        try:
            kind, n_bytes = REPLY.unpack(receive_bytes(self._channel, REPLY.size))
            if kind == FAULT:
                raise ReaderFaultError(
                    receive_bytes(self._channel, n_bytes).decode(errors="replace")
                )
            _receive_pixels(self._channel, n_bytes, out)
        except (ClosedError, TimeoutError) as error:
            raise self._obituary(error, timeout_s) from error

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
        """End the process. It writes nothing, so there is nothing to wait for."""
        self._channel.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._remarks.close()

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid


def _receive_pixels(channel: socket.socket, n_bytes: int, out: npt.NDArray[np.uint8]) -> None:
    if n_bytes != out.nbytes:
        raise ClosedError
    receive_exactly(channel, out.data.cast("B"))


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
