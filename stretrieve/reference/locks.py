"""One writer at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stretrieve.errors import BusyError, InputError, explain


@contextlib.contextmanager
def writer_lock(path: Path, *, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a writer while the block runs; the system releases it if the process dies.

    Parameters
    ----------
    path
        The lock file.
    what
        What is written to, for the message.
    wait_s
        Seconds to wait for another writer.

    Raises
    ------
    BusyError
        When another process holds the lock.
    InputError
        When the place cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=wait_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(
            explain(what, got="another process that writes to it", remedy="wait until it is done")
        ) from error
    except OSError as error:
        raise InputError(
            explain(what, got=error.strerror or error, expected="a place that can be written to")
        ) from error
    try:
        yield
    finally:
        lock.release()
