"""The spots of one version in canonical order: derived once, memory-mapped ever after."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve._files import sha256_file
from stretrieve.errors import ChecksumError, explain
from stretrieve.store import SpotStore, checksums
from stretrieve.store.read import POSITIONS_DIGEST
from stretrieve.store.schema import META_COLUMNS, POSITION_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "spots.arrow"
_CODE = "section_index"
_ROW_ID = "_rowid"


@dataclass(frozen=True)
class SpotTable:
    """The spots in canonical order.

    Parameters
    ----------
    table
        Columns ``spot_uid``, ``section_index``, the positions, ``library_size`` and ``_rowid``.
    """

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def row_ids(self) -> npt.NDArray[np.uint64]:
        """``(n_spots,)`` rows of the store."""
        return np.asarray(self.table.column(_ROW_ID).to_numpy(), dtype=np.uint64)

    @cached_property
    def section_index(self) -> npt.NDArray[np.int64]:
        """``(n_spots,)`` section of each spot, as position among the sections sorted by name."""
        return np.asarray(self.table.column(_CODE).to_numpy(), dtype=np.int64)

    @cached_property
    def library_size(self) -> npt.NDArray[np.float64]:
        """``(n_spots,)`` total counts of each spot."""
        return np.asarray(self.table.column(keys.LIBRARY_SIZE).to_numpy(), dtype=np.float64)

    @cached_property
    def uids(self) -> pd.Index:
        """``(n_spots,)`` names of the spots."""
        return pd.Index(self.table.column(keys.SPOT_UID).to_pandas().astype(object))

    def says_the_same(self, other: SpotTable) -> bool:
        """Whether another table holds the same values, however pandas or Arrow name their types."""
        names = self.table.schema.names
        if sorted(names) != sorted(other.table.schema.names):
            return False
        there = other.table.select(names)
        return bool(there.cast(self.table.schema).equals(self.table))

    def to_pandas(self, sections: pd.DataFrame) -> pd.DataFrame:
        """Return one row a spot with the metadata of its section.

        Parameters
        ----------
        sections
            One row a section, sorted by name, with the metadata columns.
        """
        columns: dict[str, Any] = {keys.SPOT_UID: self.uids}
        for name in META_COLUMNS:
            codes = pd.Categorical(sections[name])
            columns[name] = pd.Categorical.from_codes(
                codes.codes[self.section_index], categories=codes.categories
            )
        for name in (*POSITION_COLUMNS, keys.LIBRARY_SIZE):
            columns[name] = self.table.column(name).to_numpy()
        return pd.DataFrame(columns)


def read_spots(store: SpotStore) -> SpotTable:
    """Read the spots from the store and check names and positions of every section.

    Raises
    ------
    ChecksumError
        When they are not what was written.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = store.spot_table()
    records = store.sections()
    names = pa.array([record.section for record in records], pa.string())
    found = pc.fill_null(pc.index_in(table.column(keys.SECTION), value_set=names), -1)
    codes = found.to_numpy().astype(np.int32)
    if (codes < 0).any():
        raise ChecksumError(
            explain("spots table", got=f"{int((codes < 0).sum())} spots of unknown sections")
        )
    for record, run in zip(records, section_runs(codes, len(records)), strict=True):
        part = table.take(pa.array(run))
        positions = np.column_stack([part.column(name).to_numpy() for name in POSITION_COLUMNS])
        digests = {
            keys.SPOT_UID: checksums.digest_texts(part.column(keys.SPOT_UID).to_pylist()),
            POSITIONS_DIGEST: checksums.digest_array(positions.astype("<f8")),
        }
        for column, digest in digests.items():
            check_column(record.section, column, digest, record.digests.get(column))
    place = table.schema.get_field_index(keys.SECTION)
    return SpotTable(table.remove_column(place).append_column(_CODE, pa.array(codes)))


def section_runs(
    codes: npt.NDArray[np.integer[Any]], n_sections: int
) -> list[npt.NDArray[np.int64]]:
    """Return the positions of each section's spots, ascending.

    Parameters
    ----------
    codes
        ``(n_spots,)`` section of each spot.
    n_sections
        Number of sections.
    """
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(n_sections + 1))
    return [order[a:b] for a, b in itertools.pairwise(ends)]


def checked_vectors(store: SpotStore, spots: SpotTable, column: str) -> npt.NDArray[np.float32]:
    """Read an embedding column ``(n_spots, dim)`` in canonical order and check every section.

    Parameters
    ----------
    store
        Where it is read from.
    spots
        The spots in canonical order.
    column
        Name of the embedding column.

    Raises
    ------
    ChecksumError
        When a section's vectors are not what was written.
    """
    vectors = np.empty((len(spots), store.dims[column]), dtype=np.float32)
    for positions, block in store.vector_blocks(column, order=spots.row_ids):
        vectors[positions] = block
    _check_vectors(store, spots, column, lambda run: vectors[run])
    return vectors


def write_vectors(store: SpotStore, spots: SpotTable, column: str, path: Path) -> None:
    """Write an embedding column in canonical order to a ``.npy`` file and check every section.

    At most a section is in memory at a time.

    Parameters
    ----------
    store
        Where it is read from.
    spots
        The spots in canonical order.
    column
        Name of the embedding column.
    path
        The new file, float32.

    Raises
    ------
    ChecksumError
        When a section's vectors are not what was written.
    """
    dim = store.dims[column]
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(spots), dim)}
    with path.open("w+b") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        start, width = stream.tell(), 4 * dim

        def read(run: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            parts = []
            for part in _consecutive(run):
                stream.seek(start + int(run[part.start]) * width)
                parts.append(stream.read((part.stop - part.start) * width))
            return np.frombuffer(b"".join(parts), dtype="<f4").reshape(-1, dim)

        for positions, block in store.vector_blocks(column, order=spots.row_ids):
            for part in _consecutive(positions):
                stream.seek(start + int(positions[part.start]) * width)
                stream.write(np.ascontiguousarray(block[part], dtype="<f4").data)
        _check_vectors(store, spots, column, read)


def _consecutive(positions: npt.NDArray[np.int64]) -> list[slice]:
    """Return the parts of some positions that lie one behind the other."""
    breaks = (np.flatnonzero(np.diff(positions) != 1) + 1).tolist()
    bounds = [0, *breaks, len(positions)] if len(positions) else []
    return [slice(*pair) for pair in itertools.pairwise(bounds)]


def _check_vectors(
    store: SpotStore,
    spots: SpotTable,
    column: str,
    read: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
) -> None:
    records = store.sections()
    dtype = store.dtypes[column]
    for record, run in zip(records, section_runs(spots.section_index, len(records)), strict=True):
        digest = checksums.digest_array(read(run).astype(dtype, copy=False))
        check_column(record.section, column, digest, record.digests.get(column))


def check_column(section: str, column: str, found: str, stored: str | None) -> None:
    """Compare the digest of a section's column with the stored one.

    Raises
    ------
    ChecksumError
        When they differ.
    """
    if found != stored:
        raise ChecksumError(
            explain(
                f"{column} of section {section!r}",
                got="rows that fail their checksum",
                remedy="run `stretrieve ref verify`, then restore the store from a copy",
            )
        )


def write_spots(spots: SpotTable, path: Path) -> str:
    """Write the spots to a file that can be memory-mapped and return its SHA-256."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, spots.table.schema) as writer:
        writer.write_table(spots.table.combine_chunks())
    return sha256_file(path)


def map_spots(path: Path, sha256: str) -> SpotTable:
    """Memory-map the spots, after the file's checksum.

    Raises
    ------
    ChecksumError
        When the file is missing or is not what the manifest says.
    """
    import pyarrow as pa

    if not path.is_file() or sha256_file(path) != sha256:
        raise ChecksumError(
            explain(
                f"derived file {path.name}",
                got="no such file" if not path.is_file() else "a file that fails its checksum",
                remedy="run `stretrieve ref rebuild-indexes`",
            )
        )
    with pa.memory_map(str(path)) as source:
        return SpotTable(pa.ipc.open_file(source).read_all())
