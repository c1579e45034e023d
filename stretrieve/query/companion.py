"""The regression beside retrieval: reduced-rank ridge from image embeddings, or the embedder's head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve.embedders.base import Embedder
from stretrieve.errors import ConfigError, explain
from stretrieve.query.pool import Mask, Pool, Positions

RANK: Final = 16
PENALTY: Final = 0.1
"""Ridge penalty, in units of the mean eigenvalue of the embeddings' scatter."""

_SPOTS_PER_BLOCK = 4096

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Companion:
    """A fitted regression of at most :data:`RANK` components.

    Parameters
    ----------
    centre
        ``(dim,)`` embedding at which :attr:`profile` is predicted.
    codes
        ``(dim, rank)`` from embeddings to components.
    loadings
        ``(rank, n_genes)`` from components to expression.
    profile
        ``(n_genes,)`` mean expression; every section weighs the same.
    """

    centre: Matrix
    codes: Matrix
    loadings: Matrix
    profile: Matrix

    def predict(self, embeddings: npt.NDArray[np.floating], columns: Positions) -> Matrix:
        """Return log1p CP10k ``(n_patches, n_columns)`` of some genes."""
        components = (np.asarray(embeddings, dtype=np.float64) - self.centre) @ self.codes
        return np.asarray(components @ self.loadings[:, columns] + self.profile[columns])


@dataclass(frozen=True)
class Head:
    """An embedder's own regression, in place of a fitted one.

    Parameters
    ----------
    embedder
        One that :attr:`~stretrieve.embedders.base.Embedder.regresses`.
    columns
        ``(n_genes,)`` column of each gene of the pool in the embedder's panel, −1 for none.
    """

    embedder: Embedder
    columns: Positions

    @classmethod
    def of(cls, embedder: Embedder, pool: Pool) -> Head:
        """Return the head of an embedder for the genes of a pool.

        Raises
        ------
        ConfigError
            When the embedder has no head that reads embeddings.
        """
        if not embedder.regresses:
            raise ConfigError(
                explain(
                    "companion_kind 'head'",
                    got=f"embedder {embedder.name!r} without a regression head on its embeddings",
                    expected="one that has, such as m2ost with objective = regression",
                    remedy="set companion_kind = ridge",
                )
            )
        panel = pd.Index([str(gene) for gene in embedder.gene_names])
        return cls(embedder, panel.get_indexer([str(gene) for gene in pool.genes.index]))

    def predict(self, embeddings: npt.NDArray[np.floating], columns: Positions) -> Matrix:
        """Return expression ``(n_patches, n_columns)`` of some genes; NaN outside the panel."""
        wanted = self.columns[columns]
        values = self.embedder.regress(np.asarray(embeddings, dtype=np.float32))[:, wanted]
        return np.where(wanted >= 0, values.astype(np.float64), np.nan)


@dataclass(frozen=True)
class _Sums:
    """What the regression needs of the sections: all within sections, so that offsets play no part.

    Parameters
    ----------
    grams
        ``(n_sections, dim, dim)`` scatter of the embeddings around the section's mean.
    products
        ``(dim, n_genes)`` sum over sections of embeddings times expression.
    embeddings, profiles
        ``(n_sections, dim)`` and ``(n_sections, n_genes)`` means.
    measured
        ``(n_sections, n_genes)``.
    """

    grams: Matrix
    products: Matrix
    embeddings: Matrix
    profiles: Matrix
    measured: Mask


def fit_companion(pool: Pool, allowed: Mask) -> Companion:
    """Fit the regression on the spots that may be used.

    Parameters
    ----------
    pool
        The spots.
    allowed
        ``(n_spots,)`` spots to learn from.

    Notes
    -----
    Embeddings and expression are taken around their section's mean. A gene is fitted on the sections
    that measured it. The coefficients are then projected on the leading components of the fitted
    values, as in reduced-rank regression.
    """
    sums = _sums(pool, allowed)
    total = sums.grams.sum(axis=0)
    coefficients = np.zeros_like(sums.products)
    for used, genes in _patterns(sums.measured):
        gram = sums.grams[used].sum(axis=0)
        coefficients[:, genes] = np.linalg.solve(_ridged(gram), sums.products[:, genes])
    codes, loadings = _reduce(total, coefficients)
    voters = np.maximum(sums.measured.sum(axis=0), 1)
    profile = np.where(sums.measured, sums.profiles, 0.0).sum(axis=0) / voters
    return Companion(sums.embeddings.mean(axis=0), codes, loadings, profile)


def _sums(pool: Pool, allowed: Mask) -> _Sums:
    index = pool.section_index
    sections = np.unique(index[allowed])
    measured = pool.measured[sections]
    dim = pool.embeddings("image", np.zeros(1, dtype=np.int64)).shape[1]
    grams = np.zeros((len(sections), dim, dim))
    means, profiles = np.zeros((len(sections), dim)), np.zeros(measured.shape)
    products = np.zeros((dim, measured.shape[1]))
    for place, section in enumerate(sections):
        members = np.flatnonzero((index == section) & allowed)
        vectors = pool.embeddings("image", members).astype(np.float64)
        means[place] = vectors.mean(axis=0)
        vectors -= means[place]
        grams[place] = vectors.T @ vectors
        for start in range(0, len(members), _SPOTS_PER_BLOCK):
            part = slice(start, start + _SPOTS_PER_BLOCK)
            values = pool.log_expression(members[part])
            products += (values.T @ vectors[part]).T
            profiles[place] += np.asarray(values.sum(axis=0, dtype=np.float64)).ravel()
        profiles[place] /= len(members)
    return _Sums(grams, products, means, profiles, measured)


def _patterns(measured: Mask) -> Iterator[tuple[Positions, Positions]]:
    """Yield sections and the genes that exactly these measured."""
    packed = np.packbits(measured, axis=0)
    _, inverse = np.unique(packed, axis=1, return_inverse=True)
    groups = inverse.ravel()
    order = np.argsort(groups, kind="stable")
    for genes in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        used = np.flatnonzero(measured[:, genes[0]])
        if len(used):
            yield used, genes


def _ridged(gram: Matrix) -> Matrix:
    penalty = PENALTY * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(gram + penalty * np.eye(len(gram)))


def _reduce(gram: Matrix, coefficients: Matrix) -> tuple[Matrix, Matrix]:
    """Split coefficients into codes and loadings of the leading components of the fitted values."""
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    fitted = root.T @ coefficients
    scatter, left = np.linalg.eigh(fitted @ fitted.T)
    rank = min(RANK, len(scatter))
    left = left[:, ::-1][:, :rank]
    scatter = np.sqrt(np.maximum(scatter[::-1][:rank], 1e-30))
    loadings = (left.T @ fitted) / scatter[:, None]
    return np.asarray(coefficients @ loadings.T), np.asarray(loadings)
