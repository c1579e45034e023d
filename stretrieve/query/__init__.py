"""Query a reference: retrieve measured spots for a slide and impute its expression."""

from __future__ import annotations

from stretrieve.query.engine import QueryEngine
from stretrieve.query.impute import Imputed, WeightMatrix, impute
from stretrieve.query.locate import SpotPositions
from stretrieve.query.result import QueryResult
from stretrieve.query.settings import Centring, Modality, QuerySettings
from stretrieve.query.weights import WeightScheme

__all__ = [
    "Centring",
    "Imputed",
    "Modality",
    "QueryEngine",
    "QueryResult",
    "QuerySettings",
    "SpotPositions",
    "WeightMatrix",
    "WeightScheme",
    "impute",
]
