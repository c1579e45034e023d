import dataclasses
import json
import shutil

import numpy as np
import pytest

from stretrieve import BuildSettings, QueryEngine, QuerySettings, build_reference, read_sheet
from stretrieve.errors import InputError
from stretrieve.query import (
    Centring,
    SpotPositions,
    calibrate_built,
    calibrate_reference,
    recommended_settings,
    stored_calibration,
)
from stretrieve.query.calibrate_reference import can_refit
from stretrieve.reference import Reference, verify_reference
from stretrieve.spots import read_section
from tests.tissue import GENES, write_cohort

TINY = {"encoder": {"backbone": "test_resnet", "weights": "none"}, "patch_px": 32}
BUILD = BuildSettings(embedder="colour", embedder_config={"patch_px": 32, "side_um": 160.0})


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), "AABCD")


@pytest.fixture(scope="module")
def sections(sheet):
    return [read_section(row) for row in read_sheet(sheet)]


@pytest.fixture(scope="module")
def root(sections, tmp_path_factory):
    """A reference of three patients, calibrated as it was built."""
    out = tmp_path_factory.mktemp("ref") / "REF"
    build_reference(sections[:4], out, settings=BUILD, finish=calibrate_built)
    return out


def ask(root, section, **options):
    spots = SpotPositions(section.spot_ids, section.xy)
    engine = QueryEngine(Reference.open(root), **options)
    return engine, engine.query(section.image, mpp=5.0, spots=spots, patient="D")


def test_a_build_is_calibrated_with_embedders_that_had_not_seen_the_patient(root):
    reference = Reference.open(root)
    assert reference.manifest.version == 1
    assert verify_reference(root).ok
    facts = reference.manifest.calibration
    assert facts["embedder_refitted"] is True
    assert facts["patients"] == ["A", "B", "C"]
    assert len(facts["nested_pcc"]) == 3
    assert json.dumps(facts)
    calibration = stored_calibration(reference)
    assert calibration.expected_pcc.shape == (len(GENES),)
    assert calibration.facts["candidates"][0]["mean"] >= calibration.facts["nested_pcc_mean"]


def test_queries_use_the_calibrated_settings_and_give_intervals(root, sections):
    engine, result = ask(root, sections[4])
    calibrated = stored_calibration(engine.reference)
    assert calibrated.applies_to(engine.settings)
    adata = result.adata
    assert set(adata.layers) == {
        "spread", "n_effective", "lower_80", "upper_80", "lower_90", "upper_90",
    }  # fmt: skip
    inside = {
        level: (adata.layers[f"lower_{level}"] <= adata.X)
        & (adata.layers[f"upper_{level}"] >= adata.X)
        for level in (80, 90)
    }
    assert inside[80].all()
    width = [np.mean(adata.layers[f"upper_{n}"] - adata.layers[f"lower_{n}"]) for n in (80, 90)]
    assert 0 < width[0] < width[1]
    np.testing.assert_allclose(adata.var["expected_pcc"], calibrated.expected_pcc, rtol=1e-6)
    assert not any("calibrated" in warning for warning in result.warnings)
    for row, gene in ((0, "SIM-A0"), (33, "SIM-B7")):
        table = result.explain(row, gene)
        predicted = float(adata[:, gene].X[row, 0])
        assert (table["weight"] * table["value"]).sum() == pytest.approx(predicted, rel=1e-6)


def test_settings_of_the_user_win_and_lose_the_intervals(root, sections):
    reference = Reference.open(root)
    calibration = stored_calibration(reference)
    other = Centring.NONE if calibration.settings.centring is not Centring.NONE else Centring.BOTH
    chosen = recommended_settings(calibration, {"centring": other.value, "batch_size": 7})
    assert chosen.batch_size == 7
    assert chosen.top_k == calibration.settings.top_k
    _, result = ask(root, sections[4], settings=chosen)
    assert set(result.adata.layers) == {"spread", "n_effective"}
    assert np.isnan(result.adata.var["expected_pcc"]).all()
    assert any("differ from the calibrated" in warning for warning in result.warnings)
    assert recommended_settings(None) == QuerySettings()


def test_calibrating_again_with_and_without_the_sections(root, sections, sheet, tmp_path):
    copy = tmp_path / "REF"
    shutil.copytree(root, copy)
    before = Reference.open(root).manifest.calibration
    done = calibrate_reference(copy, sections=sections[:4])
    assert done.version == 2
    assert done.calibration == before
    blind = calibrate_reference(copy)
    assert blind.calibration["embedder_refitted"] is False
    _, result = ask(copy, sections[4])
    assert any("had seen the held-out patients" in warning for warning in result.warnings)
    with pytest.raises(InputError, match="no section 's3'"):
        calibrate_reference(copy, sections=sections[:3])


def test_two_patients_are_not_enough(sections, tmp_path):
    reference = build_reference(
        sections[1:3], tmp_path / "REF", settings=BUILD, finish=calibrate_built
    )
    assert reference.manifest.calibration is None
    _, result = ask(tmp_path / "REF", sections[4])
    assert any("not calibrated (that takes three" in warning for warning in result.warnings)
    with pytest.raises(InputError, match="patients to calibrate on"):
        calibrate_reference(tmp_path / "REF")


def test_an_unusable_calibration_is_left_alone(root, caplog):
    reference = Reference.open(root)
    damaged = {**reference.manifest.calibration, "format": 99}
    reference.manifest = dataclasses.replace(reference.manifest, calibration=damaged)
    assert stored_calibration(reference) is None
    assert "format 99" in caplog.text


def test_a_build_interrupted_while_calibrating_goes_on(root, sections, tmp_path):
    def stop(reference, patches, progress):
        raise KeyboardInterrupt

    out = tmp_path / "REF"
    with pytest.raises(KeyboardInterrupt):
        build_reference(sections[:4], out, settings=BUILD, finish=stop)
    assert not out.exists()
    resumed = build_reference(
        sections[:4], out, settings=BUILD, finish=calibrate_built, resume=True
    )
    assert resumed.manifest.calibration == Reference.open(root).manifest.calibration
    assert verify_reference(out).ok


def test_embedders_that_cannot_be_fitted_again(root):
    reference = Reference.open(root)
    assert can_refit(reference)
    taken_over = {**reference.manifest.settings, "embedder_from": "elsewhere"}
    reference.manifest = dataclasses.replace(reference.manifest, settings=taken_over)
    assert not can_refit(reference)
    trained = {**reference.manifest.embedder, "name": "bleep", "config": TINY}
    reference.manifest = dataclasses.replace(
        reference.manifest, settings={"train": {"epochs": 3}}, embedder=trained
    )
    assert not can_refit(reference)
