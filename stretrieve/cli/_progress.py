"""Progress on stderr: live bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from stretrieve._progress import SILENT, Progress, Task

_SECONDS_BETWEEN_LINES = 30.0


class _PlainTask:
    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._note = ""
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self._done += n
        self._note = note or self._note
        if time.monotonic() >= self._next:
            self.write()
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def write(self, ending: str = "") -> None:
        of = f"/{self._total}" if self._total is not None else ""
        note = f" {self._note}" if self._note else ""
        sys.stderr.write(f"{self._label}: {self._done}{of}{note}{ending}\n")
        sys.stderr.flush()


class PlainProgress:
    """One line when a step ends, and one every half minute while it runs."""

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Begin a step."""
        task = _PlainTask(label, total)
        start = time.monotonic()
        yield task
        task.write(f" ({time.monotonic() - start:.1f} s)")


class RichProgress:
    """Live bars."""

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Begin a step."""
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import (
            Progress as Bars,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            task_id = bars.add_task(escape(label), total=total, note="")

            class _Bar:
                def advance(self, n: int = 1, *, note: str = "") -> None:
                    if note:
                        bars.update(task_id, note=escape(note))
                    bars.advance(task_id, n)

            yield _Bar()


def make_progress(*, quiet: bool) -> Progress:
    """Return the progress display that fits this terminal."""
    if quiet:
        return SILENT
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        return RichProgress()
    return PlainProgress()
