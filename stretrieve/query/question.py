"""What is asked of the engine: one slide, and what is known about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from stretrieve import __version__, keys
from stretrieve._files import canonical_json, sha256_file, sha256_text
from stretrieve.config import settings_to_dict
from stretrieve.errors import GenePanelError, InputError, InputNotFoundError, explain
from stretrieve.query.locate import SpotPositions
from stretrieve.query.settings import QuerySettings
from stretrieve.spots import canonical_species
from stretrieve.units import MppSource, PixelSize

_WITHOUT_INFLUENCE = ("batch_size", "workers")

_WORK_FORMAT: Final = 2
"""Of the files that an interrupted query leaves; those of another format are begun again."""


@dataclass(frozen=True)
class Question:
    """A slide to predict expression on.

    Parameters
    ----------
    slide
        Image file.
    mpp
        Microns per level-0 pixel, where the file does not say or says it wrongly.
    patient
        Donor of the slide; reference spots of the same donor are left out.
    section
        The section of the reference that is on this slide, if any; it is left out.
    organ, species
        When given, only reference spots of that organ or species are used.
    spots
        Positions to predict at; a grid over the tissue when ``None``.
    regions
        GeoJSON with polygons in level-0 px: the grid covers these in place of the tissue found.
    genes
        Gene keys or symbols to impute; all genes of the reference when ``None``.
    """

    slide: Path
    mpp: float | PixelSize | None = None
    patient: str | None = None
    section: str | None = None
    organ: str | None = None
    species: str | None = None
    spots: SpotPositions | None = None
    regions: Path | None = None
    genes: Sequence[str] | None = None

    @property
    def pixel_size(self) -> PixelSize | None:
        """The size of a pixel, where it was given."""
        if isinstance(self.mpp, float | int):
            return PixelSize.square(self.mpp, MppSource.GIVEN)
        return self.mpp

    @property
    def filters(self) -> dict[str, str]:
        """Metadata that reference spots must have."""
        filters: dict[str, str] = {}
        if self.organ is not None:
            filters[keys.ORGAN] = self.organ.lower()
        if self.species is not None:
            filters[keys.SPECIES] = canonical_species(self.species)
        return filters

    def digest(
        self, reference: Mapping[str, Any], settings: QuerySettings, genes: Sequence[str]
    ) -> str:
        """Return the SHA-256 of everything that decides the answer.

        The slide counts by name, size and time of change; batch size and processes do not count.

        Parameters
        ----------
        reference
            Identity of the reference.
        settings
            How it is searched.
        genes
            Gene keys that are imputed.

        Raises
        ------
        InputNotFoundError
            When there is no such slide.
        """
        try:
            stat = self.slide.stat()
        except (OSError, ValueError) as error:
            raise InputNotFoundError(
                explain(f"slide {str(self.slide)!r}", got="no such file")
            ) from error
        size = self.pixel_size
        chosen = settings_to_dict(settings)
        facts = {
            "version": __version__,
            "work": _WORK_FORMAT,
            "reference": [reference[name] for name in ("id", "version", "content_digest")],
            "slide": [self.slide.name, stat.st_size, stat.st_mtime_ns],
            "mpp": None if size is None else [float(size.x), float(size.y)],
            "patient": self.patient,
            "section": self.section,
            "filters": self.filters,
            "spots": None if self.spots is None else _spots_digest(self.spots),
            "regions": None if self.regions is None else sha256_file(self.regions),
            "settings": {k: v for k, v in chosen.items() if k not in _WITHOUT_INFLUENCE},
            "genes": list(genes),
        }
        return sha256_text(canonical_json(facts))


def _spots_digest(spots: SpotPositions) -> str:
    digest = hashlib.sha256("\n".join(map(str, spots.names)).encode())
    digest.update(np.ascontiguousarray(spots.xy, dtype=np.float64).tobytes())
    return digest.hexdigest()


def read_genes(text: str) -> list[str]:
    """Read gene names: a file with one name a line, or names separated by commas.

    Raises
    ------
    InputError
        When there is none.
    """
    path = Path(text)
    listed = (
        path.read_text(encoding="utf-8-sig").splitlines() if _is_file(path) else text.split(",")
    )
    names = [name.strip() for name in listed if name.strip() and not name.startswith("#")]
    if not names:
        raise InputError(explain("genes", got=f"none in {text!r}", expected="one or more"))
    return names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def find_genes(table: pd.DataFrame, genes: Sequence[str] | None) -> list[str]:
    """Return gene keys for keys or symbols, each once.

    Parameters
    ----------
    table
        Genes of the reference: index = key, with a symbol column.
    genes
        What was asked for; all genes when ``None``.

    Raises
    ------
    GenePanelError
        When a gene is not in the reference.
    """
    if genes is None:
        return [str(name) for name in table.index]
    by_symbol = table.index.to_series(index=table[keys.GENE_SYMBOL]).groupby(level=0).first()
    asked = list(dict.fromkeys(genes))
    found = [g if g in table.index else by_symbol.get(g) for g in asked]
    missing = [g for g, key in zip(asked, found, strict=True) if key is None]
    if missing or not found:
        raise GenePanelError(
            explain(
                "genes asked for",
                got=f"{', '.join(missing[:5]) or 'none'}{'…' if len(missing) > 5 else ''}",
                expected="genes of the reference",
                remedy="use keys or symbols of its gene table",
            )
        )
    return [str(key) for key in dict.fromkeys(found)]
