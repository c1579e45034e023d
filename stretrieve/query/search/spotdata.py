"""Measured spots of several references as one AnnData; what a section did not measure stays missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve.errors import GenePanelError, explain
from stretrieve.query.search.pool import Indices, ReferencePool
from stretrieve.reference import Reference
from stretrieve.spots import identify_genes, log_cp10k

if TYPE_CHECKING:
    import anndata as ad


def resolve_genes(pool: ReferencePool, names: Sequence[str]) -> list[str | None]:
    """Return the gene key of each name, ``None`` where the references know no such gene.

    Parameters
    ----------
    pool
        The references.
    names
        Gene keys, symbols, or former symbols and aliases where the references are of one species.
    """
    table = pool.genes
    symbols = table.index.to_series(index=table[keys.GENE_SYMBOL])
    by_symbol = symbols[~symbols.index.duplicated(keep=False)]
    species = {str(s[keys.SPECIES]) for r in pool.references for s in r.manifest.sections}
    aliases = identify_genes(list(names), species=species.pop() if len(species) == 1 else "")
    found: list[str | None] = []
    for name, row in zip(names, aliases.columns, strict=True):
        alias = str(aliases.table.index[row])
        known = name if name in table.index else by_symbol.get(name)
        found.append(known if known is not None else alias if alias in table.index else None)
    return [None if key is None else str(key) for key in found]


def known_genes(pool: ReferencePool, names: Sequence[str]) -> list[str]:
    """Return the gene keys of names, each once.

    Raises
    ------
    GenePanelError
        When a name is not of the references.
    """
    found = resolve_genes(pool, names)
    unknown = [name for name, key in zip(names, found, strict=True) if key is None]
    if unknown or not found:
        raise unknown_genes(unknown)
    return list(dict.fromkeys(str(key) for key in found))


def unknown_genes(names: Sequence[str]) -> GenePanelError:
    """Return the error for genes that no reference holds."""
    shown = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "none"
    return GenePanelError(
        explain(
            "genes asked for",
            got=shown,
            expected="genes of the reference",
            remedy="use keys or symbols of its gene table",
        )
    )


def log_expression(
    reference: Reference, positions: Indices, genes: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return log1p CP10k and what was measured, both ``(n_positions, n_genes)``.

    Parameters
    ----------
    reference
        Where the spots are.
    positions
        Spots.
    genes
        Gene keys; one that the reference does not hold is measured nowhere.
    """
    columns = reference.genes.index.get_indexer(list(genes))
    there = columns >= 0
    shape = (len(positions), len(genes))
    values, measured = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    if there.any():
        counts = reference.expression(positions)[:, columns[there]]
        library = reference.spots[keys.LIBRARY_SIZE].to_numpy()[positions]
        values[:, there] = log_cp10k(counts, library_size=library).toarray()
        sections = reference.section_index[positions]
        measured[:, there] = reference.measured[:, columns[there]][sections]
    return values, measured


def spots_to_anndata(
    pool: ReferencePool,
    source: Indices,
    positions: Indices,
    *,
    genes: Sequence[str] | None = None,
) -> ad.AnnData:
    """Return spots with their expression and metadata.

    Parameters
    ----------
    pool
        The references.
    source, positions
        ``(n_spots,)`` reference number and position of each spot.
    genes
        Gene keys or symbols; all genes of the references when ``None``.

    Returns
    -------
    AnnData
        ``X`` log1p CP10k float32, NaN where not measured; ``obs`` metadata; ``obsm["spatial"]``
        level-0 px; observations are named by ``spot_uid``, with the reference's name before it where
        several references were searched.

    Raises
    ------
    GenePanelError
        When a gene asked for is not in the references.
    """
    import anndata

    chosen = list(pool.genes.index) if genes is None else known_genes(pool, genes)
    values = np.full((len(positions), len(chosen)), np.nan, dtype=np.float32)
    for reference, mine in pool.parts(source, positions):
        part, measured = log_expression(reference, positions[mine], chosen)
        values[mine] = np.where(measured, part, np.nan)
    obs = pool.metadata(source, positions)
    names = obs[keys.SPOT_UID].astype(str)
    if len(pool.references) > 1:
        names = obs["reference"] + ":" + names
    obs.index = pd.Index(names.tolist(), name="spot")
    var = pool.genes.loc[chosen].astype(str)
    var["n_measured"] = np.isfinite(values).sum(axis=0)
    xy = obs[[keys.X, keys.Y]].to_numpy(dtype=np.float64)
    return anndata.AnnData(X=values, obs=obs, var=var, obsm={keys.SPATIAL: xy})
