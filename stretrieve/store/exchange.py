"""Sections and genes as Arrow files, independent of LanceDB's own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stretrieve import keys
from stretrieve._files import canonical_json
from stretrieve.errors import ChecksumError, explain
from stretrieve.store import schema
from stretrieve.store.read import rows_from_table
from stretrieve.store.records import GeneRecords, SectionRecord, SpotRows

_FACTS = b"stretrieve.section"
_GENES = b"stretrieve.genes"


def write_section(path: Path, record: SectionRecord, rows: SpotRows) -> None:
    """Write one section to an Arrow file; its record and genes are in the schema's metadata.

    Parameters
    ----------
    path
        The new file.
    record
        The section's row.
    rows
        Its spots, over the genes that it measures.
    """
    import pyarrow as pa

    index = {gene: i for i, gene in enumerate(rows.genes)}
    dims = {name: values.shape[1] for name, values in rows.embeddings.items()}
    dtypes = {name: values.dtype.str for name, values in rows.embeddings.items()}
    table = rows.to_arrow(record.meta, index, schema.spots_schema(dims, dtypes))
    facts = {**record.facts(), schema.DIGESTS: dict(record.digests)}
    table = table.replace_schema_metadata(
        {_FACTS: canonical_json(facts), _GENES: canonical_json(list(rows.genes))}
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_section(path: Path) -> tuple[SectionRecord, SpotRows]:
    """Read a section written by :func:`write_section`, each row checked.

    Raises
    ------
    ChecksumError
        When a row, or the file, is not what was written.
    """
    table = _read(path)
    metadata = table.schema.metadata or {}
    try:
        facts = json.loads(metadata[_FACTS])
        genes = [str(gene) for gene in json.loads(metadata[_GENES])]
        mpp = facts.pop("mpp")
        row: dict[str, Any] = {**facts, schema.MPP_X: mpp[0], schema.MPP_Y: mpp[1]}
        row[schema.DIGESTS] = json.dumps(row[schema.DIGESTS])
        record = SectionRecord.from_row(row)
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    return record, rows_from_table(table, record.section, genes)


def write_gene_table(path: Path, genes: pd.DataFrame) -> None:
    """Write the genes table to an Arrow file."""
    import pyarrow as pa

    table = GeneRecords(genes).to_arrow()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_gene_table(path: Path) -> pd.DataFrame:
    """Read a genes table written by :func:`write_gene_table`."""
    table = _read(path).to_pandas()
    if not np.array_equal(table[schema.GENE_INDEX], np.arange(len(table))):
        raise _damaged(path)
    return table[[schema.GENE, keys.GENE_ID, keys.GENE_SYMBOL]].set_index(schema.GENE)


def _read(path: Path) -> Any:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ChecksumError:
    return ChecksumError(
        explain(f"exported file {path.name}", got="data that cannot be read", remedy="export again")
    )
