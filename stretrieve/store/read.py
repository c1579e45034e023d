"""Reading spots: whole columns for what is derived, some rows for what is asked, all of it checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve import keys
from stretrieve.errors import ChecksumError, explain
from stretrieve.store import checksums, schema
from stretrieve.store.filters import Equals
from stretrieve.store.lance import ROW_ID, LanceTable
from stretrieve.store.records import SpotRows

if TYPE_CHECKING:
    import pyarrow as pa

POSITIONS_DIGEST = "positions"
_TAKE_ROWS = 8192
_BATCH_ROWS = 8192


def read_spot_table(spots: LanceTable) -> pa.Table:
    """Return positions, library size and row id of every spot, in canonical order.

    Returns
    -------
    pyarrow.Table
        Columns ``spot_uid`` (ascending by code point), ``section``, the position columns,
        ``library_size`` and ``_rowid``.
    """
    columns = [keys.SPOT_UID, keys.SECTION, *schema.POSITION_COLUMNS, keys.LIBRARY_SIZE]
    import pyarrow as pa
    import pyarrow.compute as pc

    table = spots.column(columns, row_ids=True)
    order = pc.sort_indices(table, sort_keys=[(keys.SPOT_UID, "ascending")])
    left = dict(zip(table.column_names, table.columns, strict=True))
    del table  # each column is let go when it is sorted, so that memory holds the table once
    return pa.table({name: left.pop(name).take(order).combine_chunks() for name in list(left)})


def vector_blocks(
    spots: LanceTable, column: str, order: npt.NDArray[np.uint64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Yield an embedding column block by block, in the order in which it is stored.

    Parameters
    ----------
    spots
        The spots table.
    column
        Name of the embedding column.
    order
        ``(n_spots,)`` row ids in canonical order.

    Yields
    ------
    tuple
        Canonical positions ``(n,)`` and vectors ``(n, dim)``.
    """
    dim = spots.schema.field(column).type.list_size
    place = np.argsort(order, kind="stable")
    for batch in spots.batches([column], rows=_BATCH_ROWS):
        ids = batch.column(ROW_ID).to_numpy()
        values = batch.column(column).flatten().to_numpy(zero_copy_only=False)
        found = place[np.searchsorted(order, ids, sorter=place)]
        yield found, values.reshape(-1, dim).astype(np.float32, copy=False)


def read_counts(
    spots: LanceTable, row_ids: npt.NDArray[np.uint64], n_genes: int
) -> sparse.csr_matrix:
    """Return raw counts ``(n_rows, n_genes)`` of some rows, repeats allowed, each row checked."""
    wanted, inverse = np.unique(row_ids, return_inverse=True)
    columns = [keys.GENE_INDICES, keys.GENE_COUNTS, schema.COUNTS_CHECKSUM]
    parts = [
        counts_matrix(spots.take(wanted[start : start + _TAKE_ROWS], columns), n_genes)
        for start in range(0, len(wanted), _TAKE_ROWS)
    ]
    if not parts:
        return sparse.csr_matrix((0, n_genes), dtype=np.int32)
    matrix = parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
    return matrix if np.array_equal(wanted, row_ids) else matrix[inverse]


def read_thumbnails(spots: LanceTable, row_ids: npt.NDArray[np.uint64]) -> list[bytes]:
    """Return the JPEG images of some rows, repeats allowed, each checked."""
    wanted, inverse = np.unique(row_ids, return_inverse=True)
    table = spots.take(wanted, [keys.THUMBNAIL, schema.THUMBNAIL_CRC])
    images: list[bytes] = table.column(keys.THUMBNAIL).to_pylist()
    check_rows(checksums.crc32(images), table.column(schema.THUMBNAIL_CRC), "thumbnails")
    return [images[int(i)] for i in inverse]


def read_section_rows(spots: LanceTable, meta: Mapping[str, str], genes: list[str]) -> SpotRows:
    """Return all spots of one section in canonical order.

    Parameters
    ----------
    spots
        The spots table.
    meta
        Metadata of the section, which every row repeats.
    genes
        Every gene key, in ``gene_index`` order.
    """
    section = meta[keys.SECTION]
    table = spots.column(list(spots.schema.names), where=Equals(keys.SECTION, section))
    check_metadata(table, meta)
    return rows_from_table(table.sort_by(keys.SPOT_UID), section, genes)


def check_metadata(table: pa.Table, meta: Mapping[str, str]) -> None:
    """Check that every row repeats the metadata of its section.

    Raises
    ------
    ChecksumError
        When one does not.
    """
    for name, value in meta.items():
        if set(table.column(name).to_pylist()) - {value}:
            raise _damaged(name, f"rows that do not say {value!r}")


def rows_from_table(table: pa.Table, section: str, genes: list[str]) -> SpotRows:
    """Return the rows of a table with the schema of the spots table, counts and images checked.

    Parameters
    ----------
    table
        The rows, all of one section.
    section
        Its name.
    genes
        Gene keys that the gene indices refer to.

    Raises
    ------
    ChecksumError
        When a row is not what was written.
    """
    import pyarrow as pa

    embeddings = [f.name for f in table.schema if pa.types.is_fixed_size_list(f.type)]
    places = {name: table.column(name).to_numpy() for name in schema.POSITION_COLUMNS}
    xy, xy_um, array_xy = (
        np.stack([places[a], places[b]], axis=1)
        for a, b in zip(schema.POSITION_COLUMNS[0::2], schema.POSITION_COLUMNS[1::2], strict=True)
    )
    prefix = len(section) + 1
    counts = counts_matrix(table, len(genes))
    totals = np.asarray(counts.sum(axis=1)).ravel()
    check_rows(totals.astype(np.int64), table.column(keys.LIBRARY_SIZE), "library sizes")
    images: list[bytes] = table.column(keys.THUMBNAIL).to_pylist()
    check_rows(checksums.crc32(images), table.column(schema.THUMBNAIL_CRC), "thumbnails")
    return SpotRows(
        [uid[prefix:] for uid in table.column(keys.SPOT_UID).to_pylist()],
        xy,
        xy_um,
        array_xy,
        counts,
        genes,
        {name: _fixed(table.column(name)) for name in embeddings},
        images,
    )


def counts_matrix(table: Any, n_genes: int) -> sparse.csr_matrix:
    """Return the counts of a table of rows as ``(n_rows, n_genes)``, each row checked."""
    indices = table.column(keys.GENE_INDICES).combine_chunks()
    counts = table.column(keys.GENE_COUNTS).combine_chunks()
    lengths = indices.value_lengths().to_numpy(zero_copy_only=False)
    indptr = np.zeros(len(table) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    flat_indices, flat_counts = indices.flatten().to_numpy(), counts.flatten().to_numpy()
    fits = np.array_equal(lengths, counts.value_lengths().to_numpy(zero_copy_only=False))
    if not fits or (
        len(flat_indices) and not 0 <= flat_indices.min() <= flat_indices.max() < n_genes
    ):
        raise _damaged("counts", "gene indices and counts that do not fit together")
    checked = checksums.counts_checksum(indptr, flat_indices, flat_counts)
    check_rows(checked, table.column(schema.COUNTS_CHECKSUM), "counts")
    return sparse.csr_matrix((flat_counts, flat_indices, indptr), shape=(len(table), n_genes))


def check_rows(found: npt.NDArray[Any], stored: Any, what: str) -> None:
    """Compare the checksums of rows with the stored ones.

    Raises
    ------
    ChecksumError
        When one differs.
    """
    wrong = int((found != stored.to_numpy()).sum())
    if wrong:
        raise _damaged(what, f"{wrong} rows that fail their checksum")


def _fixed(column: Any) -> npt.NDArray[np.floating[Any]]:
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values.reshape(len(column), column.type.list_size))


def _damaged(what: str, got: str) -> ChecksumError:
    return ChecksumError(
        explain(
            f"{what} in the store",
            got=got,
            remedy="run `stretrieve ref verify`, then restore the store from a copy",
        )
    )
