"""SpatialData stores: written and read by the library where it is installed."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stretrieve.errors import MissingDependencyError, SectionError
from stretrieve.spots import SheetRow, detect_format, read_section

from .layouts import adata, toy


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A Visium-like store: shapes at half size with a transformation to the full-size image."""
    pytest.importorskip("spatialdata", reason="spatialdata is not installed (extra 'spatial')")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spatialdata import SpatialData
        from spatialdata.models import ShapesModel, TableModel
        from spatialdata.transformations import Scale

        data = adata(toy())
        data.obs["region"] = pd.Categorical(["spots"] * data.n_obs)
        data.obs["spot_id"] = np.arange(data.n_obs)[::-1]
        shapes = ShapesModel.parse(
            data.obsm["spatial"][::-1] / 2,
            geometry=0,
            radius=50.0,
            index=np.arange(data.n_obs),
            transformations={
                "s": Scale([2.0, 2.0], axes=("x", "y")),
                "s_downscaled_hires": Scale([0.2, 0.2], axes=("x", "y")),
            },
        )
        table = TableModel.parse(data, region="spots", region_key="region", instance_key="spot_id")
        SpatialData(shapes={"spots": shapes}, tables={"table": table}).write(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.mark.filterwarnings("ignore")
def test_a_store_is_read_by_instance_and_in_full_size_pixels(store: Path) -> None:
    row = SheetRow("s", store, species="human", platform="visium")
    assert detect_format(row) == "spatialdata"
    found, truth = read_section(row), toy()
    np.testing.assert_array_equal(found.counts.toarray(), truth.counts[truth.under])
    np.testing.assert_allclose(found.xy, truth.xy[truth.under])
    assert found.pixel_size.mean == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore")
def test_a_store_with_a_link_is_refused(store: Path) -> None:
    (store / "shapes" / "leak").symlink_to("/")
    with pytest.raises(SectionError, match="a link"):
        read_section(SheetRow("s", store, platform="visium"))


def test_without_the_library_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib.util

    from stretrieve._optional import require

    monkeypatch.setitem(sys.modules, "spatialdata", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"stretrieve\[spatial\]"):
        require("spatialdata", extra="spatial")


def test_several_tables_are_refused(tmp_path: Path) -> None:
    for name in ("tables/a", "tables/b", "shapes"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(SectionError, match="2 tables"):
        read_section(SheetRow("s", tmp_path))
