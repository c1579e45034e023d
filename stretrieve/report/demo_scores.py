"""Scores of the demo: retrieval and baselines against the same truth on the same frozen genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve._progress import SILENT, Progress
from stretrieve.evaluation import (
    GeneSets,
    PredictionScore,
    TrainingData,
    fit_mean_profile,
    fit_ridge,
    freeze_gene_sets,
    score_prediction,
)
from stretrieve.keys import SPATIAL
from stretrieve.models.colour import STATISTICS, colour_statistics
from stretrieve.simulation import DemoData
from stretrieve.slides import open_slide, read_patches
from stretrieve.specs import PatchSpec
from stretrieve.spots import Section, log_cp10k, read_section, read_sheet
from stretrieve.units import PixelSize

MEAN_PROFILE: Final = "mean profile"
COLOUR_RIDGE: Final = "colour ridge"
TEXTURE_RIDGE: Final = "colour + texture ridge"
RETRIEVAL: Final = "retrieval, offsets removed"
RETRIEVAL_PUBLISHED: Final = "retrieval, offsets kept (as published)"

_TEXTURE_WORDS: Final = ("gradient", "contrast", "centre")
_PATCH_PX: Final = 64

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DemoScores:
    """Scores of the demo.

    Parameters
    ----------
    table
        Index = method; columns ``hvg``, ``all``, ``measured_hvg``, ``n_genes``.
    per_gene
        Index = gene; columns ``group``, ``hvg`` and Pearson's r of each method.
    genes
        Gene sets frozen on the reference sections.
    """

    table: pd.DataFrame
    per_gene: pd.DataFrame
    genes: GeneSets


def score_demo(
    predicted: Mapping[str, ad.AnnData],
    data: DemoData,
    truth: ad.AnnData,
    *,
    side_um: float,
    progress: Progress = SILENT,
) -> DemoScores:
    """Score the demo's predictions beside baselines that learn from the same sections.

    Parameters
    ----------
    predicted
        Name of each way of predicting, and its predictions at the spots of ``truth``, in order.
    data
        The demo's files.
    truth
        ``X`` = noise-free log1p CP10k, ``layers["counts"]`` = simulated counts.
    side_um
        Side of the baselines' patches in microns, as the embedder's.
    progress
        Told of patches read.
    """
    sections = [read_section(row) for row in read_sheet(data.sheet)]
    sets = freeze_gene_sets(sections)
    genes = [str(name) for name in truth.var_names]
    methods = _baselines(sections, data, truth, side_um=side_um, progress=progress)
    for name, adata in predicted.items():
        methods[name] = np.asarray(adata[:, genes].X, dtype=np.float64)
    measured = log_cp10k(truth.layers["counts"])
    rows: dict[str, dict[str, float]] = {}
    per_gene = pd.DataFrame(
        {"group": truth.var["group"].astype(str), "hvg": pd.Index(genes).isin(sets.hvg50)},
        index=pd.Index(genes, name="gene"),
    )
    for name, values in methods.items():
        score = score_prediction(values, truth.X, genes, sets.hvg50)
        rows[name] = _row(score, score_prediction(values, measured, genes, sets.hvg50))
        per_gene[name] = score.per_gene["pcc"]
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"n_genes": int})
    return DemoScores(table, per_gene, sets)


def _row(score: PredictionScore, noisy: PredictionScore) -> dict[str, float]:
    return {
        "hvg": round(score.pcc_hvg.mean, 4),
        "all": round(score.pcc_all.mean, 4),
        "measured_hvg": round(noisy.pcc_hvg.mean, 4),
        "n_genes": score.pcc_all.n_valid,
    }


def _baselines(
    sections: Sequence[Section],
    data: DemoData,
    truth: ad.AnnData,
    *,
    side_um: float,
    progress: Progress,
) -> dict[str, Matrix]:
    """Predict with the mean profile and with ridge on colour, without and with texture."""
    spec = PatchSpec.single(_PATCH_PX, side_um=side_um)
    query = _statistics(str(data.query_image), truth.obsm[SPATIAL], spec, None, progress)
    features = np.concatenate(
        [_statistics(str(s.image), s.xy, spec, s.pixel_size, progress) for s in sections]
    )
    genes = pd.Index(truth.var_names)
    expression = np.concatenate(
        [log_cp10k(s.counts)[:, s.genes.index.get_indexer(genes)].toarray() for s in sections]
    )
    names = np.concatenate([np.repeat(s.meta.section, s.n_spots) for s in sections])
    patients = np.concatenate([np.repeat(s.meta.patient, s.n_spots) for s in sections])
    plain = [i for i, name in enumerate(STATISTICS) if not _is_texture(name)]
    full = TrainingData.build(features, expression, names, groups=patients)
    colour = TrainingData.build(features[:, plain], expression, names, groups=patients)
    return {
        MEAN_PROFILE: fit_mean_profile(full).predict(query),
        COLOUR_RIDGE: fit_ridge(colour).predict(query[:, plain]),
        TEXTURE_RIDGE: fit_ridge(full).predict(query),
    }


def _is_texture(statistic: str) -> bool:
    return any(word in statistic for word in _TEXTURE_WORDS)


def _statistics(
    image: str,
    xy: npt.NDArray[np.float64],
    spec: PatchSpec,
    pixel_size: PixelSize | None,
    progress: Progress,
) -> npt.NDArray[np.float32]:
    parts = []
    with (
        open_slide(image, pixel_size=pixel_size) as slide,
        progress.task("colour statistics", len(xy)) as task,
    ):
        for batch in read_patches(slide, xy, spec):
            parts.append(colour_statistics(batch.views[0]))
            task.advance(len(batch))
    return np.concatenate(parts)
