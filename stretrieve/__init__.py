"""Predict spatial gene expression from H&E slides by retrieving measured reference spots.

The public names load on first use; importing the package loads no heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stretrieve.errors import StretrieveError as StretrieveError
    from stretrieve.query import QueryEngine as QueryEngine
    from stretrieve.query import QueryResult as QueryResult
    from stretrieve.query import QuerySettings as QuerySettings
    from stretrieve.query.search import ReferenceSearch as ReferenceSearch
    from stretrieve.reference import BuildSettings as BuildSettings
    from stretrieve.reference import Reference as Reference
    from stretrieve.reference import build_reference as build_reference
    from stretrieve.slides import open_slide as open_slide
    from stretrieve.specs import PatchSpec as PatchSpec
    from stretrieve.spots import Section as Section
    from stretrieve.spots import read_sheet as read_sheet

_PUBLIC = {
    "BuildSettings": "reference",
    "PatchSpec": "specs",
    "QueryEngine": "query",
    "QueryResult": "query",
    "QuerySettings": "query",
    "Reference": "reference",
    "ReferenceSearch": "query.search",
    "Section": "spots",
    "StretrieveError": "errors",
    "build_reference": "reference",
    "open_slide": "slides",
    "read_sheet": "spots",
}

__all__ = [*sorted(_PUBLIC), "__version__"]  # noqa: PLE0604 (derived from one table on purpose)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
