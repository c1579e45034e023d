"""What the operating system refuses, in our own words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from stretrieve.errors import InputError, ResourceError, StretrieveError, explain

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_IN_WORDS = ("no space left", "disk quota exceeded")
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextlib.contextmanager
def typed_os_errors(what: str) -> Iterator[None]:
    """Turn a full disk and a read-only place into our errors, whichever library meets them.

    Parameters
    ----------
    what
        What was being done, for the message.

    Raises
    ------
    ResourceError
        When the disk is full.
    InputError
        When the place cannot be written to.
    """
    try:
        yield
    except StretrieveError:
        raise
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        said = str(error).lower()
        if number in _FULL or any(words in said for words in _FULL_IN_WORDS):
            raise ResourceError(
                explain(what, got="a full disk", remedy="free space and run again")
            ) from error
        if number in _READ_ONLY:
            raise InputError(
                explain(what, got="a read-only place", expected="a place that can be written to")
            ) from error
        raise
