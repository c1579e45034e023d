"""Settings that make an evaluation of toys quick."""

from __future__ import annotations

from stretrieve.evaluation import EvaluationSettings

SETTINGS = EvaluationSettings(embedders=("colour",), seeds=(0, 1), n_genes=40, top_k=20)
