"""SpatialData zarr, through the library of that name (extra ``spatial``).

The table's counts are joined with the centroids of the shapes that it annotates, in the coordinate
system of the full-size image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve._optional import require
from stretrieve.errors import SectionError, StretrieveError, explain
from stretrieve.spots.anndata_parts import read_names
from stretrieve.spots.hdf5 import HOSTILE_ERRORS, damaged
from stretrieve.spots.raw import JoinPolicy, RawSection, SpotTable
from stretrieve.spots.readers.anndata import (
    known_lattice,
    open_anndata,
    read_anndata_counts,
    read_array_coordinates,
)
from stretrieve.spots.row import SheetRow
from stretrieve.spots.zarrsafe import check_zarr

_EXTRA: Final = "spatial"
_SMALL: Final = ("downscaled_hires", "downscaled_lowres")


class SpatialDataReader:
    """Reader of one SpatialData store with one table."""

    isolated = True

    def detect(self, row: SheetRow) -> bool:
        """Say whether the folder holds ``tables`` and ``shapes`` as SpatialData writes them."""
        return (row.counts / "tables").is_dir() and (row.counts / "shapes").is_dir()

    def read(self, row: SheetRow) -> RawSection:
        """Read the table and the shapes that it annotates.

        Raises
        ------
        MissingDependencyError
            When spatialdata is not installed.
        SectionError
            When the store is damaged or hostile, or has no or several tables.
        """
        table = _the_table(row.counts)
        with open_anndata(table) as root:
            matrix, repairs = read_anndata_counts(root, row.counts.name)
            attributes = root["uns"]["spatialdata_attrs"] if "uns" in root else {}
            keys = {name: _scalar(attributes, name) for name in ("region", "instance_key")}
            obs = root["obs"]
            instances = _instances(obs, keys["instance_key"], matrix.spot_ids)
            array = read_array_coordinates(obs, len(matrix.spot_ids))
        xy = _centroids(row.counts, keys["region"], instances)
        spots = SpotTable(matrix.spot_ids, xy, array, np.ones(len(xy), dtype=bool))
        return RawSection(
            matrix=matrix,
            spots=spots,
            join=JoinPolicy.STRICT,
            lattice=known_lattice(row.platform, {}, array),
            repairs=repairs,
        )


def _the_table(store: Path) -> Path:
    tables = sorted(p for p in (store / "tables").iterdir() if p.is_dir())
    if len(tables) != 1:
        raise SectionError(
            explain(store.name, got=f"{len(tables)} tables", expected="one table a store")
        )
    return tables[0]


def _scalar(attributes: Any, name: str) -> str:
    if name not in attributes:
        raise SectionError(explain("table", got=f"no {name}", expected="spatialdata_attrs"))
    values = np.asarray(attributes[name][...]).ravel()
    if values.size != 1:
        raise SectionError(explain("table", got=f"{values.size} regions", expected="one"))
    value = values[0]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _instances(obs: Any, key: str, names: list[str]) -> list[str]:
    return read_names(obs[key]) if key in obs else names


def _centroids(store: Path, region: str, instances: list[str]) -> npt.NDArray[np.float64]:
    """Return the centroid of every instance, ``(n_spots, 2)`` in px of the full-size image."""
    spatialdata = require("spatialdata", extra=_EXTRA)
    check_zarr(store)
    try:
        data = spatialdata.read_zarr(store, selection=("shapes",))
        shapes = data.shapes[region]
        systems = list(spatialdata.transformations.get_transformation(shapes, get_all=True))
        system = _full_size(systems)
        points = spatialdata.get_centroids(shapes, coordinate_system=system).compute()
        found = {str(name): at for at, name in enumerate(points.index)}
        rows = [found.get(name, -1) for name in instances]
        xy = np.asarray(points[["x", "y"]], dtype=np.float64)
    except StretrieveError:
        raise
    except HOSTILE_ERRORS as error:
        raise damaged(store, error) from error
    if min(rows, default=-1) < 0:
        raise SectionError(
            explain(
                f"shapes of {store.name}",
                got=f"{sum(r < 0 for r in rows)} spots without a shape",
                expected="one shape a spot",
            )
        )
    return xy[rows]


def _full_size(systems: list[str]) -> str:
    full = [name for name in systems if not name.endswith(_SMALL)]
    if "global" in full:
        return "global"
    if len(full) != 1:
        raise SectionError(
            explain("coordinate systems", got=", ".join(systems), expected="one of full size")
        )
    return full[0]


READER: Final = SpatialDataReader()
