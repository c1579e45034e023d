"""How strongly spots express a signed set of genes, beside sets of genes as abundant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import __version__, keys
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import ConfigError, GenePanelError, InputError, explain
from stretrieve.query.search.hits import QUERY, RANK, SCHEMA_VERSION, SCORE, Hits
from stretrieve.query.search.moments import GeneMoments, depth_strata, gene_moments, spot_blocks
from stretrieve.query.search.pool import Indices, ReferencePool
from stretrieve.query.search.spotdata import (
    log_expression,
    resolve_genes,
    spots_to_anndata,
    unknown_genes,
)
from stretrieve.store import Filter

if TYPE_CHECKING:
    import anndata as ad

Floats = npt.NDArray[np.float64]
CANDIDATES = 50
"""Genes of similar abundance from which a control gene is drawn."""
LIMIT = 10.0
"""z-scores are clipped here, so that one count of a rare gene does not outweigh the set."""


@dataclass(frozen=True, slots=True)
class SignatureSettings:
    """How a signature is scored.

    Parameters
    ----------
    n_null
        Control sets.
    strata
        Most classes of depth within which expression is standardised.
    min_coverage
        Least share of the set's weight that a spot's section must measure, 0 to 1.
    seed
        Seed of the control sets.
    """

    n_null: int = 100
    strata: int = 10
    min_coverage: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_null < 1 or self.strata < 1:
            got = f"{self.n_null} and {self.strata}"
            raise ConfigError(explain("n_null and strata", got=got, expected="1 or more"))
        if not 0 <= self.min_coverage <= 1:
            raise ConfigError(explain("min_coverage", got=self.min_coverage, expected="0 to 1"))


@dataclass(frozen=True)
class SignatureScores:
    """Scores of every spot that was looked at, by reference.

    Parameters
    ----------
    pool
        The references.
    weights
        Gene key to weight, of the genes that were used.
    unknown
        Names that the references do not hold.
    source, positions
        ``(n_spots,)`` reference number and position.
    score
        ``(n_spots,)``; NaN where the section measures too little of the set.
    null_mean
        ``(n_spots,)`` mean score of the control sets; NaN without them.
    p_value
        ``(n_spots,)`` share of control sets, and the set itself, that score as high or higher.
    coverage
        ``(n_spots,)`` share of the weight that the spot's section measures.
    notes
        What the reader should know.
    """

    pool: ReferencePool
    weights: Mapping[str, float]
    unknown: tuple[str, ...]
    source: Indices
    positions: Indices
    score: Floats
    null_mean: Floats
    p_value: Floats
    coverage: Floats
    notes: tuple[str, ...] = ()

    def order(self, top_k: int) -> Indices:
        """Return the best spots, highest score first, ties in canonical order."""
        if top_k < 1:
            raise ConfigError(explain("top_k", got=top_k, expected="1 or more"))
        order = np.argsort(-self.score, kind="stable")
        return order[: min(top_k, int(np.isfinite(self.score).sum()))]

    def to_frame(self, top_k: int = 10, *, thumbnails: bool = False) -> pd.DataFrame:
        """Return the best spots: rank, score, null_mean, p_value, coverage and what is known of them.

        Parameters
        ----------
        top_k
            Spots wanted.
        thumbnails
            Add a column with the JPEG image of every spot.
        """
        best = self.order(top_k)
        source, positions = self.source[best], self.positions[best]
        table = self.pool.metadata(source, positions).reset_index(drop=True)
        columns = {
            RANK: np.arange(1, len(best) + 1),
            SCORE: self.score[best],
            "null_mean": self.null_mean[best],
            "p_value": self.p_value[best],
            "coverage": self.coverage[best],
        }
        for place, (name, values) in enumerate(columns.items()):
            table.insert(place, name, values)
        if thumbnails:
            table[keys.THUMBNAIL] = self.pool.thumbnails(source, positions)
        return table

    def to_anndata(self, top_k: int = 10) -> ad.AnnData:
        """Return the best spots with their expression; ``obs`` also holds the scores.

        Parameters
        ----------
        top_k
            Spots wanted.
        """
        best = self.order(top_k)
        adata = spots_to_anndata(self.pool, self.source[best], self.positions[best])
        for name in ("score", "null_mean", "p_value", "coverage"):
            adata.obs[name] = getattr(self, name)[best]
        adata.uns[keys.UNS] = {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "unit": keys.NORMALISATION,
            "signature": dict(self.weights),
            "references": self.pool.identities,
            "notes": np.array(self.notes, dtype=object),
        }
        return adata

    def of_patches(self, hits: Hits) -> pd.DataFrame:
        """Rank queries, such as patches of an unmeasured slide, by the score of their neighbours.

        Parameters
        ----------
        hits
            Neighbours of each query in the same references.

        Returns
        -------
        DataFrame
            Columns ``query, rank, score, n_neighbours``, best first: the mean score over the
            neighbours that have one; queries without such neighbours are left out.
        """
        table = np.full((len(self.pool.references), max(map(len, self.pool.unique))), np.nan)
        table[self.source, self.positions] = self.score
        values = np.where(hits.positions >= 0, table[hits.source, hits.positions], np.nan)
        known = np.isfinite(values)
        n = known.sum(axis=1)
        mean = np.where(known, values, 0.0).sum(axis=1) / np.maximum(n, 1)
        order = np.argsort(np.where(n > 0, -mean, np.inf), kind="stable")[: int((n > 0).sum())]
        return pd.DataFrame(
            {
                QUERY: hits.query.names[order],
                RANK: np.arange(1, len(order) + 1),
                SCORE: mean[order],
                "n_neighbours": n[order],
            }
        )


def score_signature(
    pool: ReferencePool,
    signature: Mapping[str, float],
    *,
    where: Filter | None = None,
    ignore_unknown: bool = False,
    settings: SignatureSettings | None = None,
    progress: Progress = SILENT,
) -> SignatureScores:
    """Score every reference spot by a signed set of genes.

    Parameters
    ----------
    pool
        The references.
    signature
        Gene key, symbol or alias to weight, for example ``{"KRT7": 1, "VWF": -1}``.
    where
        Predicate on the metadata of the spots; standardisation is within those.
    ignore_unknown
        Leave out, and report, names that the references do not hold; refuse them by default.
    settings
        See :class:`SignatureSettings`.
    progress
        Receiver of progress, one unit a spot, twice.

    Raises
    ------
    GenePanelError
        When a gene is unknown and not to be ignored, or none is left.
    ConfigError
        When a weight is 0 or not finite.
    InputError
        When the filters leave no spot, or two names are one gene.

    Notes
    -----
    ``score = sum_g w_g z_ig / sum_g |w_g|`` over the genes that the spot's section measures. ``z`` is
    log1p CP10k less its mean over spots of similar depth, over its standard deviation among them
    (depth in up to ten classes of equal size), clipped to ±10: a shallow spot is judged beside
    shallow spots. Each control set replaces every gene by one of the 50 nearest in mean expression
    that is measured wherever that gene is, keeps its weight, and is scored the same way;
    ``p = (1 + controls as high or higher) / (1 + controls)``.
    """
    settings = settings or SignatureSettings()
    weights, unknown = _resolve(pool, signature, ignore_unknown=ignore_unknown)
    allowed = pool.allowed(where)
    strata = depth_strata(pool, allowed, strata=settings.strata)
    n_spots = sum(int(mask.sum()) for mask in allowed)
    with progress.task("score spots", 2 * n_spots) as task:
        moments = gene_moments(pool, allowed, strata, task=task)
        columns = pool.genes.index.get_indexer(list(weights))
        sets, notes = _control_sets(moments, columns, np.array([*weights.values()]), settings)
        parts = []
        for number, positions in spot_blocks(pool, allowed):
            parts.append(_score_block(pool, number, positions, moments, strata, sets, settings))
            task.advance(len(positions))
    if unknown:
        notes = (*notes, f"not in the references, left out: {', '.join(unknown)}")
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    named = dict(zip(_COLUMNS, joined, strict=True))
    result = SignatureScores(pool, weights, unknown, **named, notes=notes)
    if not np.isfinite(result.score).any():
        raise GenePanelError(
            explain(
                "signature",
                got=f"no section that measures {settings.min_coverage:.0%} of its weight",
                remedy="use genes of the panel, or filter other sections",
            )
        )
    return result


def _resolve(
    pool: ReferencePool, signature: Mapping[str, float], *, ignore_unknown: bool
) -> tuple[dict[str, float], tuple[str, ...]]:
    bad = [name for name, w in signature.items() if not math.isfinite(w) or w == 0]
    if bad:
        got = f"{bad[0]}={signature[bad[0]]}"
        raise ConfigError(explain("signature weight", got=got, expected="a number other than 0"))
    names = list(signature)
    found = resolve_genes(pool, names) if names else []
    unknown = tuple(name for name, key in zip(names, found, strict=True) if key is None)
    if len(unknown) == len(names) or (unknown and not ignore_unknown):
        raise unknown_genes(unknown)
    weights: dict[str, float] = {}
    for name, key in zip(names, found, strict=True):
        if key in weights:
            raise InputError(explain("signature", got=f"{key} twice, also as {name}"))
        if key is not None:
            weights[key] = float(signature[name])
    return weights, unknown


_COLUMNS = ("source", "positions", "score", "null_mean", "p_value", "coverage")


@dataclass(frozen=True)
class _Sets:
    """The signature (column 0) and its control sets as weights over the genes in use."""

    genes: Indices
    signed: Floats
    n_null: int


def _control_sets(
    moments: GeneMoments, columns: Indices, weights: Floats, settings: SignatureSettings
) -> tuple[_Sets, tuple[str, ...]]:
    rng = np.random.default_rng(settings.seed)
    candidates = [_similar_genes(moments, int(column), columns) for column in columns]
    least = min(map(len, candidates))
    n_null = settings.n_null if least else 0
    drawn = [columns] + [
        np.array([rng.choice(similar) for similar in candidates]) for _ in range(n_null)
    ]
    genes, inverse = np.unique(np.stack(drawn), return_inverse=True)
    inverse = inverse.reshape(len(drawn), len(columns))
    signed = np.zeros((len(genes), len(drawn)))
    for number, row in enumerate(inverse):
        np.add.at(signed[:, number], row, weights)
    note = "no genes of similar abundance: no control sets" if not least else ""
    if 0 < least < CANDIDATES:
        note = f"control genes drawn from {least} of similar abundance only"
    return _Sets(genes, signed, n_null), (note,) if note else ()


def _similar_genes(moments: GeneMoments, gene: int, exclude: Sequence[int] | Indices) -> Indices:
    """Return the genes nearest in mean expression that are measured wherever ``gene`` is."""
    lacks = np.any(moments.measured[:, [gene]] & ~moments.measured, axis=0)
    near = np.setdiff1d(np.flatnonzero(~lacks), np.asarray(exclude))
    distance = np.abs(moments.overall[near] - moments.overall[gene])
    return near[np.argsort(distance, kind="stable")[:CANDIDATES]]


def _score_block(
    pool: ReferencePool,
    number: int,
    positions: Indices,
    moments: GeneMoments,
    strata: Sequence[Indices],
    sets: _Sets,
    settings: SignatureSettings,
) -> tuple[Indices, Indices, Floats, Floats, Floats, Floats]:
    names = [str(name) for name in pool.genes.index[sets.genes]]
    values, measured = log_expression(pool.references[number], positions, names)
    classes = strata[number][positions]
    mean, sd = moments.mean[classes][:, sets.genes], moments.sd[classes][:, sets.genes]
    z = np.divide(values - mean, sd, out=np.zeros(values.shape), where=measured & (sd > 0))
    weight = measured.astype(np.float64) @ np.abs(sets.signed)
    total = np.clip(z, -LIMIT, LIMIT) @ sets.signed
    scores = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    coverage = weight[:, 0] / np.abs(sets.signed[:, 0]).sum()
    usable = (coverage >= settings.min_coverage) & (weight[:, 0] > 0)
    score = np.where(usable, scores[:, 0], np.nan)
    if sets.n_null:
        null = scores[:, 1:]
        null_mean = np.where(usable, null.mean(axis=1), np.nan)
        above = (null >= score[:, None] - 1e-12).sum(axis=1)
        p_value = np.where(usable, (1 + above) / (1 + sets.n_null), np.nan)
    else:
        null_mean = p_value = np.full(len(positions), np.nan)
    source = np.full(len(positions), number, dtype=np.int64)
    return source, positions, score, null_mean, p_value, coverage
