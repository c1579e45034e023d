"""Space Ranger ``outs`` folders: Visium of all generations and Visium HD bins.

The matrix is taken from the HDF5 file or the folder of text files, filtered before raw, with or without
a sample prefix; positions with or without header, CSV or parquet. The filtered matrix and the spots
under tissue have to be the same set. A ``tissue_hires_image.png`` or ``tissue_lowres_image.png`` named
as the image has its spots scaled to it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from stretrieve.errors import MppError, SectionError, explain
from stretrieve.spots.lattice import VISIUM, Lattice, square_lattice
from stretrieve.spots.positions import read_positions
from stretrieve.spots.raw import JoinPolicy, RawMatrix, RawSection, SpotTable
from stretrieve.spots.readers.outs import find_outs, is_binned, is_matrix_file
from stretrieve.spots.row import SheetRow
from stretrieve.spots.tenx import read_10x_h5, read_10x_mtx
from stretrieve.spots.textio import read_lines
from stretrieve.units import MppSource, PixelSize


class SpaceRangerReader:
    """Reader of one ``outs`` folder, or of a matrix inside it.

    Parameters
    ----------
    binned
        Whether this is the reader of Visium HD.
    """

    isolated = True

    def __init__(self, *, binned: bool) -> None:
        self._binned = binned

    def detect(self, row: SheetRow) -> bool:
        """Say whether the files are laid out as by Space Ranger, and of this reader's generation."""
        if row.counts.is_file() and not is_matrix_file(row.counts):
            return False
        if is_binned(row.counts) != self._binned:
            return False
        try:
            files = find_outs(row.counts, row.spots, bin_um=row.spot_um)
        except SectionError:
            return True
        return files.matrix is not None and files.positions is not None

    def read(self, row: SheetRow) -> RawSection:
        """Read matrix, positions and scale factors.

        Raises
        ------
        SectionError
            When a file is missing, damaged, or there are several to choose from.
        """
        files = find_outs(row.counts, row.spots, bin_um=row.spot_um)
        if files.matrix is None or files.positions is None:
            raise _missing(row, "matrix" if files.matrix is None else "tissue_positions")
        read = read_10x_h5 if files.matrix.suffix == ".h5" else read_10x_mtx
        matrix, repairs = read(files.matrix)
        scales = _read_scales(files.scales) if files.scales else {}
        spots = read_positions(files.positions)
        factor = _image_factor(row.image, scales)
        return RawSection(
            matrix=_same_suffix(matrix, spots),
            spots=replace(spots, xy=spots.xy * factor),
            join=JoinPolicy.MATRIX_IS_RAW if files.is_raw else JoinPolicy.STRICT,
            lattice=self._lattice(scales),
            pixel_size=_pixel_size(scales, factor),
            repairs=repairs,
        )

    def _lattice(self, scales: dict[str, float]) -> Lattice | None:
        if not self._binned:
            return VISIUM
        bin_um = scales.get("bin_size_um")
        return square_lattice(bin_um) if bin_um else None


def _missing(row: SheetRow, what: str) -> SectionError:
    return SectionError(
        explain(
            f"section {row.section!r}",
            got=f"no {what} at {row.counts}",
            expected="a Space Ranger outs folder",
            remedy="name the positions in the spots column if they are elsewhere",
        )
    )


def _read_scales(path: Path) -> dict[str, float]:
    text = "\n".join(read_lines(path, max_bytes=1 << 20))
    try:
        data: dict[str, Any] = dict(json.loads(text))
        return {key: float(v) for key, v in data.items() if isinstance(v, (int, float))}
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise SectionError(
            explain(path.name, got=str(error)[:120], expected="JSON with scale factors")
        ) from error


def _image_factor(image: Path | None, scales: dict[str, float]) -> float:
    """Return by how much the image of the sheet is smaller than the full-size one."""
    for kind in ("hires", "lowres"):
        if image is None or not image.name.endswith(f"tissue_{kind}_image.png"):
            continue
        factor = scales.get(f"tissue_{kind}_scalef", 0.0)
        if not 0 < factor <= 10:
            raise SectionError(
                explain(f"scale of {image.name}", got=factor, expected=f"tissue_{kind}_scalef")
            )
        return factor
    return 1.0


def _pixel_size(scales: dict[str, float], factor: float) -> PixelSize | None:
    mpp = scales.get("microns_per_pixel")
    if mpp is None:
        return None
    if not 0 < mpp < 1000:
        raise MppError(explain("microns_per_pixel", got=mpp, expected="a number above 0"))
    return PixelSize.square(mpp / factor, MppSource.METADATA)


def _same_suffix(matrix: RawMatrix, spots: SpotTable) -> RawMatrix:
    """Drop the ``-1`` of barcodes on one side when the other side does not have it."""
    if not matrix.spot_ids or set(matrix.spot_ids) & set(spots.spot_ids):
        return matrix
    wanted = set(spots.spot_ids)
    for names in (
        [name.removesuffix("-1") for name in matrix.spot_ids],
        [f"{name}-1" for name in matrix.spot_ids],
    ):
        if wanted & set(names):
            return replace(matrix, spot_ids=names)
    return matrix


VISIUM_READER: Final = SpaceRangerReader(binned=False)
VISIUM_HD_READER: Final = SpaceRangerReader(binned=True)
