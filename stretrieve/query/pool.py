"""What a prediction needs of measured spots: the protocol, and a form of it that lives in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.errors import ConfigError, ShapeError, explain
from stretrieve.indexes import ExactIndex, Metric, SearchResult
from stretrieve.query.impute import StoredRows

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_MODALITIES: Final = ("image", "expression")


class Pool(Protocol):
    """Measured spots to retrieve from; :class:`~stretrieve.reference.Reference` is one.

    Spots are numbered in a fixed order, which breaks ties between equal scores.
    """

    @property
    def spots(self) -> pd.DataFrame:
        """One row a spot; at least ``spot_uid``, ``section`` and ``patient``."""

    @property
    def section_index(self) -> Positions:
        """``(n_spots,)`` section of each spot, as row of :attr:`measured`."""

    @property
    def genes(self) -> pd.DataFrame:
        """Index = gene key; at least ``gene_symbol``."""

    @property
    def measured(self) -> Mask:
        """``(n_sections, n_genes)`` which section measures which gene."""

    @property
    def dataset(self) -> str:
        """Name of the collection, for explanations."""

    def embeddings(self, modality: str, positions: Positions | None = None) -> Embeddings:
        """Return embeddings ``(n, dim)`` of some spots, or of all."""

    def search(
        self, vectors: npt.ArrayLike, k: int, *, modality: str = ..., allowed: Mask | None = None
    ) -> SearchResult:
        """Return the nearest spots by cosine similarity, scored exactly in float64."""

    def log_expression(
        self, positions: Positions, genes: Sequence[str] | None = None
    ) -> sparse.csr_matrix:
        """Return log1p CP10k ``(n_positions, n_genes)`` float32."""


@runtime_checkable
class InMemory(Protocol):
    """A pool whose expression need not be copied to be averaged."""

    def stored_rows(self, positions: Positions, genes: Sequence[str]) -> StoredRows:
        """Return log1p CP10k of some spots and genes where it lies."""


@runtime_checkable
class Pictured(Protocol):
    """A pool that keeps a small picture of each spot's patch."""

    def thumbnails(self, positions: Positions) -> list[bytes]:
        """Return the JPEG picture of each of some spots."""


class PicturedPool(Pool, Pictured, Protocol):
    """Measured spots and a small picture of each."""


@dataclass(frozen=True)
class ArrayPool:
    """Measured spots in memory, for instance the training sections of an evaluation.

    Parameters
    ----------
    vectors
        Modality (``"image"``, ``"expression"``) to embeddings ``(n_spots, dim)`` float32.
    expression
        ``(n_spots, n_genes)`` log1p CP10k.
    spots
        One row a spot, ``spot_uid``, ``section`` and ``patient`` at least.
    section_index
        ``(n_spots,)`` row of ``measured`` of each spot.
    genes
        Index = gene key; ``gene_symbol`` at least.
    measured
        ``(n_sections, n_genes)``.
    dataset
        Name of the collection.
    """

    vectors: Mapping[str, Embeddings]
    expression: sparse.csr_matrix
    spots: pd.DataFrame
    section_index: Positions
    genes: pd.DataFrame
    measured: Mask
    dataset: str = "arrays"
    _indexes: dict[str, ExactIndex] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        vectors: Mapping[str, npt.ArrayLike],
        expression: npt.ArrayLike | sparse.spmatrix,
        genes: Sequence[str],
        *,
        sections: Sequence[str],
        patients: Sequence[str] | None = None,
        spot_uids: Sequence[str] | None = None,
        xy_um: npt.ArrayLike | None = None,
        measured: Mask | None = None,
        dataset: str = "arrays",
    ) -> ArrayPool:
        """Put arrays together.

        Parameters
        ----------
        vectors
            Modality to embeddings ``(n_spots, dim)``.
        expression
            ``(n_spots, n_genes)`` log1p CP10k.
        genes
            Gene keys.
        sections, patients
            Names, one a spot; each section is a patient of its own when ``patients`` is ``None``.
        spot_uids
            Names of the spots; ``section/number`` when ``None``.
        xy_um
            ``(n_spots, 2)`` positions on their sections.
        measured
            ``(n_sections, n_genes)``, sections in ascending order of their names; all when ``None``.
        dataset
            Name of the collection.

        Raises
        ------
        ShapeError
            When the arrays do not agree in the number of spots, genes or sections.
        """
        values = sparse.csr_matrix(expression, dtype=np.float32)
        names, section_index = np.unique(np.asarray(sections, dtype=np.str_), return_inverse=True)
        uids = spot_uids or [f"{name}/{i}" for i, name in enumerate(sections)]
        mask = np.ones((len(names), len(genes)), np.bool_) if measured is None else measured
        arrays = {name: np.ascontiguousarray(v, dtype=np.float32) for name, v in vectors.items()}
        shapes = {
            "spots": {len(sections), values.shape[0], len(uids), *map(len, arrays.values())},
            "genes": {len(genes), values.shape[1], mask.shape[1]},
            "sections": {len(names), len(mask)},
        }
        for what, sizes in shapes.items():
            if len(sizes) != 1:
                raise ShapeError(explain(what, got=sorted(sizes), expected="one number"))
        table: dict[str, Any] = {
            keys.SPOT_UID: list(uids),
            keys.SECTION: list(sections),
            keys.PATIENT: list(patients if patients is not None else sections),
        }
        if xy_um is not None:
            xy = np.asarray(xy_um, dtype=np.float64)
            table |= {keys.X_UM: xy[:, 0], keys.Y_UM: xy[:, 1]}
        index = pd.Index([str(gene) for gene in genes], name="gene")
        named = pd.DataFrame({keys.GENE_ID: "", keys.GENE_SYMBOL: index}, index=index)
        spots = pd.DataFrame(table)
        return cls(arrays, values, spots, section_index.astype(np.int64), named, mask, dataset)

    @classmethod
    def of(cls, pool: Pool, positions: Positions) -> ArrayPool:
        """Copy some spots of a pool into memory, in ascending order of ``positions``."""
        sections, index = np.unique(pool.section_index[positions], return_inverse=True)
        vectors = {name: np.array(pool.embeddings(name, positions)) for name in _MODALITIES}
        return cls(
            vectors,
            pool.log_expression(positions),
            pool.spots.iloc[positions].reset_index(drop=True),
            index.ravel().astype(np.int64),
            pool.genes,
            pool.measured[sections],
            pool.dataset,
        )

    def with_genes(self, genes: Sequence[str]) -> ArrayPool:
        """Return the same spots with some genes only."""
        columns = gene_columns(self, genes)
        return replace(
            self,
            expression=sparse.csr_matrix(self.expression[:, columns]),
            genes=self.genes.iloc[columns],
            measured=self.measured[:, columns],
        )

    def with_vectors(self, vectors: Mapping[str, Embeddings]) -> ArrayPool:
        """Return the same spots with other embeddings."""
        return replace(self, vectors=dict(vectors), _indexes={})

    def embeddings(self, modality: str, positions: Positions | None = None) -> Embeddings:
        """Return embeddings ``(n, dim)`` of some spots, or of all.

        Raises
        ------
        ConfigError
            When there are none of that modality.
        """
        if modality not in self.vectors:
            known = ", ".join(self.vectors)
            raise ConfigError(explain("modality", got=repr(modality), expected=f"one of {known}"))
        vectors = self.vectors[modality]
        return vectors if positions is None else vectors[positions]

    def search(
        self,
        vectors: npt.ArrayLike,
        k: int,
        *,
        modality: str = "expression",
        allowed: Mask | None = None,
    ) -> SearchResult:
        """Return the nearest spots by cosine similarity, scored exactly in float64."""
        if modality not in self._indexes:
            self._indexes[modality] = ExactIndex(self.embeddings(modality), metric=Metric.COSINE)
        query = np.asarray(vectors, dtype=np.float32)
        return self._indexes[modality].search(query, k, allowed=allowed)

    def log_expression(
        self, positions: Positions, genes: Sequence[str] | None = None
    ) -> sparse.csr_matrix:
        """Return log1p CP10k ``(n_positions, n_genes)`` float32."""
        rows = self.expression[positions]
        return rows if genes is None else rows[:, self.genes.index.get_indexer(list(genes))]

    def stored_rows(self, positions: Positions, genes: Sequence[str]) -> StoredRows:
        """Return log1p CP10k of some spots and genes where it lies, if the genes follow each other."""
        span = consecutive(gene_columns(self, genes))
        if span is None:
            return StoredRows.of(self.log_expression(positions, genes))
        return StoredRows.of(self.expression, positions, span)


def spot_positions(pool: Pool, members: Positions) -> npt.NDArray[np.float64] | None:
    """Return where spots lie on their sections, ``(n_members, 2)`` µm; ``None`` when unknown."""
    if keys.X_UM not in pool.spots:
        return None
    xy: npt.NDArray[np.float64] = pool.spots[[keys.X_UM, keys.Y_UM]].to_numpy(dtype=np.float64)
    return xy[members]


def gene_columns(pool: Pool, genes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the columns of some genes in a pool's order."""
    columns: npt.NDArray[Any] = pool.genes.index.get_indexer(list(genes))
    return columns.astype(np.int64)


def consecutive(columns: npt.NDArray[np.int64]) -> slice | None:
    """Return the columns as a slice, ``None`` when they do not follow each other."""
    if len(columns) and (np.diff(columns) == 1).all() and columns[0] >= 0:
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return None


def stored_rows(pool: Pool, positions: Positions, genes: Sequence[str]) -> StoredRows:
    """Return log1p CP10k of some spots and genes, without a copy where the pool has it in memory."""
    if isinstance(pool, InMemory):
        return pool.stored_rows(positions, genes)
    return StoredRows.of(pool.log_expression(positions, genes))
