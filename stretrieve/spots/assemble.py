"""From the parts that a reader found to the one validated section."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve.errors import MppError, SectionError, explain
from stretrieve.spots.formats import AUTO, READERS, split_format
from stretrieve.spots.genes import identify_genes
from stretrieve.spots.imagesize import image_size
from stretrieve.spots.join import join_spots
from stretrieve.spots.lattice import pixel_size_from_lattice
from stretrieve.spots.raw import RawSection
from stretrieve.spots.reading import read_parts
from stretrieve.spots.row import UNKNOWN_PATIENT, SheetRow
from stretrieve.spots.section import Section, SectionMeta
from stretrieve.spots.validate import (
    check_coordinates,
    check_names,
    check_not_empty,
    clean_counts,
    drop_empty_spots,
)
from stretrieve.units import PixelSize

_EDGE_PX: Final = 1.0


def read_section(row: SheetRow) -> Section:
    """Read and validate one section of a sheet.

    Parameters
    ----------
    row
        A row of :func:`~stretrieve.spots.sheet.read_sheet`, or one made by hand.

    Raises
    ------
    InputError
        When a file is missing, damaged or hostile, counts are not counts, counts and spots do not
        match, spots lie outside the image, or nothing says how large a pixel is.
    """
    name = split_format(row.format)[0]
    if name == AUTO:
        name = detect_format(row)
    reader = READERS.get(name)
    return assemble(read_parts(name, row) if reader.isolated else reader.read(row), row)


def detect_format(row: SheetRow) -> str:
    """Return the one format whose reader recognises the files of ``row``.

    Raises
    ------
    SectionError
        When none or several do.
    """
    found = [name for name in READERS if READERS.get(name).detect(row)]
    if len(found) != 1:
        raise SectionError(
            explain(
                f"format of section {row.section!r}",
                got=f"{' and '.join(found) or 'nothing known'} at {row.counts}",
                expected=f"one of {', '.join(READERS)}",
                remedy="name it in the sheet's format column",
            )
        )
    return found[0]


def assemble(raw: RawSection, row: SheetRow) -> Section:
    """Join, check and complete the parts of a section.

    Parameters
    ----------
    raw
        The parts as read.
    row
        The sheet's row; its mpp and image go before what the reader found.

    Raises
    ------
    SectionError, MppError
        As :func:`read_section`.
    """
    what = f"section {row.section!r}"
    check_not_empty(what, raw.matrix)
    check_names(f"gene of {what}", [a or b for a, b in _gene_names(raw)])
    check_names(f"spot of {what}", raw.matrix.spot_ids)
    counts = clean_counts(what, raw.matrix.values)
    matrix_rows, spot_rows, repairs = join_spots(what, raw.matrix, raw.spots, raw.join)
    counts = counts[matrix_rows]
    keep, dropped = drop_empty_spots(counts)
    if not keep.any():
        raise SectionError(explain(f"counts of {what}", got="zeros only"))
    meta = _meta(raw, row)
    counts, genes, gene_repairs = _identify(raw, counts[keep], meta.species)
    spot_rows = spot_rows[keep]
    xy, array_xy = raw.spots.xy[spot_rows], raw.spots.array_xy[spot_rows]
    check_coordinates(what, xy, array_xy)
    image = row.image if row.image is not None else raw.image
    check_inside_image(what, xy, image)
    return Section(
        meta=meta,
        counts=counts,
        genes=genes,
        spot_ids=np.array(raw.matrix.spot_ids, dtype=np.str_)[matrix_rows[keep]],
        xy=xy,
        array_xy=array_xy,
        pixel_size=_pixel_size(what, raw, row, xy=xy, array_xy=array_xy),
        image=image,
        repairs=(*raw.repairs, *repairs, *dropped, *gene_repairs),
    )


def _meta(raw: RawSection, row: SheetRow) -> SectionMeta:
    """Fill what the sheet leaves open with what the files know."""
    meta = row.meta
    known = {key: value for key, value in raw.known.items() if not getattr(meta, key)}
    if meta.patient == UNKNOWN_PATIENT and raw.known.get("patient"):
        known["patient"] = raw.known["patient"]
    return replace(meta, **known)


def _gene_names(raw: RawSection) -> list[tuple[str, str]]:
    return list(zip(raw.matrix.gene_ids, raw.matrix.gene_symbols, strict=True))


def _identify(
    raw: RawSection, counts: sparse.csr_matrix, species: str
) -> tuple[sparse.csr_matrix, pd.DataFrame, tuple[str, ...]]:
    identity = identify_genes(raw.matrix.gene_ids, raw.matrix.gene_symbols, species=species)
    return identity.merge(counts), identity.table, identity.repairs


def _pixel_size(
    what: str,
    raw: RawSection,
    row: SheetRow,
    *,
    xy: npt.NDArray[np.float64],
    array_xy: npt.NDArray[np.float64],
) -> PixelSize:
    if row.mpp is not None:
        return row.mpp
    if raw.pixel_size is not None:
        return raw.pixel_size
    if raw.lattice is not None and np.all(np.isfinite(array_xy)):
        return pixel_size_from_lattice(xy, array_xy, raw.lattice)
    raise MppError(
        explain(
            f"mpp of {what}",
            got="none in its files",
            expected="µm per pixel",
            remedy="give it in the sheet's mpp column",
        )
    )


def check_inside_image(what: str, xy: npt.NDArray[np.float64], image: Path | None) -> None:
    """Refuse spots outside the image, as far as the image's header tells its size.

    Parameters
    ----------
    what
        The section, for messages.
    xy
        ``(n_spots, 2)`` centres in level-0 px.
    image
        The image; formats whose size needs a slide library are checked where slides are opened.

    Raises
    ------
    SectionError
        When any centre is outside.
    """
    size = image_size(image) if image is not None else None
    if size is not None and image is not None:
        check_inside(what, xy, size=size, image=image.name)


def check_inside(
    what: str, xy: npt.NDArray[np.float64], *, size: tuple[int, int], image: str
) -> None:
    """Refuse spots whose centre lies outside an image.

    Parameters
    ----------
    what
        The section, for messages.
    xy
        ``(n_spots, 2)`` centres in level-0 px.
    size
        (width, height) of the image in level-0 px.
    image
        Its name, for messages.

    Raises
    ------
    SectionError
        When any centre is outside.
    """
    inside = np.all((xy >= -_EDGE_PX) & (xy <= np.add(size, _EDGE_PX)), axis=1)
    if inside.all():
        return
    reach = xy.max(axis=0)
    raise SectionError(
        explain(
            f"spots of {what}",
            got=f"{int((~inside).sum())} of {len(xy)} outside {image} "
            f"({size[0]} x {size[1]} px), the farthest at {reach[0]:.0f}, {reach[1]:.0f}",
            expected="pixel coordinates of this very image",
            remedy="give the full-size image or the spot file made for this one",
        )
    )
