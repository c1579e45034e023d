"""Files of binary formats are parsed in a process of their own.

HDF5, zarr, parquet and Matrix Market are parsed by C code, and damaged files have been seen to make it
crash. That ends the reading process and not the user's. One process serves all calls; it is started on
the first and again after it died.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from stretrieve import errors
from stretrieve.errors import (
    MissingDependencyError,
    ResourceError,
    SectionError,
    StretrieveError,
    explain,
)
from stretrieve.spots.raw import RawSection, SpotTable
from stretrieve.spots.row import SheetRow
from stretrieve.spots.transport import load_names, load_section, load_table, row_to_dict

T = TypeVar("T")

TIMEOUT_S: Final = 1800.0
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from stretrieve.spots.reading_child import main; main()"
)
_END_S: Final = 5.0
_REMARK: Final = 300


def read_parts(name: str, row: SheetRow, *, timeout_s: float = TIMEOUT_S) -> RawSection:
    """Let the reading process read a section with the reader called ``name``.

    Raises
    ------
    InputError
        What the reader raises; also when it crashed or took longer than ``timeout_s``.
    """
    request = {"what": "section", "format": name, "row": row_to_dict(row)}
    return _ask(request, load_section, path=row.counts, timeout_s=timeout_s)


def read_table_apart(path: Path, *, timeout_s: float = TIMEOUT_S) -> SpotTable:
    """Let the reading process read spot positions in parquet.

    Raises
    ------
    InputError
        As :func:`read_parts`.
    """
    request = {"what": "positions", "path": str(path.absolute())}
    return _ask(request, load_table, path=path, timeout_s=timeout_s)


def read_names_apart(path: Path, *, timeout_s: float = TIMEOUT_S) -> tuple[list[str], list[str]]:
    """Let the reading process read gene ids and symbols.

    Raises
    ------
    InputError
        As :func:`read_parts`.
    """
    request = {"what": "genes", "path": str(path.absolute())}
    return _ask(request, load_names, path=path, timeout_s=timeout_s)


class _DiedError(Exception):
    """The reading process is gone."""


class _ReadingProcess:
    """One running reading process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._remarks: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
                [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._remarks,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._remarks.close()
            raise ResourceError(explain("reading process", got=f"not started ({error})")) from error

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, for example because somebody ended it while it was idle."""
        return self._process.poll() is not None

    def ask(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for the reply.

        Raises
        ------
        _DiedError
            When the process crashed or did not answer in time; it is gone then.
        """
        channel, answers = self._process.stdin, self._process.stdout
        if channel is None or answers is None:
            raise _DiedError("it has no pipes")
        try:
            channel.write(json.dumps(request).encode() + b"\n")
            channel.flush()
            line = self._line(answers, time.monotonic() + timeout_s)
            return dict(json.loads(line))
        except (OSError, ValueError) as error:
            raise _DiedError(self._obituary()) from error

    def _line(self, answers: IO[bytes], deadline: float) -> bytes:
        line = b""
        with selectors.DefaultSelector() as ready:
            ready.register(answers, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not ready.select(max(deadline - time.monotonic(), 0)):
                    self._process.kill()
                    raise _DiedError("it took too long")
                part = os.read(answers.fileno(), 1 << 16)
                if not part:
                    raise _DiedError(self._obituary())
                line += part
        return line

    def _obituary(self) -> str:
        self._end()
        code = self._process.returncode
        if code is not None and code < 0:
            return f"it crashed ({signal.Signals(-code).name})"
        self._remarks.seek(0)
        remark = self._remarks.read()[-_REMARK:].decode("utf-8", "replace").strip()
        return f"it ended with code {code} {' '.join(remark.splitlines()[-1:])}".strip()

    def _end(self) -> None:
        """End the process: kindly when it is idle, else by force."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process and let its files go."""
        self._end()
        self._remarks.close()


class _Service:
    """The one reading process of this process, guarded by a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _ReadingProcess | None = None

    def ask(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """Ask the reading process, starting it when there is none."""
        with self._lock:
            if self._process is not None and self._process.owner != os.getpid():
                self._process = None  # of the process that this one was forked from
            if self._process is not None and self._process.has_ended:
                self._end()
            if self._process is None:
                self._process = _ReadingProcess()
            try:
                return self._process.ask(request, timeout_s=timeout_s)
            except BaseException:
                self._process.kill()
                self._process = None
                raise

    def close(self) -> None:
        """End the reading process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.owner == os.getpid():
            self._process.close()
        self._process = None


_SERVICE: Final = _Service()
atexit.register(_SERVICE.close)


def _ask(request: dict[str, Any], load: Callable[[Path], T], *, path: Path, timeout_s: float) -> T:
    with tempfile.TemporaryDirectory(prefix="stretrieve-read-") as folder:
        try:
            reply = _SERVICE.ask({**request, "folder": folder}, timeout_s=timeout_s)
        except _DiedError as error:
            raise SectionError(
                explain(f"reading {path.name}", got=str(error), expected="an intact file")
            ) from error
        if "done" not in reply:
            raise _error_of(reply)
        return load(Path(folder))


def _error_of(reply: dict[str, Any]) -> Exception:
    """Return the error that a reading process reports, as its own class."""
    if "missing" in reply:
        return MissingDependencyError(*reply["missing"])
    kind = getattr(errors, str(reply.get("error", "")), None)
    if isinstance(kind, type) and issubclass(kind, StretrieveError):
        return kind(reply["message"])
    return RuntimeError(f"a section reader failed: {reply.get('bug', reply)}")
