"""One prediction against one section's truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve.errors import GenePanelError, ShapeError, explain
from stretrieve.metrics import (
    GeneMean,
    constant_profile_per_spot,
    mae_per_gene,
    mean_over_genes,
    mse_per_gene,
    pearson_per_gene,
    pearson_per_spot,
    rvd_per_gene,
    spearman_per_gene,
    variance_ratio_per_gene,
)


@dataclass(frozen=True)
class PredictionScore:
    """Scores of a prediction on one section.

    Parameters
    ----------
    per_gene
        Index = gene; columns ``pcc, spearman, mae, mse, variance_ratio, rvd, hvg``.
    pcc_all, pcc_hvg
        Mean per-gene Pearson over all genes and over the frozen variable genes.
    pcc_spot
        Mean per-spot Pearson across genes.
    pcc_spot_baseline
        What a fixed training profile scores there; NaN when none was given.
    """

    per_gene: pd.DataFrame
    pcc_all: GeneMean
    pcc_hvg: GeneMean
    pcc_spot: float
    pcc_spot_baseline: float

    def summary(self) -> dict[str, Any]:
        """Return the means as plain JSON data."""
        return {
            "pcc_hvg": self.pcc_hvg.mean,
            "pcc_all": self.pcc_all.mean,
            "n_valid": self.pcc_all.n_valid,
            "n_dropped": self.pcc_all.n_dropped,
            "n_zeroed": self.pcc_all.n_zeroed,
            "pcc_spot": self.pcc_spot,
            "pcc_spot_baseline": self.pcc_spot_baseline,
            "mae": float(self.per_gene["mae"].mean()),
            "mse": float(self.per_gene["mse"].mean()),
            "rvd": float(self.per_gene["rvd"].mean()),
            "variance_ratio": float(self.per_gene["variance_ratio"].median()),
        }


def score_prediction(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    genes: Sequence[str],
    hvg: Sequence[str],
    *,
    profile: npt.ArrayLike | None = None,
) -> PredictionScore:
    """Score a prediction on the spots of one section.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)`` log1p CP10k. A constant prediction of a gene scores 0; a gene of
        constant truth is dropped and counted.
    genes
        Names of the columns.
    hvg
        Variable genes frozen on the training sections; those not among ``genes`` are left out.
    profile
        ``(n_genes,)`` mean profile of the training sections, the baseline of the per-spot score.

    Raises
    ------
    ShapeError
        When the shapes differ.
    GenePanelError
        When none of ``hvg`` is among ``genes``, or a gene is named twice.
    """
    names = pd.Index([str(gene) for gene in genes])
    pcc = pearson_per_gene(predicted, truth)
    if len(names) != len(pcc):
        raise ShapeError(explain("gene names", got=len(names), expected=f"{len(pcc)} columns"))
    chosen = names.isin([str(gene) for gene in hvg])
    if not names.is_unique or not chosen.any():
        raise GenePanelError(
            explain("variable genes", got="none among the columns", expected="unique, shared names")
        )
    table = pd.DataFrame(
        {
            "pcc": pcc,
            "spearman": spearman_per_gene(predicted, truth),
            "mae": mae_per_gene(predicted, truth),
            "mse": mse_per_gene(predicted, truth),
            "variance_ratio": variance_ratio_per_gene(predicted, truth),
            "rvd": rvd_per_gene(predicted, truth),
            "hvg": chosen,
        },
        index=names,
    )
    baseline = np.nan if profile is None else _mean(constant_profile_per_spot(profile, truth))
    return PredictionScore(
        per_gene=table,
        pcc_all=mean_over_genes(pcc),
        pcc_hvg=mean_over_genes(pcc[chosen]),
        pcc_spot=_mean(pearson_per_spot(predicted, truth)),
        pcc_spot_baseline=float(baseline),
    )


def _mean(scores: npt.NDArray[np.float64]) -> float:
    return mean_over_genes(scores).mean
