"""Query a reference: retrieve measured spots for a slide and impute its expression."""

from __future__ import annotations

from stretrieve.query.calibrate import calibrate, in_sample_folds
from stretrieve.query.calibrate_reference import (
    calibrate_built,
    calibrate_reference,
    stored_calibration,
)
from stretrieve.query.calibration import Calibration, Interval, recommended_settings
from stretrieve.query.engine import QueryEngine
from stretrieve.query.impute import Imputed, WeightMatrix, impute
from stretrieve.query.locate import SpotPositions
from stretrieve.query.pool import ArrayPool, Pool
from stretrieve.query.predictor import Found, PoolFacts, Prediction, Predictor
from stretrieve.query.question import Question
from stretrieve.query.result import QueryResult
from stretrieve.query.retrieve import allowed_spots
from stretrieve.query.settings import (
    Balance,
    Centring,
    Compat,
    Modality,
    QuerySettings,
    RetrievalSettings,
    Similarity,
)
from stretrieve.query.weights import WeightScheme
from stretrieve.query.write import OutputFormat
from stretrieve.query.written import OutputSettings, WrittenQuery

__all__ = [
    "ArrayPool",
    "Balance",
    "Calibration",
    "Centring",
    "Compat",
    "Found",
    "Imputed",
    "Interval",
    "Modality",
    "OutputFormat",
    "OutputSettings",
    "Pool",
    "PoolFacts",
    "Prediction",
    "Predictor",
    "QueryEngine",
    "QueryResult",
    "QuerySettings",
    "Question",
    "RetrievalSettings",
    "Similarity",
    "SpotPositions",
    "WeightMatrix",
    "WeightScheme",
    "WrittenQuery",
    "allowed_spots",
    "calibrate",
    "calibrate_built",
    "calibrate_reference",
    "impute",
    "in_sample_folds",
    "recommended_settings",
    "stored_calibration",
]
