"""Genes that scores are reported on, frozen before the test section is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from stretrieve.errors import SectionError, explain
from stretrieve.spots import highly_variable_genes, log_cp10k
from stretrieve.spots.section import Section


@dataclass(frozen=True, slots=True)
class GeneSets:
    """Gene sets of the training sections.

    Parameters
    ----------
    hvg50, hvg200
        Most variable genes, best first.
    heg50
        Genes with the highest mean log expression, best first.
    hmhvg200
        Genes that are both expressed and variable: least sum of the ranks of mean and standard
        deviation of log expression, best first.
    markers
        Named genes that the training sections measure.
    panel
        All genes that predictions are scored on: the most variable ones and every set above, sorted.
    """

    hvg50: tuple[str, ...]
    hvg200: tuple[str, ...]
    heg50: tuple[str, ...]
    hmhvg200: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    panel: tuple[str, ...] = ()

    def named(self) -> Mapping[str, tuple[str, ...]]:
        """Return the sets by the names used in tables; ``ALL`` is the panel."""
        sets = {
            "HVG50": self.hvg50,
            "HVG200": self.hvg200,
            "HEG50": self.heg50,
            "HMHVG200": self.hmhvg200,
            "markers": self.markers,
            "ALL": self.panel,
        }
        return {name: genes for name, genes in sets.items() if genes}

    def to_dict(self) -> dict[str, list[str]]:
        """Return the sets as plain JSON data."""
        return {name: list(getattr(self, name)) for name in self.__slots__}


def freeze_gene_sets(
    sections: Sequence[Section], *, n_genes: int = 200, markers: Sequence[str] = ()
) -> GeneSets:
    """Choose gene sets on training sections only.

    Parameters
    ----------
    sections
        Training sections. Passing the test section here is the leak that this function exists to
        prevent.
    n_genes
        How many of the most variable genes the panel holds at least.
    markers
        Genes of interest, by key or symbol; those that are not measured everywhere are left out.

    Raises
    ------
    SectionError
        When there is no section.
    """
    if not sections:
        raise SectionError(explain("gene sets", got="no section", expected="training sections"))
    variable = highly_variable_genes(sections, max(200, n_genes))
    shared = set.intersection(*(set(section.gene_names) for section in sections))
    genes = sorted(shared)
    mean, spread = _moments(sections, genes)
    top = [genes[i] for i in np.argsort(-mean, kind="stable")[:50]]
    both = rankdata(-mean, method="average") + rankdata(-spread, method="average")
    strong = [genes[i] for i in np.argsort(both, kind="stable")[:200]]
    named = _known(markers, sections[0], shared)
    panel = sorted({*variable, *top, *strong, *named})
    return GeneSets(
        tuple(variable[:50]), tuple(variable[:200]), tuple(top), tuple(strong), named, tuple(panel)
    )


def _moments(
    sections: Sequence[Section], genes: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of log expression, averaged over sections."""
    mean, spread = np.zeros(len(genes)), np.zeros(len(genes))
    for section in sections:
        columns = section.genes.index.get_indexer(list(genes))
        logged = log_cp10k(section.counts)[:, columns]
        own = np.asarray(logged.mean(axis=0), dtype=np.float64).ravel()
        squares = np.asarray(logged.multiply(logged).mean(axis=0), dtype=np.float64).ravel()
        mean += own / len(sections)
        spread += np.sqrt(np.maximum(squares - own**2, 0.0)) / len(sections)
    return mean, spread


def _known(markers: Sequence[str], section: Section, shared: set[str]) -> tuple[str, ...]:
    """Return the keys of the markers that every section measures, in the order asked for."""
    symbols = section.genes["gene_symbol"]
    by_symbol = {str(symbol): str(key) for key, symbol in symbols.items()}
    keys = [name if name in shared else by_symbol.get(name, name) for name in markers]
    return tuple(dict.fromkeys(key for key in keys if key in shared))
