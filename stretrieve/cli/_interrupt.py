"""Ctrl-C ends a command wherever it strikes, and always with the same exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

_SOON_S = 0.05


@contextlib.contextmanager
def certain_interrupts() -> Iterator[None]:
    """Make sure that an interrupt of the block is heard, and that a later one changes nothing.

    Python drops an exception that is raised in a destructor or a weak reference's callback, a
    ``KeyboardInterrupt`` too; here the signal is sent again. When the block is left the outcome is
    decided: an interrupt while libraries shut down would only replace the exit code.
    """
    usual = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            usual(dropped)
            return
        again = threading.Timer(_SOON_S, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.unraisablehook = usual


def forget_interrupt() -> None:
    """Let the exit code stand when the interrupt came while Python ran a string of source.

    CPython remembers an interrupt that leaves such a string (a dataclass being made during an
    import, for one) even where it is caught, and ``python -m`` then dies of the signal after the
    exit code was chosen. Running another string clears that memory.
    """
    exec("")  # noqa: S102
