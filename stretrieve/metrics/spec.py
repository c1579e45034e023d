"""What each metric promises: range, direction, and behaviour on constants and NaN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from stretrieve.errors import ConfigError, explain
from stretrieve.metrics import classification, correlation, deviation, retrieval, spatial
from stretrieve.metrics import uncertainty as uncertain

INF: Final = float("inf")


class Direction(StrEnum):
    """Which values of a metric are good."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    TARGET = "nearer to the target is better"


class Per(StrEnum):
    """What one value of a metric stands for."""

    GENE = "gene"
    SPOT = "spot"
    SECTION = "section"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric and what may be relied on.

    Parameters
    ----------
    name
        Name in tables and files.
    function
        Computes it.
    per
        What one value stands for.
    low, high
        Range of its values.
    direction
        Which values are good.
    best
        Value of a perfect prediction; for ``interval_coverage`` the usual nominal level.
    constant_prediction
        Value for a prediction that does not vary; ``None`` when it depends on the data.
    constant_truth
        What happens where the truth does not vary.
    missing
        What happens to NaN.
    """

    name: str
    function: Callable[..., Any]
    per: Per
    low: float
    high: float
    direction: Direction
    best: float
    constant_prediction: float | None
    constant_truth: str = "NaN, dropped and counted"
    missing: str = "pairs with NaN are left out"

    def __post_init__(self) -> None:
        if not self.low <= self.best <= self.high:
            raise ConfigError(
                explain(
                    f"best value of metric {self.name!r}",
                    got=self.best,
                    expected=f"{self.low:g} to {self.high:g}",
                )
            )


_HIGH, _LOW, _TARGET = Direction.HIGHER, Direction.LOWER, Direction.TARGET
_DROPPED: Final = "NaN, dropped and counted"
_DEFINED: Final = "defined"
_NO_NAN: Final = "refused"
_GENE_LEFT_OUT: Final = "a gene with NaN is NaN or left out"

_SPECS: Final = (
    MetricSpec("pcc_gene", correlation.pearson_per_gene, Per.GENE, -1, 1, _HIGH, 1, 0),
    MetricSpec("pcc_spot", correlation.pearson_per_spot, Per.SPOT, -1, 1, _HIGH, 1, None),
    MetricSpec("spearman_gene", correlation.spearman_per_gene, Per.GENE, -1, 1, _HIGH, 1, 0),
    MetricSpec("mae", deviation.mae_per_gene, Per.GENE, 0, INF, _LOW, 0, None, _DEFINED),
    MetricSpec("mse", deviation.mse_per_gene, Per.GENE, 0, INF, _LOW, 0, None, _DEFINED),
    MetricSpec("rvd", deviation.rvd_per_gene, Per.GENE, 0, INF, _LOW, 0, 1),
    MetricSpec(
        "variance_ratio", deviation.variance_ratio_per_gene, Per.GENE, 0, INF, _TARGET, 1, 0
    ),
    MetricSpec(
        "auc",
        classification.auc_per_gene,
        Per.GENE,
        0,
        1,
        _HIGH,
        1,
        0.5,
        "NaN: one class has too few spots",
    ),
    MetricSpec(
        "ssim", spatial.ssim_per_gene, Per.GENE, -1, 1, _HIGH, 1, None, _DROPPED, _GENE_LEFT_OUT
    ),
    MetricSpec(
        "morans_i_agreement",
        spatial.morans_i_agreement,
        Per.SECTION,
        -1,
        1,
        _HIGH,
        1,
        0,
        "such genes are left out",
        _GENE_LEFT_OUT,
    ),
    MetricSpec(
        "gene_gene_agreement",
        spatial.gene_gene_agreement,
        Per.SECTION,
        -1,
        1,
        _HIGH,
        1,
        0,
        "such genes are left out",
        _GENE_LEFT_OUT,
    ),
    MetricSpec(
        "recall_at_k", retrieval.recall_at_k, Per.SECTION, 0, 1, _HIGH, 1, None, "chance", _NO_NAN
    ),
    MetricSpec(
        "mrr", retrieval.mean_reciprocal_rank, Per.SECTION, 0, 1, _HIGH, 1, None, "chance", _NO_NAN
    ),
    MetricSpec(
        "label_recall", retrieval.label_recall, Per.SECTION, 0, 1, _HIGH, 1, None, _DEFINED, _NO_NAN
    ),
    MetricSpec(
        "label_precision",
        retrieval.label_precision,
        Per.SECTION,
        0,
        1,
        _HIGH,
        1,
        None,
        _DEFINED,
        _NO_NAN,
    ),
    MetricSpec(
        "neighbour_overlap",
        retrieval.neighbour_overlap,
        Per.SECTION,
        0,
        1,
        _HIGH,
        1,
        None,
        _DEFINED,
        "“none” never counts",
    ),
    MetricSpec(
        "interval_coverage",
        uncertain.interval_coverage,
        Per.GENE,
        0,
        1,
        _TARGET,
        0.9,
        None,
        _DEFINED,
    ),
    MetricSpec(
        "interval_width", uncertain.interval_width, Per.GENE, 0, INF, _LOW, 0, None, _DEFINED
    ),
    MetricSpec(
        "width_error_agreement",
        uncertain.width_error_agreement,
        Per.SECTION,
        -1,
        1,
        _HIGH,
        1,
        0,
    ),
    MetricSpec("risk_coverage", uncertain.risk_coverage, Per.SECTION, -1, 1, _HIGH, 1, 0),
)

METRICS: Final = MappingProxyType({spec.name: spec for spec in _SPECS})
"""Every metric by name."""
