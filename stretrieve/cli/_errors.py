"""The one place that turns an error into a line on stderr and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from stretrieve.cli._interrupt import forget_interrupt
from stretrieve.errors import ExitCode, StretrieveError

_RESOURCE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE})


def run(command: Callable[[], int | None], *, debug: bool) -> int:
    """Call ``command`` and return the exit code; errors become one line unless ``debug``.

    Parameters
    ----------
    command
        The whole command line, parsing included; returns an exit code or ``None``.
    debug
        Let the traceback through.
    """
    try:
        code = command() or int(ExitCode.OK)
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        message, code = describe(error)
        _say(message)
    if code == ExitCode.INTERRUPTED:  # also where the command line's library caught it
        forget_interrupt()
        _say("interrupted; finished steps are kept")
    return code


def describe(error: Exception) -> tuple[str, int]:
    """Return the message and the exit code for an error."""
    if isinstance(error, StretrieveError):
        return str(error), int(error.exit_code)
    if isinstance(error, MemoryError):
        return "out of memory: use smaller batches or fewer workers", ExitCode.RESOURCES
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        resources = error.errno in _RESOURCE_ERRNOS
        code = ExitCode.RESOURCES if resources else ExitCode.BAD_INPUT
        return f"{error.strerror or error}{place}", code
    format_message = getattr(error, "format_message", None)
    if callable(format_message):  # a usage error found while parsing the command line
        return f"{format_message()} (see --help)", ExitCode.USAGE
    hint = "this is a bug; run again with --debug and report it"
    return f"internal error: {type(error).__name__}: {error}; {hint}", ExitCode.INTERNAL


def _say(message: str) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
