"""The three tables as one store with one section a commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve.errors import ChecksumError, GenePanelError, SectionError, explain
from stretrieve.store import checksums, read, schema
from stretrieve.store.columns import EmbeddingColumns, check_finite
from stretrieve.store.filters import Equals, IsIn
from stretrieve.store.lance import (
    LanceTable,
    connect,
    drop_tables,
    probe_commits,
    table_names,
)
from stretrieve.store.records import GeneRecords, SectionRecord, SpotRows, unpack_bits

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TableVersions:
    """Versions of the three tables that belong together."""

    spots: int
    genes: int
    sections: int

    def to_dict(self) -> dict[str, int]:
        """Return the versions as plain JSON data."""
        return asdict(self)


class SpotStore:
    """The truth of a reference.

    A section is committed by its row in the sections table, which is written last; spots of a section
    without such a row are remains of an interrupted write.

    Parameters
    ----------
    uri
        Folder or object-store URI of the LanceDB database.
    versions
        Versions to pin; the latest when ``None``.
    storage_options
        Credentials and endpoint of an object store.
    """

    def __init__(
        self,
        uri: str,
        *,
        versions: TableVersions | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self.uri = uri
        database = connect(uri, storage_options=storage_options)
        pinned = versions.to_dict() if versions else {}
        self._spots = LanceTable(database, keys.TABLE_SPOTS, version=pinned.get(keys.TABLE_SPOTS))
        self._genes = LanceTable(database, keys.TABLE_GENES, version=pinned.get(keys.TABLE_GENES))
        self._sections = LanceTable(
            database, keys.TABLE_SECTIONS, version=pinned.get(keys.TABLE_SECTIONS)
        )

    @classmethod
    def create(
        cls,
        uri: str,
        *,
        dims: Mapping[str, int],
        genes: pd.DataFrame,
        dtypes: Mapping[str, str] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> SpotStore:
        """Make an empty store.

        Parameters
        ----------
        uri
            Where.
        dims
            Width of each embedding column.
        genes
            Gene table: index = gene key, columns ``gene_id`` and ``gene_symbol``.
        dtypes
            ``"float16"`` for the embedding columns that are not ``"float32"``.
        storage_options
            Credentials and endpoint of an object store.
        """
        database = connect(uri, storage_options=storage_options)
        drop_tables(database)
        for name, table in (
            (keys.TABLE_SPOTS, schema.spots_schema(dims, dtypes)),
            (keys.TABLE_SECTIONS, schema.sections_schema()),
            (keys.TABLE_GENES, schema.genes_schema()),
        ):
            crash_point(f"create table {name}")
            LanceTable.create(database, name, table)
        store = cls(uri, storage_options=storage_options)
        store.add_genes(genes)
        return store

    @classmethod
    def exists(cls, uri: str, *, storage_options: Mapping[str, str] | None = None) -> bool:
        """Whether a complete store is there; genes are the last thing that :meth:`create` writes."""
        database = connect(uri, storage_options=storage_options)
        if not set(schema.PRIMARY_KEYS) <= set(table_names(database)):
            return False
        return len(LanceTable(database, keys.TABLE_GENES)) > 0

    @classmethod
    def is_occupied(cls, uri: str, *, storage_options: Mapping[str, str] | None = None) -> bool:
        """Whether there are tables at a URI."""
        return bool(table_names(connect(uri, storage_options=storage_options)))

    @classmethod
    def probe(cls, uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Check that a place keeps both of two commits made against the same version.

        Raises
        ------
        InputError
            When one is lost, as in object stores without conditional writes.
        """
        probe_commits(connect(uri, storage_options=storage_options), uri)

    @classmethod
    def drop(cls, uri: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Delete the tables of a store."""
        drop_tables(connect(uri, storage_options=storage_options))

    @property
    def versions(self) -> TableVersions:
        """Versions of the tables that reads see."""
        return TableVersions(self._spots.version, self._genes.version, self._sections.version)

    @property
    def n_spots(self) -> int:
        """Number of spots, remains of an interrupted write included."""
        return len(self._spots)

    @property
    def embeddings(self) -> EmbeddingColumns:
        """The embedding columns."""
        return EmbeddingColumns(self._spots, self._sections)

    @property
    def dims(self) -> dict[str, int]:
        """Width of each embedding column."""
        return self.embeddings.dims

    @property
    def dtypes(self) -> dict[str, str]:
        """How each embedding column is stored: ``"<f4"`` or ``"<f2"``."""
        return self.embeddings.dtypes

    # genes -------------------------------------------------------------------------------------

    @cached_property
    def genes(self) -> pd.DataFrame:
        """Index = gene key in ``gene_index`` order; columns ``gene_id``, ``gene_symbol``."""
        columns = [schema.GENE_INDEX, schema.GENE, keys.GENE_ID, keys.GENE_SYMBOL]
        table = self._genes.column(columns).to_pandas().sort_values(schema.GENE_INDEX)
        if not np.array_equal(table[schema.GENE_INDEX], np.arange(len(table))):
            raise ChecksumError(
                explain(
                    "genes table",
                    got="repeated or missing gene indices",
                    remedy="run `stretrieve ref verify`",
                )
            )
        return table.drop(columns=schema.GENE_INDEX).set_index(schema.GENE)

    def add_genes(self, genes: pd.DataFrame) -> int:
        """Append the genes that are not yet known and return how many they were.

        Parameters
        ----------
        genes
            Index = gene key, columns ``gene_id`` and ``gene_symbol``.

        Raises
        ------
        GenePanelError
            When a gene key occurs twice in ``genes``.
        """
        if not genes.index.is_unique:
            twice = sorted(set(genes.index[genes.index.duplicated()]))
            raise GenePanelError(explain("gene keys", got=f"{twice[0]!r} twice"))
        known = self.genes
        new = genes.loc[~genes.index.isin(known.index)]
        if len(new):
            crash_point("append genes")
            self._genes.append(GeneRecords(new, len(known)).to_arrow())
            crash_point("appended genes")
            self.__dict__.pop("genes", None)
        return len(new)

    @property
    def gene_index(self) -> dict[str, int]:
        """Place of each gene key in the genes table."""
        return {str(key): i for i, key in enumerate(self.genes.index)}

    # sections ----------------------------------------------------------------------------------

    def sections(self) -> tuple[SectionRecord, ...]:
        """Return the committed sections, sorted by name."""
        columns = [name for name in self._sections.schema.names if name != schema.MEASURED]
        rows = self._sections.column(columns).to_pylist()
        records = [SectionRecord.from_row(row) for row in rows]
        return tuple(sorted(records, key=lambda record: record.section))

    def measured(self) -> npt.NDArray[np.bool_]:
        """Return which section (sorted by name) measures which gene, ``(n_sections, n_genes)``."""
        columns = [keys.SECTION, schema.MEASURED, schema.MEASURED_CRC]
        table = self._sections.column(columns).sort_by(keys.SECTION)
        packed = table.column(schema.MEASURED).to_pylist()
        _check_measured(packed, table.column(schema.MEASURED_CRC))
        n = len(self.genes)
        rows = [unpack_bits(bits, n) for bits in packed]
        return np.asarray(rows, dtype=bool).reshape(len(rows), n)

    def append_section(self, record: SectionRecord, rows: SpotRows) -> SectionRecord:
        """Write one section: its spots in one commit, then the row that makes it count.

        Parameters
        ----------
        record
            Metadata; ``n_spots`` and ``digests`` are filled in.
        rows
            The spots, in any order.

        Returns
        -------
        SectionRecord
            The record as written.

        Raises
        ------
        SectionError
            When the section is already there, its name holds a slash, or a value is not finite.
        """
        self._check_new(record.section)
        rows = rows.sorted(record.section).stored_as(self.dtypes)
        check_finite(record.section, rows.embeddings)
        index = self.gene_index
        record = replace(record, n_spots=len(rows.spot_ids), digests=rows.digests(record.section))
        crash_point(f"append spots of {record.section}")
        self._spots.append(rows.to_arrow(record.meta, index, self._spots.schema))
        crash_point(f"append section {record.section}")
        self._sections.append(record.to_arrow(rows.genes, index))
        crash_point(f"appended section {record.section}")
        return record

    def _check_new(self, section: str) -> None:
        check_section_name(section)
        there = self._sections.column([keys.SECTION], where=Equals(keys.SECTION, section))
        if len(there):
            raise SectionError(
                explain(f"section {section!r}", got="a section that is already there")
            )

    def discard_uncommitted(self) -> None:
        """Delete the spots of sections whose write was interrupted."""
        committed = self._sections.column([keys.SECTION]).column(keys.SECTION).to_pylist()
        kept = IsIn(keys.SECTION, tuple(sorted(committed)))
        if self.n_spots != sum(record.n_spots for record in self.sections()):
            crash_point("discard uncommitted spots")
            self._spots.delete(~kept)

    def remove_sections(self, sections: Sequence[str]) -> None:
        """Delete sections: first the rows that make them count, then their spots."""
        where = IsIn(keys.SECTION, tuple(sections))
        crash_point("remove section rows")
        self._sections.delete(where)
        crash_point("remove spots")
        self._spots.delete(where)
        crash_point("removed spots")

    def index_metadata(self) -> None:
        """Index the spots by each metadata column, so that one section is found among thousands."""
        for column in schema.META_COLUMNS:
            crash_point(f"index spots by {column}")
            self._spots.index(column, "BITMAP")

    @property
    def indexed(self) -> tuple[str, ...]:
        """Columns that the spots are indexed by, sorted."""
        return self._spots.indexed

    def restore(self, versions: TableVersions) -> None:
        """Go back to older versions of the tables, after an interrupted write."""
        for table in (self._sections, self._spots, self._genes):
            crash_point(f"restore table {table.name}")
            table.restore(getattr(versions, table.name))
        self.__dict__.pop("genes", None)

    def tag(self, name: str) -> None:
        """Tag the present versions of the three tables."""
        for table in (self._sections, self._spots, self._genes):
            crash_point(f"tag table {table.name}")
            table.tag(name)

    # spots -------------------------------------------------------------------------------------

    def spot_table(self) -> pa.Table:
        """Return every spot in canonical order; see :func:`~stretrieve.store.read.read_spot_table`."""
        return read.read_spot_table(self._spots)

    def vector_blocks(
        self, column: str, *, order: npt.NDArray[np.uint64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Read an embedding column; see :func:`~stretrieve.store.read.vector_blocks`."""
        return read.vector_blocks(self._spots, column, order)

    def expression(self, row_ids: npt.NDArray[np.uint64]) -> sparse.csr_matrix:
        """Return raw counts ``(n_rows, n_genes)`` of some rows, repeats allowed.

        Raises
        ------
        ChecksumError
            When a row is not what was written.
        """
        return read.read_counts(self._spots, row_ids, len(self.genes))

    def thumbnails(self, row_ids: npt.NDArray[np.uint64]) -> list[bytes]:
        """Return the JPEG images of some rows, repeats allowed, each checked."""
        return read.read_thumbnails(self._spots, row_ids)

    def section_rows(self, section: str) -> SpotRows:
        """Return all spots of one section in canonical order, over the genes that it measures.

        Raises
        ------
        ChecksumError
            When a row is not what was written.
        """
        genes = [str(key) for key in self.genes.index]
        records = self.sections()
        place = [record.section for record in records].index(section)
        rows = read.read_section_rows(self._spots, records[place].meta, genes)
        measured = self.measured()[place]
        kept = np.flatnonzero(measured)
        counts = rows.counts[:, kept]
        if counts.nnz != rows.counts.nnz:
            raise ChecksumError(
                explain(f"counts of section {section!r}", got="counts of genes it does not measure")
            )
        return replace(rows, counts=counts, genes=[genes[int(i)] for i in kept])


def check_section_name(section: str) -> None:
    """Refuse a name that would make the names of spots ambiguous.

    Raises
    ------
    SectionError
        When it is empty or holds a slash.
    """
    if "/" in section or not section:
        raise SectionError(
            explain("section name", got=repr(section), expected="a name without a slash")
        )


def _check_measured(packed: Sequence[bytes], stored: Any) -> None:
    read.check_rows(checksums.crc32(packed), stored, "measured genes")
