"""The spots of one version in canonical order: derived once, memory-mapped ever after."""

from __future__ import annotations

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
    def uids(self) -> pd.Index:
        """``(n_spots,)`` names of the spots."""
        return pd.Index(self.table.column(keys.SPOT_UID).to_pandas().astype(object))

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

    frame = store.spot_table()
    records = store.sections()
    names = pd.Index([record.section for record in records])
    codes = names.get_indexer(frame[keys.SECTION])
    for place, record in enumerate(records):
        part = frame[codes == place]
        found = {
            keys.SPOT_UID: checksums.digest_texts(part[keys.SPOT_UID]),
            POSITIONS_DIGEST: checksums.digest_array(part[list(POSITION_COLUMNS)].to_numpy("<f8")),
        }
        for column, digest in found.items():
            check_column(record.section, column, digest, record.digests.get(column))
    if (codes < 0).any():
        raise ChecksumError(
            explain("spots table", got=f"{int((codes < 0).sum())} spots of unknown sections")
        )
    frame = frame.drop(columns=keys.SECTION).assign(**{_CODE: codes.astype(np.int32)})
    return SpotTable(pa.Table.from_pandas(frame, preserve_index=False))


def checked_vectors(
    store: SpotStore,
    spots: SpotTable,
    column: str,
    *,
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Read an embedding column ``(n_spots, dim)`` in canonical order and check every section.

    Parameters
    ----------
    store
        Where it is read from.
    spots
        The spots in canonical order.
    column
        Name of the embedding column.
    out
        Where it is written to; made when ``None``.

    Raises
    ------
    ChecksumError
        When a section's vectors are not what was written.
    """
    vectors = store.vectors(column, order=spots.row_ids, out=out)
    for place, record in enumerate(store.sections()):
        run = np.flatnonzero(spots.section_index == place)
        part = vectors[run[0] : run[-1] + 1] if len(run) else vectors[:0]
        digest = checksums.digest_array(part.astype("<f4", copy=False))
        check_column(record.section, column, digest, record.digests.get(column))
    return vectors


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
