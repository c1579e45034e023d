import json

import anndata as ad
import numpy as np
import pytest

from tests.tissue import write_cohort

FAST = ("--embedder", "colour", "--patch-px", "32", "--patch-um", "160", "--quiet", "--json")


@pytest.fixture
def cohort(tmp_path):
    folder = tmp_path / "cohort"
    write_cohort(folder, "ABCD")
    sheet = folder / "sheet.csv"
    kept = [line for line in sheet.read_text().splitlines() if not line.startswith("s3,")]
    (folder / "train.csv").write_text("\n".join(kept) + "\n")
    return folder


def test_a_build_is_calibrated_and_queries_follow(cli, cohort, tmp_path):
    ref, slide = tmp_path / "REF", cohort / "s3" / "image.png"
    code, _, err = cli("build-ref", cohort / "train.csv", "--out", ref, *FAST)
    assert code == 0, err
    spots = cohort / "s3" / "spots.tsv"
    common = ("query", slide, "--ref", ref, "--mpp", "5", "--spots", spots, "-q", "--json")
    code, out, err = cli(*common, "--patient", "D", "--out", tmp_path / "a.h5ad")
    assert code == 0, err
    adata = ad.read_h5ad(tmp_path / "a.h5ad")
    assert {"lower_90", "upper_90"} <= set(adata.layers)
    assert np.isfinite(adata.var["expected_pcc"]).any()
    assert json.loads(out)["warnings"] == []
    options = ("--set", "companion=0.5", "--modality", "fused", "--section", "s0")
    code, out, err = cli(*common, *options, "--out", tmp_path / "b.h5ad")
    assert code == 0, err
    settings = ad.read_h5ad(tmp_path / "b.h5ad").uns["stretrieve"]["settings"]
    assert (settings["companion"], settings["modality"]) == (0.5, "fused")
    assert any("differ from the calibrated" in text for text in json.loads(out)["warnings"])
    code, _, err = cli(*common, "--compat", "mclstexp", "--out", tmp_path / "c.h5ad")
    assert code == 0, err
    assert ad.read_h5ad(tmp_path / "c.h5ad").uns["stretrieve"]["settings"]["top_k"] == 200
    code, out, err = cli("ref", "calibrate", ref, "--sheet", cohort / "train.csv", "-q", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["version"] == "v000002"
    assert said["embedder_refitted"] is True


def test_calibration_can_be_left_out_and_two_patients_are_an_error(cli, cohort, tmp_path):
    ref = tmp_path / "REF"
    code, _, err = cli("build-ref", cohort / "train.csv", "--out", ref, "--no-calibrate", *FAST)
    assert code == 0, err
    assert json.loads((ref / "manifest.json").read_text())["calibration"] is None
    code, _, err = cli("ref", "remove", ref, "--patient", "B", "-q", "--json")
    assert code == 0, err
    code, _, err = cli("ref", "calibrate", ref, "-q")
    assert code == 3
    assert "patients to calibrate on: got 2" in err
