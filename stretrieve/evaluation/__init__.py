"""Evaluation that cannot flatter: patient-level, nested, beside baselines and controls."""

from __future__ import annotations

from stretrieve.evaluation.baselines import (
    BASELINES,
    Predictor,
    fit_knn,
    fit_mean_profile,
    fit_reduced_rank_ridge,
    fit_ridge,
)
from stretrieve.evaluation.gene_sets import GeneSets, freeze_gene_sets
from stretrieve.evaluation.runner import Outcome, Plan, plan, run
from stretrieve.evaluation.score import PredictionScore, score_prediction
from stretrieve.evaluation.settings import EvaluationSettings, LeaveOut, Query
from stretrieve.evaluation.summary import summarise
from stretrieve.evaluation.training_data import Scaler, TrainingData

__all__ = [
    "BASELINES",
    "EvaluationSettings",
    "GeneSets",
    "LeaveOut",
    "Outcome",
    "Plan",
    "PredictionScore",
    "Predictor",
    "Query",
    "Scaler",
    "TrainingData",
    "fit_knn",
    "fit_mean_profile",
    "fit_reduced_rank_ridge",
    "fit_ridge",
    "freeze_gene_sets",
    "plan",
    "run",
    "score_prediction",
    "summarise",
]
