"""Import of libraries that a plain install does not bring."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from stretrieve.errors import MissingDependencyError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional library or say how to install it.

    Parameters
    ----------
    module
        Import name.
    extra
        The stretrieve extra that brings it.

    Raises
    ------
    MissingDependencyError
        When the library is not installed.
    """
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise MissingDependencyError(module, extra)
    return importlib.import_module(module)
