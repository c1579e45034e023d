"""One writer at a time; readers mark the version that they use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


class VersionPin:
    """A shared lock on the manifest of a version, held until closed or forgotten.

    Parameters
    ----------
    path
        Manifest of the version.

    Raises
    ------
    FileNotFoundError
        When the version is gone, or is being deleted right now.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        fcntl = _fcntl()
        if fcntl is None:
            return
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise FileNotFoundError(path) from error
        except OSError:  # a file system without locks: nothing protects the version from compaction
            self.close()
        if not path.exists():
            self.close()
            raise FileNotFoundError(path)

    def close(self) -> None:
        """Let go of the version."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Yield whether no reader has marked a version, and keep readers from it during the block."""
    fcntl = _fcntl()
    if fcntl is None:
        yield True
        return
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True


def _fcntl() -> Any:
    try:
        import fcntl
    except ImportError:
        return None
    return fcntl
