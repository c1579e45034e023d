"""How far two gene lists speak of the same genes, and the refusal when they hardly do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stretrieve.errors import GenePanelError, explain
from stretrieve.spots.genes import GeneIdentity, identify_genes, is_ensembl
from stretrieve.spots.section import Section

MIN_OVERLAP: Final = 0.5

GeneList = GeneIdentity | Section | Sequence[str]


@dataclass(frozen=True, slots=True)
class GeneOverlap:
    """Two gene lists side by side.

    Parameters
    ----------
    name_a, name_b
        What the lists are called.
    n_a, n_b
        Distinct genes of each.
    mapped
        Keys that both have.
    lost_a, lost_b
        Keys that only one has.
    ambiguous
        Names of either list that stand for several genes.
    species_a, species_b
        Species as the names tell it.
    ids_a, ids_b
        Share of keys that are Ensembl ids.
    """

    name_a: str
    name_b: str
    n_a: int
    n_b: int
    mapped: tuple[str, ...]
    lost_a: tuple[str, ...]
    lost_b: tuple[str, ...]
    ambiguous: tuple[str, ...]
    species_a: str
    species_b: str
    ids_a: float
    ids_b: float

    @property
    def fraction(self) -> float:
        """Shared genes over the genes of the smaller list."""
        return len(self.mapped) / max(min(self.n_a, self.n_b), 1)

    @property
    def remedy(self) -> str:
        """What to do when the overlap is low."""
        if self.species_a and self.species_b and self.species_a != self.species_b:
            return f"{self.name_a} is {self.species_a}, {self.name_b} is {self.species_b}"
        if abs(self.ids_a - self.ids_b) > MIN_OVERLAP:
            return (
                "one has Ensembl ids, the other symbols: set the species column so both are mapped"
            )
        return "check species and gene names of both, or leave one of them out"


def compare_genes(
    a: GeneList, b: GeneList, *, name_a: str = "A", name_b: str = "B", species: str = ""
) -> GeneOverlap:
    """Compare two gene lists by gene key.

    Parameters
    ----------
    a, b
        Sections, gene identities, or plain lists of names.
    name_a, name_b
        Names for messages.
    species
        Species of plain lists; their names tell it when empty.
    """
    one, two = _keys(a, species), _keys(b, species)
    theirs = set(two.keys)
    mapped = [key for key in one.keys if key in theirs]
    shared = set(mapped)
    return GeneOverlap(
        name_a=name_a,
        name_b=name_b,
        n_a=len(one.keys),
        n_b=len(two.keys),
        mapped=tuple(mapped),
        lost_a=tuple(key for key in one.keys if key not in shared),
        lost_b=tuple(key for key in two.keys if key not in shared),
        ambiguous=tuple(sorted({*one.ambiguous, *two.ambiguous})),
        species_a=one.species,
        species_b=two.species,
        ids_a=_share_of_ids(one.keys),
        ids_b=_share_of_ids(two.keys),
    )


def check_overlap(overlap: GeneOverlap, *, minimum: float = MIN_OVERLAP) -> None:
    """Refuse two gene lists that share too little of the smaller one.

    Raises
    ------
    GenePanelError
        When less than ``minimum`` is shared; the message says what to do.
    """
    if overlap.fraction < minimum:
        raise GenePanelError(
            explain(
                f"genes of {overlap.name_a} and {overlap.name_b}",
                got=f"{len(overlap.mapped)} of {min(overlap.n_a, overlap.n_b)} shared "
                f"({overlap.fraction:.0%})",
                expected=f"{minimum:.0%} or more",
                remedy=overlap.remedy,
            )
        )


def _keys(genes: GeneList, species: str) -> GeneIdentity:
    if isinstance(genes, GeneIdentity):
        return genes
    if isinstance(genes, Section):
        return identify_genes(
            genes.gene_names, list(genes.genes["gene_symbol"]), species=genes.meta.species
        )
    return identify_genes(list(genes), species=species)


def _share_of_ids(keys: Sequence[str]) -> float:
    return sum(is_ensembl(key) for key in keys) / max(len(keys), 1)
