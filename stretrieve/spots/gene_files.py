"""Gene names straight from files, for a comparison before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

from stretrieve.errors import GenePanelError, InputNotFoundError, explain
from stretrieve.spots.delimited import read_count_table
from stretrieve.spots.gene_overlap import GeneOverlap, compare_genes
from stretrieve.spots.genes import GeneIdentity, identify_genes
from stretrieve.spots.readers.anndata import open_anndata, read_gene_names
from stretrieve.spots.readers.outs import find_outs
from stretrieve.spots.reading import read_names_apart
from stretrieve.spots.tenx import read_10x_h5, read_10x_mtx
from stretrieve.spots.textio import read_lines, unquote

_BINARY: Final = (".h5ad", ".h5")
_LISTS: Final = (".txt", ".list", ".genes")
_MAX_LIST_BYTES: Final = 64 << 20


def compare_gene_files(
    paths: Sequence[Path | str], *, species: str = ""
) -> tuple[GeneOverlap, ...]:
    """Compare the genes of every pair of files.

    Parameters
    ----------
    paths
        Two or more of what :func:`read_gene_file` takes.
    species
        Species of all of them; their names tell it when empty.

    Returns
    -------
    tuple of GeneOverlap
        One a pair, in the order of the paths.

    Raises
    ------
    GenePanelError
        When fewer than two files are given.
    InputError
        When a file cannot be read.
    """
    if len(paths) < 2:
        raise GenePanelError(explain("gene lists", got=len(paths), expected="two or more"))
    read = [(str(path), read_gene_file(path, species=species)) for path in paths]
    return tuple(
        compare_genes(a, b, name_a=name_a, name_b=name_b)
        for (name_a, a), (name_b, b) in combinations(read, 2)
    )


def read_gene_file(path: Path | str, *, species: str = "") -> GeneIdentity:
    """Read and identify the genes of a file.

    Parameters
    ----------
    path
        A count table, ``.h5ad`` or ``.zarr`` AnnData, a 10x ``.h5`` or a folder with a 10x matrix, or a
        text file with one gene a line (``.txt``).
    species
        As for :func:`~stretrieve.spots.genes.identify_genes`.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    InputError
        When it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise InputNotFoundError(explain("gene list", got=f"no file {path}"))
    text = path.is_file() and not path.name.endswith((*_BINARY, ".mtx", ".mtx.gz"))
    ids, symbols = read_names_here(path) if text else read_names_apart(path)
    if not ids:
        raise GenePanelError(explain(f"genes of {path.name}", got="none", expected="one or more"))
    return identify_genes(ids, symbols, species=species)


def read_names_here(path: Path) -> tuple[list[str], list[str]]:
    """Read gene ids (or names) and symbols in this process.

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    if path.suffix == ".h5ad" or (path.is_dir() and (path / "var").is_dir()):
        with open_anndata(path) as root:
            return read_gene_names(root["var"])
    if path.is_dir() or path.suffix == ".h5" or ".mtx" in path.suffixes:
        found = find_outs(path, None).matrix
        if found is None:
            raise GenePanelError(explain(f"folder {path.name}", got="no matrix in it"))
        matrix = (read_10x_h5 if found.suffix == ".h5" else read_10x_mtx)(found)[0]
    elif path.suffix in _LISTS:
        lines = read_lines(path, max_bytes=_MAX_LIST_BYTES)
        names = [unquote(line) for line in lines if line.strip()]
        return names, [""] * len(names)
    else:
        matrix = read_count_table(path)
    return matrix.gene_ids, matrix.gene_symbols
