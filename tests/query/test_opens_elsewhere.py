"""What a query writes opens in other people's programs; those that are not installed are skipped."""

import json
import os
import shutil
import subprocess

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stretrieve import QueryEngine, QuerySettings
from stretrieve.query import OutputSettings, Question, SpotPositions
from stretrieve.query.export import export_geojson, open_answer
from stretrieve.query.write import OutputFormat

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def ask(reference, sections, folder):
    """Write an answer at the spots of a section; return the path."""
    section = sections[3]
    engine = QueryEngine(reference, settings=QuerySettings(top_k=12))
    question = Question(section.image, mpp=5.0, spots=SpotPositions(section.spot_ids, section.xy))

    def write(name, **storage):
        return engine.query_to(folder / name, question, output=OutputSettings(**storage)).path

    return write


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "sparse"])
def answer(request, ask):
    return ask(f"q{request.param}.h5ad", sparse=request.param)


@pytest.fixture
def pyplot():
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def package(name):
    return pytest.importorskip(name, reason=f"{name} is not installed (extra 'compat')")


def test_scanpy_clusters_and_draws_it(answer, pyplot):
    sc = package("scanpy")
    adata = sc.read_h5ad(answer)
    sc.pp.highly_variable_genes(adata, n_top_genes=10)
    sc.pp.pca(adata, n_comps=5)
    sc.pp.neighbors(adata, n_neighbors=8, use_rep="X_stretrieve")
    sc.tl.score_genes(adata, ["SIM-A1", "SIM-A2"], ctrl_size=5)
    assert adata.obsm["X_pca"].shape == (64, 5)
    assert np.isfinite(adata.obsm["X_pca"]).all()
    assert adata.obs["score"].std() > 0
    sc.pl.embedding(adata, "spatial", color=["SIM-A1", "status"], show=False)
    axes = sc.pl.spatial(adata, color="SIM-A1", show=False)
    assert len(axes[0].images) == 1, "the thumbnail lies beneath the spots"
    assert len(axes[0].collections[0].get_array()) == 64


def test_squidpy_finds_picture_scale_and_neighbours(answer, pyplot):
    sq = package("squidpy")
    adata = ad.read_h5ad(answer)
    sq.pl.spatial_scatter(adata, color="SIM-A1", library_id="image")
    axis = pyplot.gcf().axes[0]
    assert len(axis.images) == 1
    height, width = adata.uns["spatial"]["image"]["images"]["hires"].shape[:2]
    box = axis.collections[0].get_datalim(axis.transData)
    assert -1 <= box.x0 < box.x1 <= width + 1
    assert -1 <= box.y0 < box.y1 <= height + 1
    sq.gr.spatial_neighbors(adata, coord_type="grid")
    assert adata.obsp["spatial_connectivities"].shape == (64, 64)
    sq.gr.spatial_autocorr(adata, mode="moran", genes=["SIM-A1"], n_perms=None)
    assert adata.uns["moranI"].loc["SIM-A1", "I"] > 0.3, "the tissue has two smooth programmes"


def test_geopandas_reads_what_qupath_gets(answer, folder):
    gpd = package("geopandas")
    path = folder / f"{answer.stem}.geojson"
    with open_answer(answer) as opened:
        export_geojson(opened, path, genes=["SIM-A1"])
        xy, values = np.asarray(opened.obsm["spatial"]), opened[:, "SIM-A1"].to_memory().X
    frame = gpd.read_file(path)
    assert len(frame) == 64
    assert frame.geometry.is_valid.all()
    assert (frame.geom_type == "Polygon").all()
    assert frame.index.is_unique
    assert frame["id"].is_unique
    centres = np.column_stack([frame.geometry.centroid.x, frame.geometry.centroid.y])
    np.testing.assert_allclose(centres, xy, atol=0.01)
    np.testing.assert_allclose(frame.geometry.area, 32.0**2, rtol=1e-3)
    measured = [json.loads(m) if isinstance(m, str) else m for m in frame["measurements"]]
    values = values.toarray() if sparse.issparse(values) else values
    np.testing.assert_allclose([m["SIM-A1"] for m in measured], values[:, 0], atol=1e-5)


def test_spatialdata_links_patches_and_predictions(ask, folder):
    spatialdata = package("spatialdata")
    path = folder / "q.zarr"
    if not path.exists():
        ask("q.zarr", format=OutputFormat.SPATIALDATA)
    data = spatialdata.read_zarr(path)
    (shapes,) = data.shapes.values()
    table = data.tables["predictions"]
    assert table.shape[0] == len(shapes) == 64
    (name,) = data.shapes
    matched = spatialdata.match_table_to_element(data, element_name=name, table_name="predictions")
    np.testing.assert_allclose(
        np.column_stack([shapes.centroid.x, shapes.centroid.y]), matched.obsm["spatial"]
    )
    extent = spatialdata.get_extent(data, coordinate_system="global")
    assert extent["x"][1] == pytest.approx(360, abs=2)


CURATED = {
    "assay_ontology_term_id": "EFO:0008992",
    "cell_type_ontology_term_id": "unknown",
    "development_stage_ontology_term_id": "unknown",
    "disease_ontology_term_id": "PATO:0000461",
    "donor_id": "unknown",
    "is_primary_data": False,
    "self_reported_ethnicity_ontology_term_id": "unknown",
    "sex_ontology_term_id": "unknown",
    "suspension_type": "na",
    "tissue_ontology_term_id": "UBERON:0000310",
    "tissue_type": "tissue",
}
ENSEMBL = ["ENSG00000141736", "ENSG00000171345", "ENSG00000171401", "ENSG00000091831"]


def test_cellxgene_misses_nothing_but_counts(ask, folder):
    """What docs/output.md tells a curator to add; raw counts of a prediction do not exist."""
    program = os.environ.get("CELLXGENE_SCHEMA") or shutil.which("cellxgene-schema")
    if not program:
        pytest.skip(
            "no cellxgene-schema on PATH or in CELLXGENE_SCHEMA; it needs a venv of its own"
        )
    adata = ad.read_h5ad(ask("q.h5ad"))
    adata = adata[np.unique(adata.X[:, :4], axis=0, return_index=True)[1], :4].copy()
    adata.var_names = ENSEMBL  # as of a reference built with Ensembl ids
    adata.obsm["X_positions"] = adata.obsm.pop("spatial")
    del adata.uns["spatial"]
    adata.uns |= {"title": "predicted", "organism_ontology_term_id": "NCBITaxon:9606"}
    adata.var["feature_is_filtered"] = False
    for name, value in CURATED.items():
        column = [value] * adata.n_obs
        adata.obs[name] = column if name == "is_primary_data" else pd.Categorical(column)
    adata.write_h5ad(folder / "curated.h5ad")
    done = subprocess.run(
        [program, "validate", folder / "curated.h5ad"], capture_output=True, text=True, check=False
    )
    faults = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR: " in line]
    assert len(faults) == 2, faults
    assert all("raw" in fault.lower() for fault in faults), faults
