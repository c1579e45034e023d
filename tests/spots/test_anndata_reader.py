"""AnnData, h5ad and zarr; HEST-1k around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stretrieve.errors import MppError, SectionError
from stretrieve.spots import SheetRow, detect_format, read_section
from stretrieve.units import MppSource

from .layouts import IDS, MPP, SYMBOLS, adata, toy, write_hest


def row(path: Path, **fields: Any) -> SheetRow:
    return SheetRow("s", path, **{"species": "human", "platform": "visium", **fields})


def write(path: Path, data: Any) -> Path:
    if path.suffix == ".zarr":
        data.write_zarr(path)
    else:
        data.write_h5ad(path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_matrices_of_every_kind(tmp_path: Path, suffix: str, kind: str) -> None:
    section, data = toy(), adata(toy())
    data.X = {"csr": data.X, "csc": sparse.csc_matrix(data.X), "dense": data.X.toarray()}[kind]
    path = write(tmp_path / f"a{suffix}", data)
    found = read_section(row(path))
    assert detect_format(row(path)) == "anndata"
    np.testing.assert_array_equal(found.counts.toarray(), section.counts[section.under])
    np.testing.assert_allclose(found.xy, section.xy[section.under])
    np.testing.assert_array_equal(found.array_xy, section.array[section.under])
    assert list(found.genes["gene_id"]) == IDS
    assert list(found.genes["gene_symbol"]) == SYMBOLS
    assert found.pixel_size.mean == pytest.approx(MPP)


def test_counts_layer_goes_before_normalised_x(tmp_path: Path) -> None:
    data = adata(toy())
    data.layers["counts"] = data.X.copy()
    data.X = data.X * 0.37
    found = read_section(row(write(tmp_path / "a.h5ad", data)))
    assert (found.counts != sparse.csr_matrix(data.layers["counts"])).nnz == 0


def test_raw_stands_in_for_normalised_x(tmp_path: Path) -> None:
    data = adata(toy())
    data.raw = data.copy()
    data.X = data.X * 0.37
    found = read_section(row(write(tmp_path / "a.h5ad", data)))
    assert found.repairs == ("counts taken from raw, because X holds no whole numbers",)
    assert (found.counts != sparse.csr_matrix(data.raw.X)).nnz == 0


def test_normalised_x_alone_is_refused(tmp_path: Path) -> None:
    data = adata(toy())
    data.X = data.X * 0.37
    with pytest.raises(SectionError, match="raw counts"):
        read_section(row(write(tmp_path / "a.h5ad", data)))


def test_spots_off_the_tissue_are_left_out(tmp_path: Path) -> None:
    data = adata(toy())
    data.obs["in_tissue"] = [0, 0] + [1] * (data.n_obs - 2)
    found = read_section(row(write(tmp_path / "a.h5ad", data)))
    assert found.n_spots == data.n_obs - 2
    assert found.repairs == ("2 spots off the tissue or image left out",)


def test_resolution_in_uns_goes_before_the_grid(tmp_path: Path) -> None:
    data = adata(toy())
    data.uns["spatial"] = {
        "lib": {"scalefactors": {"microns_per_pixel": 0.4, "spot_diameter_fullres": 100.0}}
    }
    found = read_section(row(write(tmp_path / "a.h5ad", data), platform=""))
    assert (found.pixel_size.x, found.pixel_size.source) == (0.4, MppSource.METADATA)


def test_without_platform_the_grid_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", adata(toy()))
    with pytest.raises(MppError, match="mpp column"):
        read_section(row(path, platform=""))
    data = adata(toy())
    data.uns["spatial"] = {"lib": {"scalefactors": {"spot_diameter_fullres": 100.0}}}
    found = read_section(row(write(tmp_path / "b.h5ad", data), platform=""))
    assert found.pixel_size.source is MppSource.GRID


def test_positions_file_beside_it(tmp_path: Path) -> None:
    data = adata(toy())
    table = pd.DataFrame(data.obsm["spatial"] + 5, columns=["pixel_x", "pixel_y"])
    table.insert(0, "spot_id", data.obs_names)
    table["array_x"], table["array_y"] = data.obs.array_col.values, data.obs.array_row.values
    table.to_csv(tmp_path / "spots.csv", index=False)
    del data.obsm["spatial"]
    path = write(tmp_path / "a.h5ad", data)
    with pytest.raises(SectionError, match="spots column"):
        read_section(row(path))
    found = read_section(row(path, spots=tmp_path / "spots.csv"))
    np.testing.assert_allclose(found.xy[0], toy().xy[toy().under][0] + 5)


def test_categorical_and_nullable_columns(tmp_path: Path) -> None:
    data = adata(toy())
    data.obs["array_row"] = pd.Categorical(data.obs.array_row.astype(str))
    data.obs["array_col"] = pd.array(data.obs.array_col, dtype="Int64")
    data.var["gene_ids"] = pd.Categorical(data.var.gene_ids)
    found = read_section(row(write(tmp_path / "a.h5ad", data)))
    np.testing.assert_array_equal(found.array_xy, toy().array[toy().under])
    assert list(found.genes["gene_id"]) == IDS


def test_ensembl_index_with_symbols_beside(tmp_path: Path) -> None:
    data = adata(toy())
    data.var = pd.DataFrame({"gene_name": SYMBOLS}, index=[f"{i}.7" for i in IDS])
    found = read_section(row(write(tmp_path / "a.h5ad", data)))
    assert found.gene_names == IDS


@pytest.mark.parametrize("what", ["nan", "shape", "obs"])
def test_damaged_parts(tmp_path: Path, what: str) -> None:
    import h5py

    path = write(tmp_path / "a.h5ad", adata(toy()))
    with h5py.File(path, "a") as file:
        if what == "nan":
            file["obsm/spatial"][0, 0] = np.nan
        elif what == "shape":
            del file["obsm/spatial"]
            file["obsm/spatial"] = np.zeros((3, 2))
        else:
            del file["obs"]
    with pytest.raises(SectionError, match="expected"):
        read_section(row(path))


def test_real_h5ad_equals_the_tables(shared_data: Path) -> None:
    home = shared_data / "data" / "mob_xfuse_st1k" / "test"
    one = read_section(row(home / "section.h5ad", platform="st", species="mouse"))
    two = read_section(
        SheetRow("s", home / "counts.tsv", spots=home / "spots.tsv", species="mouse")
    )
    order = [list(two.spot_ids).index(name) for name in one.spot_ids]
    assert (one.counts != two.counts[order]).nnz == 0
    assert one.pixel_size.mean == pytest.approx(two.pixel_size.mean)


@pytest.fixture
def hest(tmp_path: Path) -> Path:
    """A HEST-1k root with one sample."""
    write_hest(tmp_path)
    return tmp_path


def test_hest_layout(hest: Path) -> None:
    given = SheetRow("s", hest / "st" / "TENX1.h5ad")
    assert detect_format(given) == "hest"
    found = read_section(given)
    assert (found.pixel_size.x, found.pixel_size.source) == (MPP, MppSource.METADATA)
    assert found.image == hest / "wsis" / "TENX1.tif"
    assert found.meta.patient == "A study: Patient 1"
    assert (found.meta.organ, found.meta.species) == ("breast", "human")
    assert (found.meta.platform, found.meta.disease) == ("visium", "cancer")


def test_the_sheet_goes_before_hest_metadata(hest: Path) -> None:
    given = SheetRow("s", hest / "st" / "TENX1.h5ad", patient="P9", organ="skin")
    meta = read_section(given).meta
    assert (meta.patient, meta.organ, meta.species) == ("P9", "skin", "human")


@pytest.mark.parametrize("value", [None, "0.5", 0, -1, float("nan")])
def test_hest_without_estimated_resolution(hest: Path, value: object) -> None:
    path = hest / "metadata" / "TENX1.json"
    facts = json.loads(path.read_text())
    facts["pixel_size_um_estimated"] = value
    path.write_text(json.dumps(facts))
    with pytest.raises(MppError, match="pixel_size_um_estimated"):
        read_section(SheetRow("s", hest / "st" / "TENX1.h5ad"))


def test_hest_with_broken_metadata(hest: Path) -> None:
    (hest / "metadata" / "TENX1.json").write_text("[1, 2")
    with pytest.raises(SectionError, match="JSON"):
        read_section(SheetRow("s", hest / "st" / "TENX1.h5ad"))
