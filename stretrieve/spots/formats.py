"""The registry of section formats; other packages add theirs through an entry point."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from stretrieve.errors import SheetError, explain
from stretrieve.registry import Registry

if TYPE_CHECKING:
    from stretrieve.spots.readers.base import SectionReader

AUTO: Final = "auto"

_SIZED: Final = re.compile(r"^([a-z0-9_]+)(?:@(\d{1,4}(?:\.\d+)?))?$")


def split_format(text: str) -> tuple[str, float | None]:
    """Split ``"xenium@100"`` into the name of the format and the side of a spot in microns.

    Raises
    ------
    SheetError
        When the text is neither a name nor a name with a size above 0.
    """
    match = _SIZED.match(text)
    size = float(match[2]) if match and match[2] else None
    if match is None or size == 0:
        raise SheetError(explain("format", got=repr(text[:40]), expected="a name, or name@microns"))
    return match[1], size


READERS: Registry[SectionReader] = Registry(
    "section format",
    builtin={
        "st": "stretrieve.spots.readers.legacy_st:READER",
        "anndata": "stretrieve.spots.readers.anndata:READER",
        "hest": "stretrieve.spots.readers.hest:READER",
        "spatialdata": "stretrieve.spots.readers.spatialdata:READER",
        "xenium": "stretrieve.spots.readers.xenium:READER",
        "visium": "stretrieve.spots.readers.space_ranger:VISIUM_READER",
        "visium_hd": "stretrieve.spots.readers.space_ranger:VISIUM_HD_READER",
    },
    group="stretrieve.section_readers",
)
