"""Functions compiled to machine code when they are first called; the result is kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def compiled(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Compile a function of arrays and numbers, for use as a decorator.

    The module that uses it should be imported inside the function that needs it: Numba takes half a
    second to import. Compiled functions let other threads run, and start none themselves; see
    :func:`stretrieve.indexes.rescore.for_parts`. The machine code is kept beside the module, or in the
    user's cache folder where that cannot be written, or not at all where neither can; it is made again
    when the module's file changes, not when one does whose functions it compiles in (delete
    ``__pycache__/*.nb*`` then). Division by zero gives NaN or infinity, as in NumPy.

    Parameters
    ----------
    function
        What Numba can compile.
    """
    return _made(function, {"nogil": True, "error_model": "numpy"})


def compiled_in_any_order(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Compile a function whose sums may be added up in any order, which is many times as fast.

    As :func:`compiled`; for what need not be the same number on every processor.

    Parameters
    ----------
    function
        What Numba can compile.
    """
    return _made(function, {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc"}})


def _made(
    function: Callable[Arguments, Value], options: dict[str, Any]
) -> Callable[Arguments, Value]:
    from numba import njit

    try:
        made: Callable[Arguments, Value] = njit(cache=True, **options)(function)
    except (RuntimeError, OSError):  # there is no folder that could keep it
        made = njit(**options)(function)
    return made
