"""The reader processes of one slide: started on demand, replaced after a crash, shared by threads."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve._logging import get_logger
from stretrieve.errors import SlideError, explain
from stretrieve.slides.limits import ReaderLimits
from stretrieve.slides.process import (
    DeadReaderError,
    HungReaderError,
    ReaderFaultError,
    ReaderProcess,
)
from stretrieve.slides.protocol import Job
from stretrieve.slides.readers.base import Header
from stretrieve.slides.shared import BLOCK_BYTES

_log = get_logger(__name__)
_DECODED_PX_PER_S: Final = 5e6


class ReaderPool:
    """Reader processes of one file; the first one starts at once.

    Parameters
    ----------
    path
        The file.
    limits
        Timeouts and retries.

    Raises
    ------
    SlideError
        When the file cannot be opened.
    """

    def __init__(self, path: Path, limits: ReaderLimits) -> None:
        self.path = path
        self._file = path.resolve()  # the working folder may change before the next reader
        self._limits = limits
        self._free = threading.Condition()
        self._idle: list[ReaderProcess] = []
        self._warm: weakref.WeakSet[ReaderProcess] = weakref.WeakSet()
        self._n_live = 0
        self._n_crashes = 0
        self._n_hangs = 0
        self._is_closed = False
        first = self._open()
        self._n_live = 1
        self._idle.append(first)
        self.header: Header = first.header
        self._finalizer = weakref.finalize(self, _end_all, self._idle)

    def _name(self) -> str:
        return f"slide {str(self.path)!r}"

    def _open(self) -> ReaderProcess:
        for attempt in range(self._limits.retries + 1):
            try:
                return ReaderProcess(self._file, timeout_s=self._limits.open_timeout_s)
            except ReaderFaultError as error:
                raise SlideError(explain(self._name(), got=str(error))) from error
            except DeadReaderError as error:
                self._count_crash(error)
                if attempt == self._limits.retries:
                    raise SlideError(
                        explain(self._name(), got=f"while opening it the reader process {error}")
                    ) from error
        raise SlideError(explain(self._name(), got="not opened"))

    def _count_crash(self, error: DeadReaderError) -> None:
        hung = isinstance(error, HungReaderError)
        with self._free:
            self._n_hangs += hung
            self._n_crashes += not hung
            n_hangs, n_crashes = self._n_hangs, self._n_crashes
        _log.info("%s: a reader process %s", self._name(), error)
        if n_hangs > self._limits.max_hangs or n_crashes > self._limits.max_crashes:
            raise SlideError(
                explain(
                    self._name(),
                    got=f"{n_crashes} crashes and {n_hangs} hangs, the last reader {error}",
                )
            ) from error

    @contextlib.contextmanager
    def _borrow(self, max_processes: int) -> Iterator[ReaderProcess]:
        process = self._take(max_processes)
        try:
            yield process
        except BaseException:
            process.close()
            self._give(None)
            raise
        self._give(process if process.is_alive else None)

    def _take(self, max_processes: int) -> ReaderProcess:
        with self._free:
            while not self._idle and self._n_live >= max_processes and not self._is_closed:
                self._free.wait()
            if self._is_closed:
                raise SlideError(explain(self._name(), got="closed", expected="an open slide"))
            if self._idle:
                return self._idle.pop()
            self._n_live += 1
        try:
            return self._open()
        except BaseException:
            self._give(None)
            raise

    def _give(self, process: ReaderProcess | None) -> None:
        with self._free:
            if process is None or self._is_closed:
                self._n_live -= 1
            else:
                self._idle.append(process)
            self._free.notify()
        if process is not None and self._is_closed:
            process.close()

    def run(
        self,
        jobs: Sequence[Job],
        outs: Sequence[npt.NDArray[np.uint8]],
        *,
        max_processes: int = 1,
        retries: int | None = None,
    ) -> dict[int, str]:
        """Read regions in one reader process, waiting for a free one.

        Parameters
        ----------
        jobs
            What to read.
        outs
            One array ``(out_height, out_width, 3)`` a job, to be filled.
        max_processes
            How many processes may live at once.
        retries
            How often a job is tried again; ``None`` for as often as the limits say.

        Returns
        -------
        dict
            Position and reason of each job that failed after all retries; its array is left as it was.

        Raises
        ------
        SlideError
            When the file has crashed its readers too often, or cannot be opened any more.
        """
        reasons: dict[int, str] = {}
        tries = [0] * len(jobs)
        allowed = self._limits.retries if retries is None else retries
        todo = list(range(len(jobs)))
        while todo:
            now, later = _split(jobs, todo)
            with self._borrow(1 if self.header.whole_px else max_processes) as process:
                failed, left = self._pass(process, jobs, outs, now)
            for index, reason in failed.items():
                tries[index] += 1
                reasons[index] = reason
            again = [index for index in failed if tries[index] <= allowed]
            todo = again + left + later
            for index in again:
                del reasons[index]
        return reasons

    def _pass(
        self,
        process: ReaderProcess,
        jobs: Sequence[Job],
        outs: Sequence[npt.NDArray[np.uint8]],
        todo: list[int],
    ) -> tuple[dict[int, str], list[int]]:
        """Run jobs until all are done or the process dies; return failures and what is left."""
        failed: dict[int, str] = {}
        place = 0
        try:
            process.request([jobs[index] for index in todo])
            for place, index in enumerate(todo):  # noqa: B007 (used after a crash)
                try:
                    process.fetch(outs[index], timeout_s=self._timeout(process))
                except ReaderFaultError as error:
                    failed[index] = str(error)
        except DeadReaderError as error:
            self._count_crash(error)
            failed[todo[place]] = f"the reader process {error}"
            return failed, todo[place + 1 :]
        return failed, []

    def _timeout(self, process: ReaderProcess) -> float:
        if process in self._warm:
            return self._limits.read_timeout_s
        self._warm.add(process)
        return self._limits.read_timeout_s + self.header.whole_px / _DECODED_PX_PER_S

    def close(self) -> None:
        """End all processes; those at work end when their work is done."""
        with self._free:
            self._is_closed = True
            self._n_live -= len(self._idle)
            self._free.notify_all()
        self._finalizer()


def _split(jobs: Sequence[Job], todo: list[int]) -> tuple[list[int], list[int]]:
    """Cut a list of jobs where their pictures no longer fit into one block; one job always does."""
    total = 0
    for place, index in enumerate(todo):
        total += jobs[index].out_bytes
        if total > BLOCK_BYTES and place:
            return todo[:place], todo[place:]
    return todo, []


def _end_all(idle: list[ReaderProcess]) -> None:
    while idle:
        idle.pop().close()
