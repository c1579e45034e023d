"""Gene identity: one key a gene, whatever name a file gives it.

The key is the Ensembl id without version where the file has it or the frozen table of names resolves the
symbol to exactly one gene, else the name as it stands. A former symbol or an alias never takes a gene
that the same file names directly. Columns of one gene are summed; genes that a file does not have stay
missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve.spots.gene_table import (
    PREFIXES,
    Candidates,
    GeneTable,
    NameKind,
    load_gene_table,
)
from stretrieve.spots.spreadsheet_names import original_names

_ENSEMBL: Final = re.compile(r"^(?:[A-Za-z0-9]+_+)?(ENS[A-Z]*G\d{11})(?:\.\d+)?$")
_DIRECT: Final = -1
_MIN_HITS: Final = 0.5
_MAX_OTHER: Final = 0.25
_EXAMPLES: Final = 5


def is_ensembl(name: str) -> bool:
    """Say whether a name is an Ensembl gene id, with or without version or genome prefix."""
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
    species
        Species whose names were used; ``""`` when none fits.
    ambiguous
        Names that stand for several genes and keep their name as key.
    updated
        Former symbols and aliases that were resolved.
    repairs
        What was mended, with counts.
    """

    table: pd.DataFrame
    columns: npt.NDArray[np.int64]
    species: str = ""
    ambiguous: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The gene keys."""
        return [str(key) for key in self.table.index]

    def merge(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Sum the columns of one gene: ``(n_spots, n_columns)`` to ``(n_spots, n_genes)`` int32."""
        n_columns = len(self.columns)
        if n_columns == len(self.table):  # keys are numbered in the order of the columns
            return counts
        gather = sparse.csr_matrix(
            (np.ones(n_columns, dtype=np.int64), (np.arange(n_columns), self.columns)),
            shape=(n_columns, len(self.table)),
        )
        merged = sparse.csr_matrix(counts.astype(np.int64) @ gather)
        merged.sort_indices()
        return merged.astype(np.int32)


@dataclass
class _Name:
    """One column while it is being identified."""

    given: str
    symbol: str
    key: str = ""
    strength: int = _DIRECT
    mangled: bool = False


def identify_genes(
    gene_ids: Sequence[str], gene_symbols: Sequence[str] | None = None, *, species: str = ""
) -> GeneIdentity:
    """Give every column of a matrix its gene key; columns of one gene are to be summed.

    Parameters
    ----------
    gene_ids
        Names as the file has them: Ensembl ids, with or without version, or symbols.
    gene_symbols
        Symbols beside them, ``""`` where there are none.
    species
        ``"human"``, ``"mouse"``, another one (names stay as they are), or ``""``: the names decide,
        when at least half of them are of one species and under a quarter of the other.
    """
    symbols = [""] * len(gene_ids) if gene_symbols is None else list(gene_symbols)
    names = [_Name(g, s) for g, s in zip(gene_ids, symbols, strict=True)]
    species = species or species_of_names(gene_ids)
    table = load_gene_table(species)
    ambiguous = [name.given for name in names if not _resolve(name, table, species)]
    _yield_to_direct(names)
    return _identity(names, table, species, ambiguous)


def species_of_names(names: Sequence[str]) -> str:
    """Return the species that gene names belong to, ``""`` when they do not tell.

    Parameters
    ----------
    names
        Ensembl ids or symbols.
    """
    shares = {species: _share_known(names, species) for species in PREFIXES}
    ranked = sorted(shares, key=lambda species: shares[species], reverse=True)
    if shares[ranked[0]] >= _MIN_HITS and shares[ranked[1]] <= _MAX_OTHER:
        return ranked[0]
    return ""


def _share_known(names: Sequence[str], species: str) -> float:
    table = load_gene_table(species)
    if table is None or not names:
        return 0.0
    known = 0
    for name in names:
        match = _ENSEMBL.match(name)
        if match:
            known += match[1].startswith(PREFIXES[species])
        else:
            known += any(
                name in table.names[kind] for kind in (NameKind.CURRENT, NameKind.PREVIOUS)
            )
    return known / len(names)


def _resolve(name: _Name, table: GeneTable | None, species: str) -> bool:
    """Fill in key and strength; return ``False`` for a name that stands for several genes."""
    match = _ENSEMBL.match(name.given)
    if match:
        name.key = table.living_id(match[1]) if table else match[1]
        return True
    name.key = name.given
    name.symbol = name.symbol or name.given
    if table is None:
        return True
    found = table.candidates(name.given)
    if not found.ids:
        found = _restored(name, table, species)
    if not found.ids:
        found = _unquoted_by_r(name.given, table)
    if len(found.ids) == 1:
        name.key = found.ids[0]
        name.strength = _DIRECT if found.kind is NameKind.CURRENT else int(found.kind)
    return len(found.ids) < 2


def _restored(name: _Name, table: GeneTable, species: str) -> Candidates:
    """Return what a name that a spreadsheet mangled may mean."""
    originals = original_names(name.given, species=species)
    name.mangled = bool(originals)
    found = [table.candidates(original) for original in originals]
    found = [candidates for candidates in found if candidates.ids]
    best = min((candidates.kind for candidates in found), default=NameKind.ALIAS)
    ids = {i for candidates in found if candidates.kind is best for i in candidates.ids}
    return Candidates(tuple(sorted(ids)), NameKind.PREVIOUS)


def _unquoted_by_r(given: str, table: GeneTable) -> Candidates:
    """Return what a name means that R has made syntactic: ``H2.Ke2``, ``X0610007N19Rik``."""
    plain = given[1:] if given[:1] == "X" and given[1:2].isdigit() else given
    for spelling in (plain, plain.replace(".", "-")):
        found = table.candidates(spelling) if spelling != given else Candidates((), NameKind.ALIAS)
        if found.ids:
            return Candidates(found.ids, NameKind.ALIAS)
    return Candidates((), NameKind.ALIAS)


def _yield_to_direct(names: list[_Name]) -> None:
    """Give indirect names their own key back where a stronger or equal name claims the gene."""
    claims: dict[str, list[_Name]] = {}
    for name in names:
        claims.setdefault(name.key, []).append(name)
    for claimants in claims.values():
        best = min(name.strength for name in claimants)
        at_best = {name.given for name in claimants if name.strength == best}
        for name in claimants:
            beaten = name.strength > best or (best > _DIRECT and len(at_best) > 1)
            if name.strength > _DIRECT and beaten:
                name.key, name.strength = name.given, _DIRECT


def _identity(
    names: list[_Name], table: GeneTable | None, species: str, ambiguous: list[str]
) -> GeneIdentity:
    first: dict[str, int] = {}
    columns = np.array([first.setdefault(name.key, len(first)) for name in names], dtype=np.int64)
    chosen = [names[i] for i in np.unique(columns, return_index=True)[1]]
    known = table.symbols if table else {}
    frame = pd.DataFrame(
        {
            "gene_id": [name.key if is_ensembl(name.key) else "" for name in chosen],
            "gene_symbol": [known.get(name.key, name.symbol) for name in chosen],
        },
        index=pd.Index(list(first), name="gene"),
        dtype=object,
    )
    updated = tuple(name.given for name in names if name.strength > _DIRECT)
    return GeneIdentity(
        table=frame,
        columns=columns,
        species=species if table else "",
        ambiguous=tuple(ambiguous),
        updated=updated,
        repairs=_account(names, n_updated=len(updated), ambiguous=ambiguous),
    )


def _account(names: list[_Name], *, n_updated: int, ambiguous: list[str]) -> tuple[str, ...]:
    repeated = sum(n - 1 for n in Counter(name.key for name in names).values())
    mangled = [name.given for name in names if name.mangled]
    restored = sum(name.mangled and name.strength > _DIRECT for name in names)
    account = []
    if repeated:
        account.append(f"{repeated} duplicate genes summed")
    if n_updated:
        account.append(f"{n_updated} former or alias gene symbols resolved")
    if ambiguous:
        account.append(f"{len(ambiguous)} ambiguous gene symbols kept by name")
    if mangled:
        shown = ", ".join(mangled[:_EXAMPLES])
        account.append(
            f"{restored} of {len(mangled)} gene names turned into dates restored ({shown})"
        )
    return tuple(account)
