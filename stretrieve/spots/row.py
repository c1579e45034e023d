"""One row of a samplesheet, and the small texts in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stretrieve.errors import MppError, SheetError, explain
from stretrieve.spots.formats import AUTO, split_format
from stretrieve.spots.section import SectionMeta
from stretrieve.units import Mpp, MppSource, PixelSize

UNKNOWN_PATIENT: Final = "unknown"

_SPECIES: Final = {
    "human": "human",
    "homo sapiens": "human",
    "h. sapiens": "human",
    "hsapiens": "human",
    "mouse": "mouse",
    "mus musculus": "mouse",
    "m. musculus": "mouse",
    "mmusculus": "mouse",
}
_MAX_NAME: Final = 128
_BAD_NAME: Final = re.compile(r"[\x00-\x1f\x7f/\\]|^\.+$|^\s|\s$")
_MPP: Final = re.compile(r"^\s*([0-9.eE+-]+)(?:\s*[x×]\s*([0-9.eE+-]+))?\s*$")


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One section as the sheet names it.

    Parameters
    ----------
    section
        Name, unique in the sheet.
    counts
        Count matrix, or the folder that holds it (Space Ranger ``outs``, a Xenium bundle).
    patient
        Donor. Rows without one share ``"unknown"``: the whole dataset then counts as one patient.
    organ, species, platform, disease
        Free text in lower case; ``human`` and ``mouse`` are recognised under their Latin names.
    image
        The H&E image; ``None`` for expression-only sections or when the reader finds it.
    spots
        File with the spot positions; ``None`` when the format brings them.
    format
        Name of a section format, or ``"auto"``; ``"xenium@100"`` and ``"visium_hd@16"`` also give the
        side of a spot in microns.
    mpp
        Size of a level-0 pixel; ``None`` when it has to come from the files or the spot grid.
    labels
        Table of a pathologist's labels by spot; ``None`` when there is none.
    """

    section: str
    counts: Path
    patient: str = UNKNOWN_PATIENT
    organ: str = ""
    species: str = ""
    platform: str = ""
    disease: str = ""
    image: Path | None = None
    spots: Path | None = None
    format: str = AUTO
    mpp: PixelSize | None = None
    labels: Path | None = None

    @property
    def spot_um(self) -> float | None:
        """The side of a spot in microns, as given behind the format's ``@``."""
        return split_format(self.format)[1]

    @property
    def meta(self) -> SectionMeta:
        """The names and context of the section."""
        return SectionMeta(
            section=self.section,
            patient=self.patient,
            organ=self.organ,
            species=self.species,
            platform=self.platform,
            disease=self.disease,
        )


def canonical_species(text: str) -> str:
    """Return ``"human"`` or ``"mouse"`` for their known names, else the text in lower case."""
    lowered = " ".join(text.lower().replace("_", " ").split())
    return _SPECIES.get(lowered, lowered)


def check_section_name(name: str) -> None:
    """Refuse a section name that is empty, too long, or could be mistaken for a path.

    Raises
    ------
    SheetError
        When the name is not usable as a key.
    """
    if not name or len(name) > _MAX_NAME or _BAD_NAME.search(name):
        raise SheetError(
            explain(
                "section name",
                got=repr(name[:_MAX_NAME]),
                expected="1 to 128 characters without slashes or control characters",
            )
        )


def parse_mpp(text: str, *, source: MppSource = MppSource.SHEET) -> PixelSize:
    """Read ``0.5`` or, for pixels that are not square, ``0.69x0.685`` (x first) in µm per pixel.

    Raises
    ------
    MppError
        When the text is no such figure or the resolution is implausible.
    """
    match = _MPP.match(text)
    try:
        x = float(match[1]) if match else float("nan")
        y = float(match[2]) if match and match[2] else x
    except ValueError:
        x = y = float("nan")
    if x != x or y != y:
        raise MppError(
            explain("mpp", got=repr(text), expected="µm per pixel, as 0.5 or 0.69x0.685")
        )
    size = PixelSize(Mpp(x), Mpp(y), source)
    size.check_plausible("the sheet")
    return size
