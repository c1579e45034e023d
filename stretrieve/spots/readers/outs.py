"""Where the files of a Space Ranger run are, in all the ways people hand them on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stretrieve.errors import SectionError, explain

BINNED: Final = "binned_outputs"
FILTERED: Final = "filtered_feature_bc_matrix"
RAW: Final = "raw_feature_bc_matrix"
DEFAULT_BIN_UM: Final = 8.0
_BIN: Final = re.compile(r"^square_\d{3}um$")
_MTX: Final = ("matrix.mtx.gz", "matrix.mtx")
_POSITIONS: Final = (
    "tissue_positions.parquet",
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions.csv.gz",
    "tissue_positions_list.csv.gz",
)
_SCALES: Final = ("scalefactors_json.json", "scalefactors_json.json.gz")


@dataclass(frozen=True, slots=True)
class OutsFiles:
    """The files of one section; ``None`` for what was not found.

    Parameters
    ----------
    matrix
        The HDF5 file or ``matrix.mtx(.gz)``, filtered before raw.
    positions
        The spot positions.
    scales
        The scale factors.
    """

    matrix: Path | None
    positions: Path | None
    scales: Path | None

    @property
    def is_raw(self) -> bool:
        """Whether the matrix also holds barcodes off the tissue."""
        return self.matrix is not None and RAW in f"{self.matrix.parent.name}/{self.matrix.name}"


def is_binned(counts: Path) -> bool:
    """Say whether a path belongs to a Visium HD run."""
    inside = any(_BIN.match(part.name) for part in (counts, *counts.parents[:3]))
    return inside or _bins(counts) is not None


def find_outs(counts: Path, positions: Path | None, *, bin_um: float | None = None) -> OutsFiles:
    """Find the files of a section.

    Parameters
    ----------
    counts
        The run's folder, its ``outs``, a bin's folder, a matrix folder or a matrix file.
    positions
        The spot positions when the sheet names them.
    bin_um
        Side of the bins to take from a Visium HD run; 8 µm when ``None``.

    Raises
    ------
    SectionError
        When several files could be meant.
    """
    matrix = counts if counts.is_file() else _matrix_in(_home(counts, bin_um))
    if matrix is None:
        return OutsFiles(None, positions, None)
    name = matrix.name if matrix.suffix == ".h5" else matrix.parent.name
    prefix = name.partition(FILTERED)[0] if FILTERED in name else name.partition(RAW)[0]
    prefix = prefix if prefix != name else ""
    base = matrix.parent if matrix.suffix == ".h5" else matrix.parent.parent
    folders = [base / "spatial", base, matrix.parent / "spatial", matrix.parent]
    if positions is None:
        positions = _near(folders, prefix, _POSITIONS)
    else:
        folders.insert(0, positions.parent)
    return OutsFiles(matrix, positions, _near(folders, prefix, _SCALES))


def is_matrix_file(path: Path) -> bool:
    """Say whether a file is a 10x matrix by its name."""
    return path.name.endswith((*_MTX, f"{FILTERED}.h5", f"{RAW}.h5"))


def _bins(counts: Path) -> Path | None:
    for folder in (counts, counts / BINNED, counts / "outs" / BINNED):
        if folder.name == BINNED and folder.is_dir():
            return folder
    return None


def _home(counts: Path, bin_um: float | None) -> Path:
    bins = _bins(counts)
    if bins is not None:
        return bins / f"square_{bin_um or DEFAULT_BIN_UM:03.0f}um"
    nested = (counts / "outs").is_dir() and not (counts / "spatial").is_dir()
    return counts / "outs" if nested else counts


def _matrix_in(home: Path) -> Path | None:
    if not home.is_dir():
        return None
    for stem in (FILTERED, RAW):
        found = _one(home, (f"{stem}.h5",))
        for folder in sorted(p for p in home.iterdir() if p.is_dir() and p.name.endswith(stem)):
            found = found or _one(folder, _MTX)
        if found is not None:
            return found
    return _one(home, _MTX)


def _near(folders: Iterable[Path], prefix: str, endings: tuple[str, ...]) -> Path | None:
    for folder in folders:
        for name in (*(prefix + ending for ending in endings), *endings):
            if (folder / name).is_file():
                return folder / name
        if folder.is_dir() and not prefix:
            found = _one(folder, endings)
            if found is not None:
                return found
    return None


def _one(folder: Path, endings: Iterable[str]) -> Path | None:
    """Return the one file of a folder with the first of these endings that occurs."""
    for ending in endings:
        found = sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(ending))
        if len(found) > 1:
            raise SectionError(
                explain(
                    f"folder {folder.name}",
                    got=" and ".join(p.name for p in found[:3]),
                    expected=f"one …{ending}",
                    remedy="name the file itself in the sheet",
                )
            )
        if found:
            return found[0]
    return None
