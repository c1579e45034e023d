"""The registry of section formats; other packages add theirs through an entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stretrieve.registry import Registry

if TYPE_CHECKING:
    from stretrieve.spots.readers.base import SectionReader

AUTO: Final = "auto"

READERS: Registry[SectionReader] = Registry(
    "section format",
    builtin={
        "st": "stretrieve.spots.readers.legacy_st:READER",
        "visium": "stretrieve.spots.readers.space_ranger:VISIUM_READER",
        "visium_hd": "stretrieve.spots.readers.space_ranger:VISIUM_HD_READER",
    },
    group="stretrieve.section_readers",
)
