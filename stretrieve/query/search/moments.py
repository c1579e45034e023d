"""Mean and spread of every gene among spots of similar depth, over all references, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve import keys
from stretrieve._progress import Task
from stretrieve.query.search.pool import Indices, Mask, ReferencePool
from stretrieve.spots import log_cp10k

Floats = npt.NDArray[np.float64]
BLOCK = 4096
MIN_SPOTS = 50
_FLAT = 1e-6


@dataclass(frozen=True)
class GeneMoments:
    """Moments of log1p CP10k over the genes of a pool.

    Parameters
    ----------
    mean, sd
        ``(n_strata, n_genes)`` over the spots that measure the gene; ``sd`` is 0 where it is
        constant or hardly measured.
    overall
        ``(n_genes,)`` mean over all spots that measure the gene.
    measured
        ``(n_sections, n_genes)`` which section in use measures what, over all references.
    """

    mean: Floats
    sd: Floats
    overall: Floats
    measured: Mask


def depth_strata(
    pool: ReferencePool, allowed: Sequence[Mask], *, strata: int
) -> tuple[Indices, ...]:
    """Return for each reference ``(n_spots,)`` the class of depth of every spot.

    Parameters
    ----------
    pool
        The references.
    allowed
        For each reference, the spots in use; classes hold equally many of those.
    strata
        Most classes; fewer where a class would hold under 50 spots.
    """
    library = [reference.spots[keys.LIBRARY_SIZE].to_numpy() for reference in pool.references]
    used = np.concatenate([sizes[mask] for sizes, mask in zip(library, allowed, strict=True)])
    n = max(1, min(strata, len(used) // MIN_SPOTS))
    edges = np.quantile(used, np.arange(1, n) / n)
    return tuple(np.searchsorted(edges, sizes, side="right") for sizes in library)


def spot_blocks(pool: ReferencePool, allowed: Sequence[Mask]) -> Iterator[tuple[int, Indices]]:
    """Yield reference number and positions ``(n,)`` of the spots in use, a few thousand at a time."""
    for number in range(len(pool.references)):
        positions = np.flatnonzero(allowed[number])
        for start in range(0, len(positions), BLOCK):
            yield number, positions[start : start + BLOCK]


def gene_moments(
    pool: ReferencePool, allowed: Sequence[Mask], strata: Sequence[Indices], *, task: Task
) -> GeneMoments:
    """Return mean and standard deviation of every gene in every class of depth.

    Parameters
    ----------
    pool
        The references.
    allowed, strata
        For each reference, the spots in use and the class of depth of every spot.
    task
        Told of every block.
    """
    n_strata = 1 + max(int(classes.max(initial=0)) for classes in strata)
    shape = (n_strata, len(pool.genes))
    sums, squares, counts = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for number, positions in spot_blocks(pool, allowed):
        columns = pool.genes.index.get_indexer(pool.references[number].genes.index)
        classes = strata[number][positions]
        one_hot = sparse.csr_matrix(
            (np.ones(len(positions)), (classes, np.arange(len(positions)))),
            shape=(n_strata, len(positions)),
        )
        values = _log(pool, number, positions)
        sums[:, columns] += (one_hot @ values).toarray()
        squares[:, columns] += (one_hot @ values.power(2)).toarray()
        counts[:, columns] += _measured_counts(pool, number, positions, classes, n_strata)
        task.advance(len(positions))
    mean = sums / np.maximum(counts, 1)
    sd = np.sqrt(np.maximum(squares / np.maximum(counts, 1) - mean**2, 0.0))
    overall = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    return GeneMoments(mean, np.where(sd > _FLAT, sd, 0.0), overall, _measured(pool, allowed))


def _log(pool: ReferencePool, number: int, positions: Indices) -> sparse.csr_matrix:
    reference = pool.references[number]
    library = reference.spots[keys.LIBRARY_SIZE].to_numpy()[positions]
    return log_cp10k(reference.expression(positions), library_size=library).astype(np.float64)


def _measured_counts(
    pool: ReferencePool, number: int, positions: Indices, classes: Indices, n_strata: int
) -> Floats:
    reference = pool.references[number]
    sections = reference.section_index[positions]
    per_section = np.zeros((n_strata, len(reference.measured)))
    np.add.at(per_section, (classes, sections), 1.0)
    return per_section @ reference.measured.astype(np.float64)


def _measured(pool: ReferencePool, allowed: Sequence[Mask]) -> Mask:
    rows = []
    for reference, mask in zip(pool.references, allowed, strict=True):
        columns = pool.genes.index.get_indexer(reference.genes.index)
        used = np.unique(reference.section_index[mask])
        part = np.zeros((len(used), len(pool.genes)), dtype=np.bool_)
        part[:, columns] = reference.measured[used]
        rows.append(part)
    return np.concatenate(rows)
