"""Every error that stretrieve raises on purpose.

A leaf inherits the builtin that a caller would catch as well, and the exit code of the command line
from its family. A message is one line: what, got, expected, remedy (see :func:`explain`).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    BAD_INPUT = 3
    PARTIAL = 4
    MISMATCH = 5
    RESOURCES = 6
    INTERRUPTED = 130


def explain(what: str, *, got: object = None, expected: object = None, remedy: str = "") -> str:
    """Return a one-line message of the form ``what: got …; expected …; remedy``.

    Parameters
    ----------
    what
        The thing that is wrong, named the way the user knows it.
    got
        The offending value; left out when ``None``.
    expected
        What would have been accepted; left out when ``None``.
    remedy
        What to do next.
    """
    parts = [
        f"got {got}" if got is not None else "",
        f"expected {expected}" if expected is not None else "",
        remedy,
    ]
    tail = "; ".join(part for part in parts if part)
    return " ".join(f"{what}: {tail}".split()) if tail else what


class StretrieveError(Exception):
    """Root of all errors raised on purpose."""

    exit_code: ExitCode = ExitCode.INTERNAL


class ConfigError(StretrieveError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = ExitCode.USAGE


class UnknownNameError(ConfigError):
    """A registry holds no part of this name."""


class DuplicateNameError(ConfigError):
    """A registry already holds a part of this name."""


class MissingDependencyError(StretrieveError, ImportError):
    """An optional library is not installed.

    Parameters
    ----------
    module
        Import name of the missing library.
    extra
        The stretrieve extra that installs it.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            explain(
                f"optional library {module!r}",
                got="not installed",
                remedy=f'pip install "stretrieve[{extra}]"',
            )
        )
        self.module = module
        self.extra = extra


class InputError(StretrieveError, ValueError):
    """Something the user handed in cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class InputNotFoundError(InputError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class SheetError(InputError):
    """The samplesheet is malformed."""


class SectionError(InputError):
    """A section's counts, spots or metadata are unusable or do not fit together."""


class GenePanelError(InputError):
    """Gene identifiers are unusable or overlap too little."""


class ShapeError(InputError):
    """An array has the wrong shape or type."""


class SlideError(InputError):
    """A slide cannot be opened or read."""


class MppError(SlideError):
    """The resolution of an image is missing or implausible."""


class TissueError(SlideError):
    """No tissue was found on a slide."""


class OutputExistsError(InputError, FileExistsError):
    """The output is already there and nothing was asked to replace it."""


class BusyError(InputError):
    """Another process is writing to the same reference."""


class ReferenceNotFoundError(InputNotFoundError):
    """There is no reference at the given place."""


class MismatchError(StretrieveError, ValueError):
    """Parts that belong together do not fit together."""

    exit_code = ExitCode.MISMATCH


class ManifestError(MismatchError):
    """A manifest is unreadable, incomplete or of an unknown version."""


class ChecksumError(MismatchError):
    """A stored artefact is not what the manifest says it is."""


class EmbedderMismatchError(MismatchError):
    """Weights, patch spec or gene panel differ from what the embedder was made with."""


class ResourceError(StretrieveError, RuntimeError):
    """Disk, memory or device is exhausted."""

    exit_code = ExitCode.RESOURCES


class PartialFailureError(StretrieveError, RuntimeError):
    """Some of many inputs failed; the others are done."""

    exit_code = ExitCode.PARTIAL
