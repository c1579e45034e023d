"""How long work reports what it does; the command line draws it, the library never does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Task(Protocol):
    """One running step."""

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Report ``n`` more units done, with an optional short note (a loss, a rate)."""


class Progress(Protocol):
    """Receiver of progress."""

    def task(self, label: str, total: int | None = None) -> contextlib.AbstractContextManager[Task]:
        """Begin a step of ``total`` units (``None``: unknown) that ends with the block."""


class _SilentTask:
    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Do nothing."""


class SilentProgress:
    """Progress that nobody watches; the default of every library call."""

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Yield a task that ignores what it is told."""
        del label, total
        yield _SilentTask()


SILENT: Progress = SilentProgress()
