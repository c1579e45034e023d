"""Metrics of prediction, retrieval and uncertainty: pure functions on arrays.

Truth is always log1p CP10k of raw counts. A constant prediction earns nothing (Pearson 0), a constant
truth cannot be scored (NaN, dropped and counted), NaN means "not measured" and is never a zero.
:data:`METRICS` lists what each metric promises.
"""

from __future__ import annotations

from stretrieve.metrics.aggregate import (
    PairedComparison,
    PatientMean,
    compare_paired,
    patient_macro,
)
from stretrieve.metrics.classification import auc_per_gene, expression_thresholds
from stretrieve.metrics.correlation import (
    GeneMean,
    constant_profile_per_spot,
    mean_over_genes,
    pearson_per_gene,
    pearson_per_spot,
    spearman_per_gene,
)
from stretrieve.metrics.deviation import (
    mae_per_gene,
    mse_per_gene,
    rvd_per_gene,
    variance_ratio_per_gene,
)
from stretrieve.metrics.retrieval import (
    PairedRanks,
    chance_mrr,
    chance_recall,
    label_precision,
    label_recall,
    mean_reciprocal_rank,
    neighbour_overlap,
    paired_ranks,
    recall_at_k,
)
from stretrieve.metrics.spatial import (
    gene_gene_agreement,
    morans_i,
    morans_i_agreement,
    neighbour_weights,
    ssim_per_gene,
)
from stretrieve.metrics.spec import METRICS, Direction, MetricSpec, Per
from stretrieve.metrics.uncertainty import (
    interval_coverage,
    interval_width,
    risk_coverage,
    width_error_agreement,
)

__all__ = [
    "METRICS",
    "Direction",
    "GeneMean",
    "MetricSpec",
    "PairedComparison",
    "PairedRanks",
    "PatientMean",
    "Per",
    "auc_per_gene",
    "chance_mrr",
    "chance_recall",
    "compare_paired",
    "constant_profile_per_spot",
    "expression_thresholds",
    "gene_gene_agreement",
    "interval_coverage",
    "interval_width",
    "label_precision",
    "label_recall",
    "mae_per_gene",
    "mean_over_genes",
    "mean_reciprocal_rank",
    "morans_i",
    "morans_i_agreement",
    "mse_per_gene",
    "neighbour_overlap",
    "neighbour_weights",
    "paired_ranks",
    "patient_macro",
    "pearson_per_gene",
    "pearson_per_spot",
    "recall_at_k",
    "risk_coverage",
    "rvd_per_gene",
    "spearman_per_gene",
    "ssim_per_gene",
    "variance_ratio_per_gene",
    "width_error_agreement",
]
