"""What a reading process hands back, as plain arrays and JSON in a folder: nothing that runs code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from stretrieve.spots.lattice import Lattice
from stretrieve.spots.raw import JoinPolicy, RawMatrix, RawSection, SpotTable
from stretrieve.spots.row import SheetRow
from stretrieve.units import Mpp, MppSource, PixelSize

_FACTS = "facts.json"


def row_to_dict(row: SheetRow) -> dict[str, Any]:
    """Return a row as plain JSON data."""
    data = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    for name in ("counts", "image", "spots"):
        data[name] = str(Path(data[name]).absolute()) if data[name] is not None else None
    data["mpp"] = _size_to_list(row.mpp)
    return data


def row_from_dict(data: dict[str, Any]) -> SheetRow:
    """Rebuild a row from :func:`row_to_dict`."""
    paths = {name: Path(data[name]) for name in ("counts", "image", "spots") if data[name]}
    return SheetRow(**{**data, **paths, "mpp": _size_from_list(data["mpp"])})


def save_section(raw: RawSection, folder: Path) -> None:
    """Write the parts of a section into an empty folder."""
    matrix = raw.matrix
    for name in ("data", "indices", "indptr"):
        np.save(folder / f"{name}.npy", getattr(matrix.values, name), allow_pickle=False)
    facts = {
        "shape": list(matrix.values.shape),
        "matrix": [matrix.spot_ids, matrix.gene_ids, matrix.gene_symbols],
        "join": raw.join.value,
        "lattice": dataclasses.asdict(raw.lattice) if raw.lattice else None,
        "pixel_size": _size_to_list(raw.pixel_size),
        "image": str(raw.image) if raw.image else None,
        "repairs": list(raw.repairs),
        "known": dict(raw.known),
    }
    save_table(raw.spots, folder, extra=facts)


def load_section(folder: Path) -> RawSection:
    """Rebuild the parts of a section from :func:`save_section`."""
    facts = _facts(folder)
    parts = tuple(_array(folder, name) for name in ("data", "indices", "indptr"))
    lattice = facts["lattice"]
    return RawSection(
        matrix=RawMatrix(
            sparse.csr_matrix(parts, shape=tuple(facts["shape"]), copy=False), *facts["matrix"]
        ),
        spots=load_table(folder),
        join=JoinPolicy(facts["join"]),
        lattice=Lattice(tuple(lattice["unit_um"]), lattice["pitch_um"]) if lattice else None,
        pixel_size=_size_from_list(facts["pixel_size"]),
        image=Path(facts["image"]) if facts["image"] else None,
        repairs=tuple(facts["repairs"]),
        known=facts["known"],
    )


def save_table(table: SpotTable, folder: Path, *, extra: dict[str, Any] | None = None) -> None:
    """Write spot positions into a folder, with further facts beside them."""
    for name in ("xy", "array_xy", "under_tissue"):
        np.save(folder / f"{name}.npy", getattr(table, name), allow_pickle=False)
    facts = {**(extra or {}), "spots": [table.spot_ids, list(table.aliases)]}
    (folder / _FACTS).write_text(json.dumps(facts))


def load_table(folder: Path) -> SpotTable:
    """Rebuild spot positions from :func:`save_table`."""
    ids, aliases = _facts(folder)["spots"]
    xy, array_xy = _array(folder, "xy"), _array(folder, "array_xy")
    return SpotTable(ids, xy, array_xy, _array(folder, "under_tissue"), tuple(aliases))


def save_names(names: tuple[list[str], list[str]], folder: Path) -> None:
    """Write gene ids and symbols into a folder."""
    (folder / _FACTS).write_text(json.dumps(names))


def load_names(folder: Path) -> tuple[list[str], list[str]]:
    """Rebuild gene ids and symbols from :func:`save_names`."""
    ids, symbols = json.loads((folder / _FACTS).read_text())
    return ids, symbols


def _facts(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / _FACTS).read_text()))


def _array(folder: Path, name: str) -> npt.NDArray[Any]:
    return np.asarray(np.load(folder / f"{name}.npy", allow_pickle=False))


def _size_to_list(size: PixelSize | None) -> list[Any] | None:
    return None if size is None else [float(size.x), float(size.y), size.source.value]


def _size_from_list(data: list[Any] | None) -> PixelSize | None:
    if data is None:
        return None
    return PixelSize(Mpp(data[0]), Mpp(data[1]), MppSource(data[2]))
