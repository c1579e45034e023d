"""What a section reader has to be."""

from __future__ import annotations

from typing import Protocol

from stretrieve.spots.raw import RawSection
from stretrieve.spots.row import SheetRow


class SectionReader(Protocol):
    """Reader of one format. It finds and parses; all checks happen afterwards, for all formats alike.

    ``isolated`` says that its files are parsed by C code and ``read`` has to be called in a reading
    process; such a reader is known by an entry point, so that the other process finds it.
    """

    isolated: bool

    def detect(self, row: SheetRow) -> bool:
        """Say from names and layout alone whether ``row`` is of this format."""

    def read(self, row: SheetRow) -> RawSection:
        """Read the parts of the section.

        Raises
        ------
        InputError
            When a file cannot be parsed.
        """
