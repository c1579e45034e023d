"""Genes that scores are reported on, frozen before the test section is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """

    hvg50: tuple[str, ...]
    hvg200: tuple[str, ...]
    heg50: tuple[str, ...]

    def to_dict(self) -> dict[str, list[str]]:
        """Return the sets as plain JSON data."""
        return {"hvg50": list(self.hvg50), "hvg200": list(self.hvg200), "heg50": list(self.heg50)}


def freeze_gene_sets(sections: Sequence[Section]) -> GeneSets:
    """Choose gene sets on training sections only.

    Parameters
    ----------
    sections
        Training sections. Passing the test section here is the leak that this function exists to
        prevent.

    Raises
    ------
    SectionError
        When there is no section.
    """
    if not sections:
        raise SectionError(explain("gene sets", got="no section", expected="training sections"))
    variable = highly_variable_genes(sections, 200)
    shared = set.intersection(*(set(section.gene_names) for section in sections))
    genes = sorted(shared)
    mean = np.zeros(len(genes))
    for section in sections:
        columns = section.genes.index.get_indexer(genes)
        logged = log_cp10k(section.counts)[:, columns]
        mean += np.asarray(logged.mean(axis=0)).ravel() / len(sections)
    top = [genes[i] for i in np.argsort(-mean, kind="stable")[:50]]
    return GeneSets(tuple(variable[:50]), tuple(variable), tuple(top))
