"""The one module that talks to LanceDB; its quirks stay here.

Measured behaviour that shapes it (LanceDB 0.40): without a declared primary key concurrent upserts
duplicate rows; an untagged version can vanish under its reader; infinite vectors are accepted;
``take_row_ids`` sorts its rows and drops repeats; cleaning old versions fails while one is tagged.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputError, MismatchError, ResourceError, StretrieveError, explain
from stretrieve.store.filters import Filter
from stretrieve.store.schema import PRIMARY_KEYS

if TYPE_CHECKING:
    import pyarrow as pa

ROW_ID = "_rowid"
_PROBE = "stretrieve_probe"
_PROBE_ROWS = 3


@contextlib.contextmanager
def lance_errors(what: str) -> Iterator[None]:
    """Turn what LanceDB raises into our errors, the most specific first.

    Parameters
    ----------
    what
        What was being done, for the message.
    """
    try:
        yield
    except StretrieveError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError | ValueError) and not _is_panic(error):
            raise
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _translated(what, text, getattr(error, "errno", None)) from error


def _is_panic(error: Exception) -> bool:
    """Whether LanceDB's own code gave up, as it does over a damaged index of a column."""
    return type(error).__name__ == "RustPanic"


def _translated(what: str, text: str, number: int | None) -> StretrieveError:
    low = text.lower()
    if number == errno.ENOSPC or "os error 28" in low or "no space left" in low:
        return ResourceError(explain(what, got="a full disk", remedy="free space and run again"))
    if number in (errno.EROFS, errno.EACCES) or "os error 30" in low or "os error 13" in low:
        return InputError(
            explain(what, got="a read-only place", expected="a place that can be written to")
        )
    return MismatchError(
        explain(what, got=text[:200], remedy="run `stretrieve ref verify` to see what is damaged")
    )


class LanceTable:
    """One table, at its latest version or pinned to an older one.

    Parameters
    ----------
    database
        Open LanceDB connection.
    name
        Table name.
    version
        Version to pin; the latest when ``None``.
    """

    def __init__(self, database: Any, name: str, *, version: int | None = None) -> None:
        self.name = name
        with lance_errors(f"table {name!r} of the store"):
            self._table = database.open_table(name)
            if version is not None:
                self._table.checkout(version)

    @classmethod
    def create(cls, database: Any, name: str, schema: pa.Schema) -> LanceTable:
        """Make an empty table with its primary key declared."""
        with lance_errors(f"making table {name!r} of the store"):
            table = database.create_table(name, schema=schema)
            table.set_unenforced_primary_key(PRIMARY_KEYS[name])
        return cls(database, name)

    @property
    def version(self) -> int:
        """The version that reads see."""
        with lance_errors(f"version of table {self.name!r}"):
            return int(self._table.version)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema."""
        with lance_errors(f"columns of table {self.name!r}"):
            return self._table.schema

    def __len__(self) -> int:
        with lance_errors(f"counting rows of table {self.name!r}"):
            return int(self._table.count_rows())

    def append(self, rows: pa.Table) -> None:
        """Append rows in one commit."""
        with lance_errors(f"writing to table {self.name!r}"):
            self._table.add(rows, write_parallelism=1)

    def delete(self, where: Filter) -> None:
        """Delete the rows that satisfy a predicate, in one commit."""
        with lance_errors(f"deleting from table {self.name!r}"):
            self._table.delete(where.to_sql())

    def add_columns(self, fields: pa.Schema) -> None:
        """Add columns without values, in one commit."""
        with lance_errors(f"adding columns to table {self.name!r}"):
            self._table.add_columns(fields)

    def drop_columns(self, columns: Sequence[str]) -> None:
        """Drop columns from now on, in one commit; older versions keep them."""
        with lance_errors(f"dropping columns of table {self.name!r}"):
            self._table.drop_columns(list(columns))

    def fill(self, on: str, rows: pa.Table) -> None:
        """Set some columns of the rows with the given keys, in one commit.

        Where ``on`` is indexed, files of the new columns are added beside the present ones; otherwise
        whole rows are written anew.
        """
        with lance_errors(f"filling columns of table {self.name!r}"):
            self._table.merge_insert(on).when_matched_update_all().execute(rows)

    def index(self, column: str, kind: str) -> None:
        """Index all rows by a column: ``"BITMAP"`` for few different values, ``"BTREE"`` for many."""
        from lancedb.index import Bitmap, BTree

        with lance_errors(f"indexing table {self.name!r} by {column}"):
            config = {"BITMAP": Bitmap, "BTREE": BTree}[kind]()
            self._table.create_index(column, config=config, replace=True)

    @property
    def indexed(self) -> tuple[str, ...]:
        """Columns that rows are indexed by, sorted."""
        with lance_errors(f"indexes of table {self.name!r}"):
            return tuple(sorted(index.columns[0] for index in self._table.list_indices()))

    def restore(self, version: int) -> None:
        """Make an older version the latest again, as a new version with the same rows."""
        with lance_errors(f"restoring table {self.name!r}"):
            self._table.checkout_latest()
            if self._table.version != version:
                self._table.restore(version)

    def tag(self, name: str) -> None:
        """Tag the present version, so that nobody cleans it away; an old tag of the name moves."""
        with lance_errors(f"tagging table {self.name!r}"):
            tags = self._table.tags
            if name in tags.list():
                tags.update(name, self._table.version)
            else:
                tags.create(name, self._table.version)

    def column(
        self, columns: Sequence[str], *, where: Filter | None = None, row_ids: bool = False
    ) -> pa.Table:
        """Read whole columns, all rows or those that satisfy a predicate."""
        with lance_errors(f"reading table {self.name!r}"):
            query = self._table.search().select(list(columns))
            if where is not None:
                query = query.where(where.to_sql())
            if row_ids:
                query = query.with_row_id(True)  # noqa: FBT003 (their signature)
            return query.to_arrow()

    def batches(self, columns: Sequence[str], *, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield whole columns with row ids, at most so many rows at a time."""
        with lance_errors(f"reading table {self.name!r}"):
            query = self._table.search().select(list(columns)).with_row_id(True)  # noqa: FBT003
            yield from query.to_batches(rows)

    def take(self, row_ids: npt.NDArray[np.uint64], columns: Sequence[str]) -> pa.Table:
        """Read some rows, in the order of ``row_ids`` without its repeats sorted ascending.

        Parameters
        ----------
        row_ids
            Row ids, unique and ascending.
        columns
            Columns to read.
        """
        with lance_errors(f"reading rows of table {self.name!r}"):
            query = self._table.take_row_ids(row_ids.tolist()).select(list(columns))
            table = query.with_row_id().to_arrow()
        got = table.column(ROW_ID).to_numpy()
        if not np.array_equal(got, row_ids):
            raise MismatchError(
                explain(
                    f"rows of table {self.name!r}",
                    got=f"{len(got)} rows",
                    expected=f"the {len(row_ids)} that the reference knows",
                    remedy="run `stretrieve ref verify`",
                )
            )
        return table


def connect(uri: str, *, storage_options: Mapping[str, str] | None = None) -> Any:
    """Open a LanceDB database at any URI that it takes."""
    import lancedb

    with lance_errors(f"store {uri}"):
        return lancedb.connect(uri, storage_options=dict(storage_options or {}) or None)


def table_names(database: Any) -> list[str]:
    """Return the names of the tables of a database."""
    with lance_errors("tables of the store"):
        return list(database.list_tables().tables)


def drop_tables(database: Any) -> None:
    """Delete every table of a database."""
    with lance_errors("emptying the store"):
        for name in table_names(database):
            database.drop_table(name)


def probe_commits(database: Any, uri: str) -> None:
    """Check that two commits against the same version of a table are both kept.

    Parameters
    ----------
    database
        Open LanceDB connection to a place without tables.
    uri
        Where it is, for the message.

    Raises
    ------
    InputError
        When a commit is lost.
    """
    import pyarrow as pa

    row = pa.table({"probe": [1]})
    with lance_errors(f"store {uri}"):
        database.create_table(_PROBE, row)
        try:
            one, two = database.open_table(_PROBE), database.open_table(_PROBE)
            one.add(row)
            two.add(row)
            kept = database.open_table(_PROBE).count_rows()
        finally:
            database.drop_table(_PROBE)
    if kept != _PROBE_ROWS:
        raise InputError(
            explain(
                f"store {uri}",
                got="a place that loses one of two commits",
                expected="an object store with conditional writes (If-None-Match)",
            )
        )
