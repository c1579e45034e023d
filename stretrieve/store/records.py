"""Rows of the three tables as plain arrays, and their conversion to and from Arrow."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve import keys
from stretrieve._files import canonical_json
from stretrieve.errors import ChecksumError, ShapeError, explain
from stretrieve.store import checksums, schema

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SectionRecord:
    """One row of the sections table.

    Parameters
    ----------
    section, patient, organ, species, platform, disease
        Names and context.
    n_spots, n_genes
        Number of spots, and of genes that the section measures.
    mpp
        Level-0 pixel size along x and y in µm.
    mpp_source
        Where the pixel size comes from.
    repairs
        What was repaired while reading.
    digests
        SHA-256 of each column of the section's spots, sorted by ``spot_uid``, and of the genes that
        it measures.
    """

    section: str
    patient: str
    organ: str
    species: str
    platform: str
    disease: str
    n_spots: int
    n_genes: int
    mpp: tuple[float, float]
    mpp_source: str
    repairs: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def meta(self) -> dict[str, str]:
        """The metadata columns that are repeated in every spot row."""
        return {name: getattr(self, name) for name in schema.META_COLUMNS}

    def facts(self) -> dict[str, Any]:
        """Return everything but the digests, as plain JSON data."""
        return {
            **self.meta,
            schema.N_SPOTS: self.n_spots,
            schema.N_GENES: self.n_genes,
            "mpp": list(self.mpp),
            schema.MPP_SOURCE: self.mpp_source,
            schema.REPAIRS: list(self.repairs),
        }

    @property
    def digest(self) -> str:
        """SHA-256 over everything that the section holds."""
        return checksums.digest_texts(
            [canonical_json({**self.facts(), schema.DIGESTS: dict(self.digests)})]
        )

    def to_arrow(self, measured: Sequence[str], gene_index: Mapping[str, int]) -> pa.Table:
        """Return the row.

        Parameters
        ----------
        measured
            Gene keys that the section measures.
        gene_index
            Maps gene keys to their place in the genes table.
        """
        import pyarrow as pa

        packed = pack_bits([gene_index[gene] for gene in measured], len(gene_index))
        row: dict[str, Any] = {
            **self.facts(),
            schema.MPP_X: self.mpp[0],
            schema.MPP_Y: self.mpp[1],
            schema.MEASURED: packed,
            schema.MEASURED_CRC: zlib.crc32(packed),
            schema.DIGESTS: canonical_json(dict(self.digests)),
        }
        return pa.Table.from_pylist([row], schema=schema.sections_schema())

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> SectionRecord:
        """Rebuild a record from a row of the table.

        Raises
        ------
        ChecksumError
            When the row is damaged.
        """
        try:
            digests = json.loads(row[schema.DIGESTS])
        except (TypeError, ValueError) as error:
            raise ChecksumError(
                explain(
                    f"row of section {row[keys.SECTION]!r}",
                    got=f"damaged digests ({error})",
                    remedy="run `stretrieve ref verify` to see what is damaged",
                )
            ) from error
        return cls(
            **{name: str(row[name] or "") for name in schema.META_COLUMNS},
            n_spots=int(row[schema.N_SPOTS]),
            n_genes=int(row[schema.N_GENES]),
            mpp=(float(row[schema.MPP_X]), float(row[schema.MPP_Y])),
            mpp_source=str(row[schema.MPP_SOURCE]),
            repairs=tuple(row[schema.REPAIRS] or ()),
            digests=digests,
        )


def pack_bits(places: Sequence[int], n: int) -> bytes:
    """Return a mask of ``n`` places as packed bits, little-endian."""
    bits = np.zeros(n, dtype=bool)
    bits[list(places)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_bits(packed: bytes, n: int) -> npt.NDArray[np.bool_]:
    """Return the first ``n`` bits of a packed mask; bits that were never written are false."""
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")[:n]
    return np.pad(bits, (0, n - len(bits))).astype(bool)


@dataclass(frozen=True)
class SpotRows:
    """The spots of one section.

    Parameters
    ----------
    spot_ids
        ``(n_spots,)`` names within the section.
    xy, xy_um, array_xy
        ``(n_spots, 2)`` centres in level-0 px and in µm, and positions on the array grid.
    counts
        ``(n_spots, n_genes)`` raw counts; column ``j`` is gene ``genes[j]``.
    genes
        ``(n_genes,)`` gene keys of the columns.
    embeddings
        One array ``(n_spots, dim)``, float32 or float16, for each embedding column.
    thumbnails
        ``(n_spots,)`` JPEG images.
    """

    spot_ids: Sequence[str]
    xy: npt.NDArray[np.float64]
    xy_um: npt.NDArray[np.float64]
    array_xy: npt.NDArray[np.float64]
    counts: sparse.csr_matrix
    genes: Sequence[str]
    embeddings: Mapping[str, npt.NDArray[np.floating[Any]]]
    thumbnails: Sequence[bytes]

    def __post_init__(self) -> None:
        n = len(self.spot_ids)
        arrays: list[npt.NDArray[Any]] = [
            self.xy,
            self.xy_um,
            self.array_xy,
            *self.embeddings.values(),
        ]
        got = [*(len(a) for a in arrays), int(self.counts.shape[0]), len(self.thumbnails)]
        if any(rows != n for rows in got):
            raise ShapeError(explain("spot rows", got=got, expected=f"{n} rows in each column"))

    def sorted(self, section: str) -> SpotRows:
        """Return the rows in the order of their ``spot_uid``."""
        order = np.argsort(np.asarray(self.uids(section), dtype=np.str_), kind="stable")
        return SpotRows(
            [self.spot_ids[int(i)] for i in order],
            self.xy[order],
            self.xy_um[order],
            self.array_xy[order],
            self.counts[order],
            self.genes,
            {name: np.asarray(values[order]) for name, values in self.embeddings.items()},
            [self.thumbnails[int(i)] for i in order],
        )

    def stored_as(self, dtypes: Mapping[str, str]) -> SpotRows:
        """Return the rows with their embeddings as numbers of the given types."""
        with np.errstate(over="ignore"):  # what is too large for float16 is refused as infinite
            stored = {
                name: np.asarray(values, dtype=dtypes[name])
                for name, values in self.embeddings.items()
            }
        return replace(self, embeddings=stored)

    def embedding_arrays(self) -> dict[str, pa.Array]:
        """Return the embedding columns."""
        import pyarrow as pa

        return {
            name: pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(values).ravel()), values.shape[1]
            )
            for name, values in self.embeddings.items()
        }

    def uids(self, section: str) -> list[str]:
        """Return the primary keys ``section/spot_id``."""
        return [f"{section}/{spot_id}" for spot_id in self.spot_ids]

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """``(n_spots, 6)`` values of the position columns."""
        return np.hstack([self.xy, self.xy_um, self.array_xy]).astype("<f8")

    def digests(self, section: str) -> dict[str, str]:
        """Return the SHA-256 of each column; the rows must be :meth:`sorted`."""
        return {
            keys.SPOT_UID: checksums.digest_texts(self.uids(section)),
            "positions": checksums.digest_array(self.positions),
            "counts": checksums.digest_counts(self.counts, self.genes),
            schema.MEASURED: checksums.digest_texts(sorted(self.genes)),
            keys.THUMBNAIL: checksums.digest_blobs(self.thumbnails),
            **{name: checksums.digest_array(values) for name, values in self.embeddings.items()},
        }

    def to_arrow(
        self, meta: Mapping[str, str], gene_index: Mapping[str, int], table: pa.Schema
    ) -> pa.Table:
        """Return the rows as a table.

        Parameters
        ----------
        meta
            The metadata columns, the same for every row.
        gene_index
            Maps gene keys to their place in the genes table.
        table
            Schema of the spots table.
        """
        import pyarrow as pa

        n = len(self.spot_ids)
        columns: dict[str, Any] = {
            keys.SPOT_UID: self.uids(meta[keys.SECTION]),
            **{name: [meta[name]] * n for name in schema.META_COLUMNS},
            **dict(zip(schema.POSITION_COLUMNS, self.positions.T, strict=True)),
            **self._count_columns(gene_index),
            **self.embedding_arrays(),
            keys.THUMBNAIL: list(self.thumbnails),
            schema.THUMBNAIL_CRC: checksums.crc32(self.thumbnails),
        }
        return pa.table(
            [
                pa.array(columns[f.name], f.type)
                if not isinstance(columns[f.name], pa.Array)
                else columns[f.name]
                for f in table
            ],
            schema=table,
        )

    def _count_columns(self, gene_index: Mapping[str, int]) -> dict[str, Any]:
        import pyarrow as pa

        place = np.asarray([gene_index[gene] for gene in self.genes], dtype=np.int32)
        matrix = sparse.csr_matrix(
            (self.counts.data.astype(np.int32), place[self.counts.indices], self.counts.indptr),
            shape=(len(self.spot_ids), max(gene_index.values(), default=-1) + 1),
        )
        matrix.sort_indices()
        offsets = pa.array(matrix.indptr.astype(np.int32))
        return {
            keys.LIBRARY_SIZE: np.asarray(matrix.sum(axis=1), dtype=np.int64).ravel(),
            keys.GENE_INDICES: pa.ListArray.from_arrays(offsets, pa.array(matrix.indices)),
            keys.GENE_COUNTS: pa.ListArray.from_arrays(offsets, pa.array(matrix.data)),
            schema.COUNTS_CHECKSUM: checksums.counts_checksum(
                matrix.indptr.astype(np.int64), matrix.indices, matrix.data
            ),
        }


@dataclass(frozen=True)
class GeneRecords:
    """Rows of the genes table.

    Parameters
    ----------
    table
        Index = gene key; columns ``gene_id`` and ``gene_symbol``.
    first_index
        Place of the first row in the genes table.
    """

    table: pd.DataFrame
    first_index: int = 0

    def to_arrow(self) -> pa.Table:
        """Return the rows."""
        import pyarrow as pa

        n = len(self.table)
        return pa.table(
            {
                schema.GENE_INDEX: np.arange(
                    self.first_index, self.first_index + n, dtype=np.int32
                ),
                schema.GENE: [str(key) for key in self.table.index],
                keys.GENE_ID: [str(v) for v in self.table[keys.GENE_ID]],
                keys.GENE_SYMBOL: [str(v) for v in self.table[keys.GENE_SYMBOL]],
                schema.ALIASES: [[] for _ in range(n)],
            },
            schema=schema.genes_schema(),
        )
