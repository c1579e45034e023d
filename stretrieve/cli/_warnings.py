"""Warnings of a command that may yet fail: its one line of error must stand alone."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from stretrieve._logging import ROOT
from stretrieve.errors import StretrieveError


class _Held(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def held_warnings() -> Iterator[None]:
    """Hold the library's warnings back until the block is done.

    They are dropped when it ends in an error of ours, which says what matters. On a terminal, where
    somebody waits and wants to know for how long, and with ``--debug`` they appear at once.
    """
    logger = logging.getLogger(ROOT)
    if sys.stderr.isatty() or logger.isEnabledFor(logging.DEBUG):
        yield
        return
    held = _Held()
    logger.addHandler(held)
    logger.propagate = False
    try:
        yield
    except StretrieveError:
        held.records.clear()
        raise
    finally:
        logger.removeHandler(held)
        logger.propagate = True
        for record in held.records:
            logger.handle(record)
