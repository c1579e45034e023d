"""Points at which a test can kill the process: before and after every write that matters.

With ``STRETRIEVE_CRASH_AT=N`` in the environment the ``N``-th point reached ends the process at once,
without any clean-up, as a power cut or ``kill -9`` would. Without it a point costs a dictionary look-up.
"""

from __future__ import annotations

import itertools
import os

VARIABLE = "STRETRIEVE_CRASH_AT"
CRASH_CODE = 99

_reached = itertools.count(1)


def crash_point(name: str) -> None:
    """End the process here when this is the point asked for.

    Parameters
    ----------
    name
        What is about to be, or has just been, written; written to standard error when it crashes.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    number = next(_reached)
    if wanted.isdigit() and number == int(wanted):
        os.write(2, f"crash point {number}: {name}\n".encode())
        os._exit(CRASH_CODE)
