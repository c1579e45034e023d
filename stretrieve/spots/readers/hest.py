"""HEST-1k: ``st/<id>.h5ad`` with ``metadata/<id>.json`` and ``wsis/<id>.tif`` beside it.

The size of a pixel is ``pixel_size_um_estimated``; the figure embedded in the image is often wrong.
The ready-made ``patches/`` are not used: ours are cut at the physical size that an embedder wants.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from stretrieve.errors import MppError, SectionError, explain
from stretrieve.spots.raw import RawSection
from stretrieve.spots.readers.anndata import is_hest, open_anndata, read_anndata
from stretrieve.spots.row import SheetRow, canonical_species
from stretrieve.spots.textio import read_lines
from stretrieve.units import MppSource, PixelSize

_IMAGES: Final = (".tif", ".tiff", ".svs", ".ndpi")


class HestReader:
    """Reader of one sample of HEST-1k."""

    isolated = True

    def detect(self, row: SheetRow) -> bool:
        """Say whether the h5ad lies in the folders of HEST-1k."""
        return row.counts.is_file() and row.counts.suffix == ".h5ad" and is_hest(row.counts)

    def read(self, row: SheetRow) -> RawSection:
        """Read the h5ad, and what the metadata know beside it.

        Raises
        ------
        SectionError
            When a file is missing or damaged.
        MppError
            When the metadata state no usable size of a pixel.
        """
        home, name = row.counts.parent.parent, row.counts.stem
        meta = read_json(home / "metadata" / f"{name}.json")
        with open_anndata(row.counts) as root:
            raw = read_anndata(root, row)
        return replace(
            raw,
            pixel_size=row.mpp or _pixel_size(meta, name),
            image=_image(home / "wsis", name),
            known=_known(meta),
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object.

    Raises
    ------
    SectionError
        When it is something else.
    """
    text = "\n".join(read_lines(path, max_bytes=16 << 20))
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise SectionError(
            explain(path.name, got=str(error)[:120], expected="a JSON object")
        ) from error


def _pixel_size(meta: dict[str, Any], name: str) -> PixelSize:
    value = meta.get("pixel_size_um_estimated")
    if not isinstance(value, (int, float)) or not 0 < value < 1000:
        raise MppError(
            explain(
                f"pixel_size_um_estimated of {name}",
                got=value,
                expected="µm per pixel",
                remedy="give it in the sheet's mpp column",
            )
        )
    return PixelSize.square(float(value), MppSource.METADATA)


def _image(folder: Path, name: str) -> Path | None:
    for suffix in _IMAGES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    return None


def _known(meta: dict[str, Any]) -> dict[str, str]:
    """Return what the metadata say; patients are numbered within a dataset, so its title goes before."""
    text = {key: str(meta[key]).strip() for key in meta if isinstance(meta[key], (str, int))}
    known = {
        "organ": text.get("organ", "").lower(),
        "species": canonical_species(text.get("species", "")),
        "platform": text.get("st_technology", "").lower(),
        "disease": text.get("disease_state", "").lower(),
    }
    patient, dataset = text.get("patient", ""), text.get("dataset_title", "")
    if patient and patient.lower() not in {"nan", "none", "unknown"}:
        known["patient"] = f"{dataset}: {patient}" if dataset else patient
    elif dataset:
        known["patient"] = dataset
    return {key: value for key, value in known.items() if value}


READER: Final = HestReader()
