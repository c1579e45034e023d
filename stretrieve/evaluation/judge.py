"""Every metric of one prediction against one section's truth, in long form."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import metrics
from stretrieve.errors import ConfigError, ShapeError, explain
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.lines.base import Prediction, Training
from stretrieve.evaluation.lines.oracle import OracleLine
from stretrieve.evaluation.training_data import Matrix

RECALL_K: Final = (1, 5, 10, 50)
RECALL_SHARES: Final = (0.01, 0.05, 0.10)
KEPT: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
LABEL_K: Final = (1, 10, 50)
SORTED_N: Final = (10, 50, 200)
PRIMARY: Final = "pcc_gene"
CHANCE: Final = "/chance"
CROSS_GENE: Final = "cross_gene"
OPTIMISTIC: Final = "optimistic/"
"""Prefix of figures that published code reports and that choose genes by the answer."""

_PER_GENE: Final = ("spearman_gene", "mae", "mse", "rvd", "variance_ratio")

Row = tuple[str, float]


@dataclass(frozen=True)
class Judge:
    """What a fold's scores are measured with, all of it from training sections.

    Parameters
    ----------
    training
        Training sections and frozen gene sets.
    wanted
        Metrics to compute; all when empty.

    Raises
    ------
    ConfigError
        When a metric is unknown.
    """

    training: Training
    wanted: tuple[str, ...] = ()
    _oracle: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_metrics(self.wanted)

    @functools.cached_property
    def profile(self) -> Matrix:
        """``(n_genes,)`` mean over training sections of their mean."""
        return np.asarray(np.mean([t.mean(axis=0) for t in self.training.truth], axis=0))

    @functools.cached_property
    def thresholds(self) -> Matrix:
        """``(n_genes,)`` above which a gene counts as on."""
        return metrics.expression_thresholds(np.concatenate(self.training.truth))

    def oracle_neighbours(self, sample: Sample) -> npt.NDArray[np.int64]:
        """Return the molecular neighbours ``(n_spots, top_k)`` of a test section."""
        if sample.name not in self._oracle:
            fitted = OracleLine().fit(self.training, seed=self.training.settings.seeds[0])
            found = fitted.predict(sample, self.training.inputs).neighbours
            self._oracle[sample.name] = np.zeros((0, 0), np.int64) if found is None else found
        return self._oracle[sample.name]

    def score(
        self, prediction: Prediction, sample: Sample, expression: Matrix | None = None
    ) -> pd.DataFrame:
        """Return every score of a section.

        Parameters
        ----------
        prediction
            What a line said.
        sample
            The section, with its measurements.
        expression
            Its measured expression in the line's joint space.

        Returns
        -------
        DataFrame
            Columns ``gene`` (empty where a score stands for the section), ``metric``, ``value``.
        """
        truth = sample.truth(self.training.genes)
        parts = [self._genes(prediction, truth, sample)]
        rows = [
            *self._sections(prediction, truth, sample),
            *self._uncertainty(prediction, truth),
            *self._retrieval(prediction, sample, expression),
            *self._optimistic(prediction, truth),
        ]
        parts.append(pd.DataFrame({"gene": "", "metric": [r[0] for r in rows], "value": [
            float(r[1]) for r in rows
        ]}))  # fmt: skip
        return pd.concat(parts, ignore_index=True)

    def _wants(self, name: str) -> bool:
        return not self.wanted or name in self.wanted

    def _genes(self, prediction: Prediction, truth: Matrix, sample: Sample) -> pd.DataFrame:
        columns: dict[str, Matrix] = {PRIMARY: metrics.pearson_per_gene(prediction.mean, truth)}
        for name in _PER_GENE:
            if self._wants(name):
                columns[name] = metrics.METRICS[name].function(prediction.mean, truth)
        if self._wants("auc"):
            columns["auc"] = metrics.auc_per_gene(prediction.mean, truth, self.thresholds)
        if self._wants("ssim"):
            columns["ssim"] = self._ssim(prediction, truth, sample)
        for level, (low, high) in prediction.intervals.items():
            if self._wants("interval_coverage"):
                coverage = metrics.interval_coverage(truth, low, high)
                columns[f"interval_coverage@{level:g}"] = coverage
            if self._wants("interval_width"):
                columns[f"interval_width@{level:g}"] = metrics.interval_width(low, high)
        frame = pd.DataFrame(columns, index=pd.Index(self.training.genes, name="gene"))
        return frame.reset_index().melt("gene", var_name="metric", value_name="value")

    def _ssim(self, prediction: Prediction, truth: Matrix, sample: Sample) -> Matrix:
        """Return structural similarity of the genes in small sets; the panel would take minutes."""
        scores = np.full(truth.shape[1], np.nan)
        chosen = self._columns(("HVG200", "HEG50", "markers"))
        grid = sample.section.array_xy
        try:
            scores[chosen] = metrics.ssim_per_gene(
                prediction.mean[:, chosen], truth[:, chosen], grid
            )
        except ShapeError:  # spots without places of their own on an array have no maps
            return scores
        return scores

    def _columns(self, sets: Sequence[str]) -> npt.NDArray[np.int64]:
        named = self.training.sets.named()
        genes = {gene for name in sets for gene in named.get(name, ())}
        return np.flatnonzero([gene in genes for gene in self.training.genes])

    def _sections(self, prediction: Prediction, truth: Matrix, sample: Sample) -> Iterator[Row]:
        if self._wants("pcc_spot"):
            own = metrics.mean_over_genes(metrics.pearson_per_spot(prediction.mean, truth)).mean
            flat = metrics.mean_over_genes(
                metrics.constant_profile_per_spot(self.profile, truth)
            ).mean
            yield "pcc_spot", own
            yield "pcc_spot/constant-profile", flat
            yield "pcc_spot/delta", own - flat
        yield CROSS_GENE, cross_gene(prediction.mean, truth, self._columns(("HVG50",)))
        chosen = self._columns(("HVG200",))
        mean, real = prediction.mean[:, chosen], truth[:, chosen]
        if self._wants("morans_i_agreement"):
            yield (
                "morans_i_agreement",
                metrics.morans_i_agreement(mean, real, sample.section.xy_um),
            )
        if self._wants("gene_gene_agreement"):
            yield "gene_gene_agreement", metrics.gene_gene_agreement(mean, real)

    def _uncertainty(self, prediction: Prediction, truth: Matrix) -> Iterator[Row]:
        error = prediction.mean - truth
        if 0.9 in prediction.intervals and self._wants("width_error_agreement"):
            low, high = prediction.intervals[0.9]
            known = ~np.isnan(error).any(axis=0)
            width, error = (high - low)[:, known], error[:, known]
            for across in ("spots", "genes"):
                value = metrics.width_error_agreement(width, error, across=across)
                yield f"width_error_agreement/{across}", value
        if prediction.doubt is not None and self._wants("risk_coverage"):
            chosen = self._columns(("HVG50",))
            kept = metrics.risk_coverage(
                prediction.mean[:, chosen], truth[:, chosen], prediction.doubt, kept=KEPT
            )
            for share, value in zip(KEPT, kept, strict=True):
                yield f"risk_coverage@{share:g}", value

    def _retrieval(
        self, prediction: Prediction, sample: Sample, expression: Matrix | None
    ) -> Iterator[Row]:
        if prediction.embedding is not None and expression is not None:
            yield from self._paired(prediction.embedding, expression)
            yield from self._labels_within(prediction.embedding, expression, sample)
        found = prediction.neighbours
        if found is None:
            return
        if self._wants("neighbour_overlap"):
            k = min(found.shape[1], self.training.settings.top_k)
            oracle = self.oracle_neighbours(sample)
            yield (
                "neighbour_overlap",
                metrics.neighbour_overlap(found[:, :k], oracle[:, :k]),
            )
            yield "neighbour_overlap" + CHANCE, k / len(self.training.names)
        yield from self._labels_across(found, sample)

    def _paired(self, image: Matrix, expression: Matrix) -> Iterator[Row]:
        n = len(image)
        ranks = metrics.paired_ranks(image, expression)
        if self._wants("recall_at_k"):
            ks = {f"recall@{k}": k for k in RECALL_K if k <= n}
            ks |= {f"recall@{share:.0%}": max(1, round(share * n)) for share in RECALL_SHARES}
            for name, k in ks.items():
                yield name, metrics.recall_at_k(ranks, k)
                yield name + CHANCE, metrics.chance_recall(k, n)
        if self._wants("mrr"):
            yield "mrr", metrics.mean_reciprocal_rank(ranks)
            yield "mrr" + CHANCE, metrics.chance_mrr(n)

    def _labels_across(self, found: npt.NDArray[np.int64], sample: Sample) -> Iterator[Row]:
        """Do neighbours among the labelled training spots have the query's label."""
        if sample.labels is None or not (self.training.labels != "").any():
            return
        known = self.training.labels != ""
        kept = np.where((found >= 0) & known[found], found, -1)
        queries = (sample.labels != "") & (kept >= 0).any(axis=1)
        if not queries.any():
            return
        shares = [float((self.training.labels[known] == x).mean()) for x in sample.labels[queries]]
        labels, hits = self.training.labels, kept[queries]
        if self._wants("label_precision"):
            right = (labels[hits] == sample.labels[queries][:, None]) & (hits >= 0)
            yield "label_precision", float((right.sum(axis=1) / (hits >= 0).sum(axis=1)).mean())
            yield "label_precision" + CHANCE, float(np.mean(shares))
        if self._wants("label_recall"):
            value = metrics.label_recall(hits, sample.labels[queries], labels)
            yield f"label_recall@{found.shape[1]}", value

    def _labels_within(self, image: Matrix, expression: Matrix, sample: Sample) -> Iterator[Row]:
        """Do patches find expression of their own label within the test section."""
        if sample.labels is None:
            return
        known = np.flatnonzero(sample.labels != "")
        if len(known) < 2:
            return
        labels = sample.labels[known]
        found = _others(image[known], expression[known], max(LABEL_K))
        chance = [(labels == label).sum() - 1 for label in labels]
        for k in LABEL_K:
            if k >= len(known):
                continue
            if self._wants("label_recall"):
                value = metrics.label_recall(found[:, :k], labels, labels)
                yield f"label_recall_within@{k}", value
            if self._wants("label_precision"):
                value = metrics.label_precision(found[:, :k], labels, labels)
                yield f"label_precision_within@{k}", value
        yield "label_precision_within" + CHANCE, float(np.mean(chance)) / (len(known) - 1)

    def _optimistic(self, prediction: Prediction, truth: Matrix) -> Iterator[Row]:
        """Figures as published code reports them: genes chosen by the test section's own answer."""
        scores = metrics.pearson_per_gene(prediction.mean, truth)
        if np.isnan(scores).all():
            return
        for name, rank in (("HVG50-test", np.nanvar), ("HEG50-test", np.nansum)):
            measured = ~np.isnan(truth).any(axis=0)
            size = np.where(measured, rank(np.nan_to_num(truth), axis=0), -np.inf)
            chosen = np.argsort(-size, kind="stable")[:50]
            yield OPTIMISTIC + name, metrics.mean_over_genes(scores[chosen]).mean
        best = np.sort(scores[~np.isnan(scores)])[::-1]
        for n in SORTED_N:
            yield f"{OPTIMISTIC}PCC-{n}", float(best[:n].mean())


def cross_gene(predicted: Matrix, truth: Matrix, chosen: npt.NDArray[np.int64]) -> float:
    """Return the mean correlation of the chosen genes with predictions of *other* genes.

    What all genes of a section share, depth above all, earns this much without knowing which gene
    is which.

    Parameters
    ----------
    predicted, truth
        ``(n_spots, n_genes)``; genes with NaN are left out, constant predictions count as 0.
    chosen
        Columns of the truth that count.
    """
    known = np.flatnonzero(~np.isnan(truth).any(axis=0) & (np.nan_to_num(truth).std(axis=0) > 0))
    chosen = np.intersect1d(chosen, known)
    if len(known) < 2 or not len(chosen):
        return float("nan")
    matrix = _directions(predicted[:, known]).T @ _directions(truth[:, chosen])
    own = np.searchsorted(known, chosen)
    total = matrix.sum() - matrix[own, np.arange(len(chosen))].sum()
    return float(total / (len(chosen) * (len(known) - 1)))


def _directions(values: Matrix) -> Matrix:
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(norm > 1e-9, norm, np.inf))


def _others(image: Matrix, expression: Matrix, k: int) -> npt.NDArray[np.int64]:
    """Return the ``k`` nearest expression embeddings of other spots, by cosine."""
    left = image / np.maximum(np.linalg.norm(image, axis=1, keepdims=True), 1e-12)
    right = expression / np.maximum(np.linalg.norm(expression, axis=1, keepdims=True), 1e-12)
    scores = left @ right.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(k, len(left) - 1)]


def check_metrics(wanted: Sequence[str]) -> None:
    """Refuse metrics that do not exist.

    Raises
    ------
    ConfigError
        When one is unknown.
    """
    unknown = [name for name in wanted if name not in metrics.METRICS]
    if unknown:
        raise ConfigError(
            explain("metrics", got=", ".join(unknown), expected=", ".join(metrics.METRICS))
        )
