"""Scores of predictions beside the baselines that they have to beat."""

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
from stretrieve.evaluation.score import PredictionScore, score_prediction
from stretrieve.evaluation.training_data import Scaler, TrainingData

__all__ = [
    "BASELINES",
    "GeneSets",
    "PredictionScore",
    "Predictor",
    "Scaler",
    "TrainingData",
    "fit_knn",
    "fit_mean_profile",
    "fit_reduced_rank_ridge",
    "fit_ridge",
    "freeze_gene_sets",
    "score_prediction",
]
