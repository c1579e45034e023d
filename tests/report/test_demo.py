"""The demo runs from nothing to maps, says what it did, and touches no folder but its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from stretrieve.errors import OutputExistsError
from stretrieve.metrics import pearson_per_gene
from stretrieve.query import Centring, QuerySettings
from stretrieve.reference import BuildSettings
from stretrieve.report import demo as demo_module
from stretrieve.report.demo import DemoResult, DemoSettings, demo_build_settings, run_demo
from stretrieve.report.demo_scores import (
    COLOUR_RIDGE,
    MEAN_PROFILE,
    RETRIEVAL,
    RETRIEVAL_PUBLISHED,
)
from stretrieve.simulation import TissueSettings

SMALL = DemoSettings(
    tissue=TissueSettings(width_um=1300.0, height_um=1300.0, mpp=1.5),
    build=BuildSettings(
        embedder="colour", embedder_config={"patch_px": 48, "side_um": 112.0}, recipe="auto"
    ),
    query=QuerySettings(top_k=20, centring=Centring.BOTH),
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return run_demo(tmp_path_factory.mktemp("demo") / "out", settings=SMALL)


def test_every_promised_file_is_there(result) -> None:
    assert result.prediction == result.folder / "prediction.h5ad"
    paths = [result.prediction, result.prediction_at_spots, *result.maps]
    paths += [result.folder / "scores.csv", result.folder / "summary.json"]
    assert all(path.is_file() for path in paths)
    assert {path.suffix for path in result.maps} == {".png"}
    assert len(result.maps) == len(demo_module.MAPPED_GENES)
    assert not list(result.folder.rglob("*.tmp-*"))


def test_prediction_covers_the_slide_and_every_gene(result) -> None:
    grid = anndata.read_h5ad(result.prediction)
    assert grid.n_vars == 250
    assert grid.n_obs > 20
    assert np.isfinite(grid.X).all()
    neighbours = [str(uid) for uid in grid.uns["stretrieve"]["neighbour_spot_uid"]]
    assert neighbours
    assert not any("donor3" in uid for uid in neighbours)


def test_scores_are_those_of_the_file_against_the_truth(result) -> None:
    truth = anndata.read_h5ad(result.folder / "data" / "truth.h5ad")
    predicted = anndata.read_h5ad(result.prediction_at_spots)
    assert list(predicted.obs_names) == list(truth.obs_names)
    r = pearson_per_gene(predicted[:, truth.var_names].X, truth.X)
    hvg = truth.var_names.isin(result.summary["genes"]["hvg50"])
    row = result.scores.loc[RETRIEVAL]
    assert row["hvg"] == pytest.approx(r[hvg].mean(), abs=1e-4)
    assert row["all"] == pytest.approx(np.nanmean(r), abs=1e-4)
    per_gene = pd.read_csv(result.folder / "scores.csv", index_col="gene")
    np.testing.assert_allclose(per_gene[RETRIEVAL], r, atol=1e-5)
    assert per_gene["hvg"].sum() == 50


def test_baselines_stand_beside_and_the_mean_profile_earns_nothing(result) -> None:
    scores = result.scores["hvg"]
    assert {MEAN_PROFILE, COLOUR_RIDGE, RETRIEVAL, RETRIEVAL_PUBLISHED} <= set(scores.index)
    assert scores[MEAN_PROFILE] == 0.0
    assert scores[COLOUR_RIDGE] > 0.1
    assert scores[RETRIEVAL] > 0.3
    assert (result.scores["measured_hvg"] <= result.scores["hvg"] + 1e-9).all()


def test_what_the_command_line_prints(result) -> None:
    rows = result.rows()
    assert [row[0] for row in rows] == list(result.scores.index)
    assert all(len(row) == len(result.columns) for row in rows)
    assert "What to try next" in result.text
    assert str(result.folder) in result.text
    assert "simulated" in result.text
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["scores"][RETRIEVAL]["hvg"] == result.scores.loc[RETRIEVAL, "hvg"]
    assert json.loads((result.folder / "summary.json").read_text())["seconds"]


def test_a_complete_demo_is_not_replaced_unasked(result) -> None:
    before = result.prediction.stat().st_mtime_ns
    with pytest.raises(OutputExistsError, match="a complete demo"):
        run_demo(result.folder, settings=SMALL)
    with pytest.raises(OutputExistsError, match="other settings"):
        run_demo(result.folder, seed=1, settings=SMALL)
    assert result.prediction.stat().st_mtime_ns == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_never_touched(tmp_path, overwrite) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="other files"):
        run_demo(tmp_path, overwrite=overwrite, settings=SMALL)
    assert (tmp_path / "data" / "thesis.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


class _StopError(Exception):
    pass


def test_an_interrupted_demo_goes_on_and_overwrite_starts_anew(tmp_path, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise _StopError

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(demo_module, "build_reference", stop)
        with pytest.raises(_StopError):
            run_demo(out, settings=SMALL)
    assert not (out / "summary.json").exists()
    made = (out / "data" / "truth.h5ad").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(demo_module, "write_demo_data", stop)
        assert run_demo(out, settings=SMALL).prediction.is_file()
    assert (out / "data" / "truth.h5ad").stat().st_mtime_ns == made
    with monkeypatch.context() as patch:
        patch.setattr(demo_module, "build_reference", stop)
        with pytest.raises(_StopError):
            run_demo(out, overwrite=True, settings=SMALL)
    assert (out / "data" / "truth.h5ad").stat().st_mtime_ns != made
    assert not (out / "prediction.h5ad").exists()


def test_settings_of_the_demo_need_no_download() -> None:
    config = demo_build_settings().embedder_config
    assert config["encoder"]["weights"] == "none"
    assert dataclasses.is_dataclass(DemoSettings())


@pytest.mark.slow
def test_the_demo_as_shipped_beats_its_baselines(tmp_path: Path) -> None:
    scores = run_demo(tmp_path / "demo").scores["hvg"]
    assert scores[RETRIEVAL] > scores[COLOUR_RIDGE] > scores[MEAN_PROFILE] == 0.0
    assert scores[RETRIEVAL_PUBLISHED] > scores[COLOUR_RIDGE]
