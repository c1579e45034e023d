"""One training loop for every embedder that learns by gradients.

Names load on first use, so that settings can be read without loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stretrieve.training.loop import fit_embedder as fit_embedder
    from stretrieve.training.loop import shared_training as shared_training
    from stretrieve.training.parallel import is_first_process as is_first_process
    from stretrieve.training.report import EpochRecord as EpochRecord
    from stretrieve.training.report import TrainReport as TrainReport
    from stretrieve.training.settings import AugmentSettings as AugmentSettings
    from stretrieve.training.settings import TrainSettings as TrainSettings
    from stretrieve.training.validate import RetrievalQuality as RetrievalQuality
    from stretrieve.training.validate import retrieval_quality as retrieval_quality

_PUBLIC = {
    "AugmentSettings": "settings",
    "EpochRecord": "report",
    "RetrievalQuality": "validate",
    "TrainReport": "report",
    "TrainSettings": "settings",
    "fit_embedder": "loop",
    "is_first_process": "parallel",
    "retrieval_quality": "validate",
    "shared_training": "loop",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 (derived from one table on purpose)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
