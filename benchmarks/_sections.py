"""The real sections of the benchmarks, how they are split by patient, and their patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from stretrieve.embedders import SectionPatches, collect_patches
from stretrieve.specs import PatchSpec
from stretrieve.spots import Section, SheetRow, log_cp10k, read_section


@dataclass(frozen=True)
class Fold:
    """A split by patient: nobody is on both sides.

    Parameters
    ----------
    name
        For tables.
    train, test
        Sections.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


PATIENTS = MappingProxyType(
    {"A1": "A", "B4": "B", "C2": "C", "C3": "C", "C4": "C", "C5": "C",
     "Rep1": "Rep1", "MOB1": "mouse 1", "MOB2": "mouse 1"}
)  # fmt: skip
FOLDS = MappingProxyType(
    {
        "her2st": (
            Fold("A", ("B4", "C2", "C3", "C4", "C5"), ("A1",)),
            Fold("B", ("A1", "C2", "C3", "C4", "C5"), ("B4",)),
            Fold("C", ("A1", "B4"), ("C2", "C3", "C4", "C5")),
        ),
        "bulb": (
            Fold("Rep1", ("MOB1", "MOB2"), ("Rep1",)),
            Fold("mouse 1", ("Rep1",), ("MOB1", "MOB2")),
        ),
    }
)


def read_all(data: Path, tissue: str) -> dict[str, Section]:
    """Read the sections of a tissue; those of the bulb cut to the genes that all measure.

    Parameters
    ----------
    data
        Holds ``her2st/A1`` … and ``mob_st1k/Rep1``, ``mob_st2k/MOB1``, ``mob_st2k/MOB2``.
    tissue
        ``her2st`` or ``bulb``.
    """
    names = sorted({name for fold in FOLDS[tissue] for name in (*fold.train, *fold.test)})
    sections = {name: read_section(_row(data, name)) for name in names}
    return cut_to_shared_genes(sections) if tissue == "bulb" else sections


def cut_to_shared_genes(sections: Mapping[str, Section]) -> dict[str, Section]:
    """Return the sections with only the genes that all of them measure."""
    first = next(iter(sections.values()))
    shared = set.intersection(*(set(s.gene_names) for s in sections.values()))
    genes = [gene for gene in first.gene_names if gene in shared]
    cut = {}
    for name, section in sections.items():
        columns = section.genes.index.get_indexer(genes)
        cut[name] = dataclasses.replace(
            section, counts=section.counts[:, columns], genes=section.genes.iloc[columns]
        )
    return cut


def _row(data: Path, name: str) -> SheetRow:
    bulb = {"Rep1": "mob_st1k", "MOB1": "mob_st2k", "MOB2": "mob_st2k"}
    folder = (data / bulb.get(name, "her2st") / name).resolve()
    published = folder / "spots_selection.tsv"  # A1's image is a smaller copy: see spots.csv
    own = name in bulb or name == "A1"
    return SheetRow(
        name,
        next(folder.glob("counts.tsv*")),
        patient=PATIENTS[name],
        species="mouse" if name in bulb else "human",
        image=next(folder.glob("image.*")),
        spots=folder / "spots.csv" if own else published,
        format="st",
    )


def patches_of(section: Section, spec: PatchSpec, *, cache: Path) -> SectionPatches:
    """Return a section with its patches, decoded once."""
    return collect_patches(section, spec, cache=cache)


def shuffled(patches: SectionPatches, *, seed: int) -> SectionPatches:
    """Return a section whose patches got the expression of other spots of it."""
    section = patches.section
    order = np.random.default_rng(seed).permutation(section.n_spots)
    return SectionPatches(dataclasses.replace(section, counts=section.counts[order]), patches.views)


def noise(patches: SectionPatches, *, seed: int) -> SectionPatches:
    """Return a section whose patches hold nothing but noise."""
    rng = np.random.default_rng(seed)
    views = tuple(rng.integers(0, 256, view.shape, dtype=np.uint8) for view in patches.views)
    return SectionPatches(patches.section, views)


def truth(section: Section, genes: Sequence[str]) -> np.ndarray:
    """Return log1p CP10k ``(n_spots, len(genes))``, all genes of the section in the denominator."""
    columns = section.genes.index.get_indexer(list(genes))
    return log_cp10k(section.counts).toarray()[:, columns]
