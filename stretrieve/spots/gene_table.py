"""The frozen table of gene names: which Ensembl gene a symbol of today, of old, or an alias means.

The table (``data/genes.parquet``) is built by ``scripts/build_gene_table.py`` from release files of
GENCODE, HGNC and MGI; sources, dates and digests are in its metadata (:func:`gene_table_info`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).parent / "data" / "genes.parquet"
METADATA_KEY: Final = b"stretrieve"
PREFIXES: Final = {"human": "ENSG", "mouse": "ENSMUSG"}


class NameKind(IntEnum):
    """How strongly a name stands for a gene; the lower wins."""

    CURRENT = 0
    PREVIOUS = 1
    ALIAS = 2
    RETIRED_ID = 3


@dataclass(frozen=True)
class Candidates:
    """What a name may mean.

    Parameters
    ----------
    ids
        Ensembl ids without version; none when the name is unknown, several when it is ambiguous.
    kind
        How the name is related to them.
    """

    ids: tuple[str, ...]
    kind: NameKind


@dataclass(frozen=True)
class GeneTable:
    """All names of one species.

    Parameters
    ----------
    species
        ``"human"`` or ``"mouse"``.
    names
        For each kind: name to Ensembl ids.
    symbols
        Ensembl id to its current symbol.
    folded
        Case-folded current symbols to the symbols of that spelling.
    """

    species: str
    names: dict[NameKind, dict[str, tuple[str, ...]]]
    symbols: dict[str, str]
    folded: dict[str, tuple[str, ...]]

    def candidates(self, name: str) -> Candidates:
        """Return what a symbol means: today's meaning first, then former ones, then aliases."""
        for kind in (NameKind.CURRENT, NameKind.PREVIOUS, NameKind.ALIAS):
            ids = self.names[kind].get(name)
            if ids:
                return Candidates(ids, kind)
        spellings = self.folded.get(name.casefold(), ())
        if len(spellings) == 1:
            return Candidates(self.names[NameKind.CURRENT][spellings[0]], NameKind.ALIAS)
        return Candidates((), NameKind.ALIAS)

    def living_id(self, gene_id: str) -> str:
        """Return the id that took the place of a retired one, else the id itself."""
        return self.names[NameKind.RETIRED_ID].get(gene_id, (gene_id,))[0]


@lru_cache(maxsize=4)
def load_gene_table(species: str) -> GeneTable | None:
    """Return the table of a species, ``None`` for one that is not covered."""
    if species not in PREFIXES:
        return None
    import pyarrow.compute as pc

    whole = _read()
    table = whole.filter(pc.equal(whole.column("species"), species))
    names: dict[NameKind, dict[str, list[str]]] = {kind: defaultdict(list) for kind in NameKind}
    columns = (table.column(name).to_pylist() for name in ("kind", "name", "gene"))
    symbols: dict[str, str] = {}
    for kind, name, number in zip(*columns, strict=True):
        gene_id = f"{PREFIXES[species]}{number:011d}"
        names[NameKind(kind)][name].append(gene_id)
        if kind == NameKind.CURRENT:
            symbols[gene_id] = name
    folded: dict[str, list[str]] = defaultdict(list)
    for name in names[NameKind.CURRENT]:
        folded[name.casefold()].append(name)
    return GeneTable(
        species=species,
        names={kind: {n: tuple(ids) for n, ids in part.items()} for kind, part in names.items()},
        symbols=symbols,
        folded={name: tuple(spellings) for name, spellings in folded.items()},
    )


def gene_table_info() -> dict[str, Any]:
    """Return sources, dates and digests of the frozen table."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(TABLE).metadata or {}
    return dict(json.loads(metadata[METADATA_KEY]))


def _read() -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(TABLE, use_threads=False)
