"""The embedding columns of the spots table: what they are, and how further ones come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._files import canonical_json
from stretrieve.errors import SectionError, explain
from stretrieve.store import schema
from stretrieve.store.lance import LanceTable
from stretrieve.store.records import SectionRecord, SpotRows


class EmbeddingColumns:
    """The embedding columns of a store.

    Parameters
    ----------
    spots, sections
        The tables.
    """

    def __init__(self, spots: LanceTable, sections: LanceTable) -> None:
        self._spots = spots
        self._sections = sections

    @property
    def dims(self) -> dict[str, int]:
        """Width of each column."""
        return {field.name: int(field.type.list_size) for field in self._fields()}

    @property
    def dtypes(self) -> dict[str, str]:
        """How each column is stored: ``"<f4"`` or ``"<f2"``."""
        return {field.name: schema.numpy_type(field.type.value_type) for field in self._fields()}

    def _fields(self) -> list[Any]:
        import pyarrow as pa

        return [f for f in self._spots.schema if pa.types.is_fixed_size_list(f.type)]

    def add(self, dims: Mapping[str, int], *, dtype: str) -> None:
        """Add columns without values beside the present ones.

        The spots are indexed by their names first: that is what lets :meth:`fill` write the new
        columns alone.
        """
        import pyarrow as pa

        if keys.SPOT_UID not in self._spots.indexed:
            crash_point("index spots by their names")
            self._spots.index(keys.SPOT_UID, "BTREE")
        crash_point("add embedding columns")
        fields = [schema.embedding_field(name, dim, dtype) for name, dim in dims.items()]
        self._spots.add_columns(pa.schema(fields))
        crash_point("added embedding columns")

    def fill(self, section: str, rows: SpotRows) -> dict[str, str]:
        """Write the embeddings of one section into columns that :meth:`add` made.

        Parameters
        ----------
        section
            Its name.
        rows
            Its spots; only names and embeddings are used.

        Returns
        -------
        dict
            SHA-256 of each column filled.
        """
        import pyarrow as pa

        rows = rows.sorted(section).stored_as(self.dtypes)
        check_finite(section, rows.embeddings)
        uid = self._spots.schema.field(keys.SPOT_UID)
        fields = [self._spots.schema.field(name) for name in rows.embeddings]
        columns = [pa.array(rows.uids(section), pa.string()), *rows.embedding_arrays().values()]
        crash_point(f"fill embeddings of {section}")
        self._spots.fill(keys.SPOT_UID, pa.table(columns, schema=pa.schema([uid, *fields])))
        crash_point(f"filled embeddings of {section}")
        return {name: rows.digests(section)[name] for name in rows.embeddings}

    def set_digests(self, records: Sequence[SectionRecord]) -> None:
        """Write the digests of some sections' columns anew."""
        import pyarrow as pa

        rows = {
            keys.SECTION: [record.section for record in records],
            schema.DIGESTS: [canonical_json(dict(record.digests)) for record in records],
        }
        fields = [self._sections.schema.field(name) for name in rows]
        crash_point("set digests")
        self._sections.fill(keys.SECTION, pa.table(rows, schema=pa.schema(fields)))
        crash_point("set digests of all sections")

    def drop(self, columns: Sequence[str], records: Sequence[SectionRecord]) -> None:
        """Drop columns, and their digests from the records of all sections."""
        gone = set(columns)
        kept = [
            replace(one, digests={k: v for k, v in one.digests.items() if k not in gone})
            for one in records
        ]
        crash_point("drop embedding columns")
        self._spots.drop_columns(columns)
        self.set_digests(kept)


def check_finite(section: str, embeddings: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuse embeddings that are not finite.

    Raises
    ------
    SectionError
        With the number of spots of the section that have some.
    """
    for name, values in embeddings.items():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        if bad:
            raise SectionError(
                explain(f"{name} of section {section!r}", got=f"{bad} spots that are not finite")
            )
