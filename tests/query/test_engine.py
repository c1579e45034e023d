import dataclasses

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from stretrieve import QueryEngine, QuerySettings, keys
from stretrieve.errors import InputError, OutputExistsError
from stretrieve.query import Centring, Modality, SpotPositions, WeightScheme
from tests.tissue import GENES


def ask(reference, section, *, settings=None, **options):
    spots = SpotPositions(section.spot_ids, section.xy)
    engine = QueryEngine(reference, settings=settings or QuerySettings(top_k=12))
    return engine.query(section.image, mpp=5.0, spots=spots, **options)


@pytest.fixture(scope="module")
def result(reference, sections):
    return ask(reference, sections[3])


def test_output_contract(result, reference):
    adata = result.adata
    assert adata.shape == (64, len(GENES))
    assert adata.X.dtype == np.float32
    assert set(adata.layers) == {"spread", "n_effective"}
    assert list(adata.obs.columns) == [
        "x_um", "y_um", "tissue_fraction", "top1_similarity", "mean_similarity", "ood_score", "status",
    ]  # fmt: skip
    assert list(adata.var.columns) == [
        "gene_id", "gene_symbol", "reference_coverage", "expected_pcc",
    ]  # fmt: skip
    assert set(adata.obsm) == {
        "spatial", "X_stretrieve", "stretrieve_neighbours", "stretrieve_weights",
    }  # fmt: skip
    np.testing.assert_allclose(adata.obs["x_um"], adata.obsm["spatial"][:, 0] * 5)
    np.testing.assert_allclose(adata.layers["n_effective"], 12, rtol=1e-6)
    assert adata.uns["spatial"]["image"]["images"]["hires"].dtype == np.uint8
    uns = adata.uns["stretrieve"]
    assert uns["schema_version"] == 2
    assert uns["unit"] == "log1p_cp10k"
    assert uns["slide"]["mpp_source"] == "given"
    assert len(uns["reference"]["content_digest"]) == 64


def test_written_file_reads_back_the_same(result, tmp_path):
    path = result.to_h5ad(tmp_path / "q.h5ad")
    back = ad.read_h5ad(path)
    np.testing.assert_array_equal(back.X, result.adata.X)
    pd.testing.assert_frame_equal(back.obs, result.adata.obs)
    assert list(back.uns["stretrieve"]["neighbour_spot_uid"]) == list(
        result.adata.uns["stretrieve"]["neighbour_spot_uid"]
    )
    with pytest.raises(OutputExistsError, match="exists"):
        result.to_h5ad(path)


@pytest.mark.parametrize("weights", list(WeightScheme))
@pytest.mark.parametrize("centring", list(Centring))
@pytest.mark.parametrize("modality", list(Modality))
def test_explanation_sums_to_the_prediction(reference, sections, weights, centring, modality):
    settings = QuerySettings(top_k=9, weights=weights, centring=centring, modality=modality)
    answer = ask(reference, sections[3], settings=settings)
    for row, gene in ((0, "SIM-A0"), (40, "SIM-B7"), (63, "SIM-A19")):
        table = answer.explain(row, gene)
        assert table["weight"].sum() == pytest.approx(1)
        predicted = answer.adata[:, gene].X[row, 0]
        assert float((table["weight"] * table["value"]).sum()) == pytest.approx(predicted, rel=1e-6)
        assert (np.diff(table["similarity"]) <= 1e-9).all()


def test_explanation_sums_to_a_smoothed_prediction_with_a_regression(reference, sections):
    settings = QuerySettings(top_k=9, smoothing_um=300.0, companion=0.4)
    answer = ask(reference, sections[3], settings=settings)
    assert answer.adata.obsm["stretrieve_neighbours"].shape[1] == 36
    for row, gene in ((0, "SIM-A0"), (40, "SIM-B7")):
        table = answer.explain(row, gene)
        predicted = answer.adata[:, gene].X[row, 0]
        assert float((table["weight"] * table["value"]).sum()) == pytest.approx(predicted, rel=1e-6)
        assert table["weight"].iloc[-1] == pytest.approx(0.4)


def test_uniform_prediction_is_the_mean_of_named_measured_spots(result, sections):
    table = result.explain("1x1", "SIM-A3")
    by_uid = {
        f"{s.meta.section}/{spot}": np.log1p(1e4 * s.counts[i].toarray()[0] / s.library_size[i])
        for s in sections[:3]
        for i, spot in enumerate(s.spot_ids)
    }
    column = sections[0].gene_names.index("SIM-A3")
    values = [by_uid[uid][column] for uid in table["spot_uid"]]
    np.testing.assert_allclose(table["value"], values, rtol=1e-6)
    row = result.adata.obs_names.get_loc("1x1")
    assert result.adata[:, "SIM-A3"].X[row, 0] == pytest.approx(np.mean(values), rel=1e-6)


def test_own_patient_is_left_out_and_then_changes_nothing(sections, reference, tmp_path):
    """Leak canary: with the guard on, the donor's own section in the pool makes no difference."""
    guarded = ask(reference, sections[0], patient="A")
    used = guarded.adata.uns["stretrieve"]["neighbour_spot_uid"]
    assert all(uid.startswith("s2/") for uid in used)
    leaky = ask(reference, sections[0])
    own = [uid for uid in leaky.adata.uns["stretrieve"]["neighbour_spot_uid"] if "s0/" in uid]
    assert own
    assert any("patient unknown" in warning for warning in leaky.warnings)


def test_result_does_not_depend_on_batch_size_or_workers(reference, sections, result):
    for batch_size, workers in ((7, 1), (64, 2)):
        settings = QuerySettings(top_k=12, batch_size=batch_size, workers=workers)
        again = ask(reference, sections[3], settings=settings)
        np.testing.assert_array_equal(
            again.adata.obsm["stretrieve_neighbours"], result.adata.obsm["stretrieve_neighbours"]
        )
        np.testing.assert_array_equal(again.adata.X, result.adata.X)


def test_fewer_spots_than_top_k(reference, sections):
    answer = ask(reference, sections[3], settings=QuerySettings(top_k=100), patient="A")
    assert (answer.adata.obsm["stretrieve_neighbours"] >= 0).sum(axis=1).max() == 64
    assert np.isfinite(answer.adata.X).all()
    assert any("fewer than top_k" in warning for warning in answer.warnings)


def test_ood_score_separates_tissue_from_something_else(reference, sections, tmp_path, result):
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 2, size=(360, 360, 1)) * np.array([20, 200, 30])
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "green.png")
    odd = dataclasses.replace(sections[3], image=tmp_path / "green.png")
    odd_score = ask(reference, odd).adata.obs["ood_score"].mean()
    assert odd_score > 0.95
    assert result.adata.obs["ood_score"].mean() < 0.8
    assert np.isfinite(result.adata.X).all()


def test_gene_symbols_and_repeats_are_understood(reference, sections):
    answer = ask(reference, sections[3], genes=["SIM-B1", "SIM-A1", "SIM-B1"])
    assert list(answer.adata.var[keys.GENE_SYMBOL]) == ["SIM-B1", "SIM-A1"]


def test_unknown_patch_or_gene_in_an_explanation(result):
    with pytest.raises(InputError, match="patch"):
        result.explain(64, "SIM-A0")
    with pytest.raises(InputError, match="gene"):
        result.explain(0, "NOPE")
