"""Where the sections of a build come from: a samplesheet, or sections in memory."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stretrieve._files import canonical_json, sha256_text
from stretrieve.errors import SheetError, explain
from stretrieve.spots import Section, SheetRow, read_section, read_sheet
from stretrieve.store import check_section_name


class SectionSource(ABC):
    """Sections by name, read when asked for."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the sections, sorted."""

    @abstractmethod
    def read(self, name: str) -> Section:
        """Return one section."""

    @abstractmethod
    def facts(self) -> list[Any]:
        """Return what identifies the input, as plain JSON data."""

    def digest(self) -> str:
        """Return a digest of what identifies the input, to recognise it when a build resumes."""
        return sha256_text(canonical_json(self.facts()))


class SheetSource(SectionSource):
    """Sections of a samplesheet.

    Parameters
    ----------
    path
        The sheet.
    """

    def __init__(self, path: Path) -> None:
        self._rows: dict[str, SheetRow] = {row.section: row for row in read_sheet(path)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sections, sorted."""
        return tuple(sorted(self._rows))

    def read(self, name: str) -> Section:
        """Read and validate one section."""
        return read_section(self._rows[name])

    def facts(self) -> list[Any]:
        """Return every row."""
        return [repr(self._rows[name]) for name in self.names]


class MemorySource(SectionSource):
    """Sections that are in memory already.

    Parameters
    ----------
    sections
        The sections, with unique names.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        for section in sections:
            check_section_name(section.meta.section)
        self._sections = {section.meta.section: section for section in sections}
        if len(self._sections) != len(sections):
            names = sorted(section.meta.section for section in sections)
            twice = next(a for a, b in itertools.pairwise(names) if a == b)
            raise SheetError(explain("sections", got=f"{twice!r} twice", expected="unique names"))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sections, sorted."""
        return tuple(sorted(self._sections))

    def read(self, name: str) -> Section:
        """Return one section."""
        return self._sections[name]

    def facts(self) -> list[Any]:
        """Return names and sums of every section."""
        return [
            [name, *section.counts.shape, int(section.counts.sum()), float(section.xy.sum())]
            for name, section in sorted(self._sections.items())
        ]


def open_source(sections: Sequence[Section] | Path | str) -> SectionSource:
    """Return the sections of a sheet, or those given.

    Raises
    ------
    SheetError
        When there are none, or a name occurs twice.
    """
    source: SectionSource
    if isinstance(sections, Path | str):  # noqa: SIM108 (the conditional is not understood by mypy)
        source = SheetSource(Path(sections))
    else:
        source = MemorySource(sections)
    if not source.names:
        raise SheetError(explain("sections", got="none", expected="at least one"))
    return source
