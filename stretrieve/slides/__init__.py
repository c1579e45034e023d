"""Slides: opened safely, masked for tissue, cut into patches at a physical size.

Slide files are decoded in reader processes only. The names load on first use, so that a reader
process, which runs inside this package, imports no more than it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stretrieve.slides.base import Slide as Slide
    from stretrieve.slides.base import open_slide as open_slide
    from stretrieve.slides.grid import PatchGrid as PatchGrid
    from stretrieve.slides.grid import patch_grid as patch_grid
    from stretrieve.slides.limits import ReaderLimits as ReaderLimits
    from stretrieve.slides.patches import read_patches as read_patches
    from stretrieve.slides.tissue import TissueMask as TissueMask
    from stretrieve.slides.tissue import tissue_mask as tissue_mask
    from stretrieve.slides.types import PatchBatch as PatchBatch
    from stretrieve.slides.types import PatchStatus as PatchStatus

_PUBLIC = {
    "PatchBatch": "types",
    "PatchGrid": "grid",
    "PatchStatus": "types",
    "ReaderLimits": "limits",
    "Slide": "base",
    "TissueMask": "tissue",
    "open_slide": "base",
    "patch_grid": "grid",
    "read_patches": "patches",
    "tissue_mask": "tissue",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 (derived from one table on purpose)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
