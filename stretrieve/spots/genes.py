"""Gene identity: one key a gene, whatever name a file gives it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

_ENSEMBL: Final = re.compile(r"^(ENS[A-Z]*G\d{11})(?:\.\d+)?$")


def is_ensembl(name: str) -> bool:
    """Say whether a name is an Ensembl gene id, with or without version."""
    return _ENSEMBL.match(name) is not None


@dataclass(frozen=True)
class GeneIdentity:
    """What the columns of a matrix are.

    Parameters
    ----------
    table
        ``(n_genes, 2)``: index = unique key, columns ``gene_id`` and ``gene_symbol``.
    columns
        ``(n_columns,)`` row of ``table`` for every column of the matrix.
    repairs
        What was mended, with counts.
    """

    table: pd.DataFrame
    columns: npt.NDArray[np.int64]
    repairs: tuple[str, ...]

    def merge(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Sum the columns of one gene: ``(n_spots, n_columns)`` to ``(n_spots, n_genes)`` int32."""
        n_columns = len(self.columns)
        shape = (n_columns, len(self.table))
        gather = sparse.csr_matrix(
            (np.ones(n_columns, dtype=np.int64), (np.arange(n_columns), self.columns)), shape=shape
        )
        merged = sparse.csr_matrix(counts.astype(np.int64) @ gather)
        merged.sort_indices()
        return merged.astype(np.int32)


def identify_genes(
    gene_ids: Sequence[str], gene_symbols: Sequence[str], *, species: str = ""
) -> GeneIdentity:
    """Give every column of a matrix its gene key; columns of one gene are to be summed.

    Parameters
    ----------
    gene_ids
        Names as the file has them: Ensembl ids, with or without version, or symbols.
    gene_symbols
        Symbols beside them, ``""`` where there are none.
    species
        ``"human"`` or ``"mouse"`` when known.
    """
    del species
    ids, symbols, keys = [], [], []
    for given, symbol in zip(gene_ids, gene_symbols, strict=True):
        match = _ENSEMBL.match(given)
        ids.append(match[1] if match else "")
        symbols.append(symbol or ("" if match else given))
        keys.append(match[1] if match else given)
    first: dict[str, int] = {}
    columns = np.array([first.setdefault(key, len(first)) for key in keys], dtype=np.int64)
    firsts = np.unique(columns, return_index=True)[1]
    table = pd.DataFrame(
        {
            "gene_id": [ids[i] for i in firsts],
            "gene_symbol": [symbols[i] for i in firsts],
        },
        index=pd.Index(list(first), name="gene"),
    )
    merged = len(keys) - len(first)
    repairs = (f"{merged} duplicate genes summed",) if merged else ()
    return GeneIdentity(table, columns, repairs)
