import json
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from tests.tissue import GENES, write_cohort

ROOT = Path(__file__).resolve().parents[2]
FAST = ("--embedder", "colour", "--patch-px", "32", "--patch-um", "160", "--quiet")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, "AABC")
    sheet = folder / "sheet.csv"
    kept = [line for line in sheet.read_text().splitlines() if not line.startswith("s3,")]
    (folder / "train.csv").write_text("\n".join(kept) + "\n")
    return folder


@pytest.fixture(scope="module")
def reference(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("ref") / "REF"
    command = [sys.executable, "-m", "stretrieve", "build-ref", cohort / "train.csv", "--out", out]
    done = subprocess.run(
        [*map(str, command), *FAST, "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spots"] == 192
    return out


def test_query_on_a_grid_and_at_spots(cli, cohort, reference, tmp_path):
    slide = cohort / "s3" / "image.png"
    common = ("query", slide, "--ref", reference, "--mpp", "5", "--top-k", "20", "--json", "-q")
    code, out, err = cli(*common, "--out", tmp_path / "grid.h5ad")
    assert code == 0, err
    assert json.loads(out)["mpp_source"] == "given"
    grid = ad.read_h5ad(tmp_path / "grid.h5ad")
    assert grid.n_vars == len(GENES)
    assert np.isfinite(grid.X).all()
    spots = cohort / "s3" / "spots.tsv"
    code, out, err = cli(*common, "--out", tmp_path / "spots.h5ad", "--spots", spots)
    assert code == 0, err
    at_spots = ad.read_h5ad(tmp_path / "spots.h5ad")
    assert at_spots.n_obs == 64
    assert set(at_spots.obs_names) == {f"{x}x{y}" for x in range(1, 9) for y in range(1, 9)}


def test_prediction_follows_the_tissue(cli, cohort, reference, tmp_path):
    """The simulated programme is visible: an unseen donor's genes are predicted far above chance."""
    from stretrieve import read_sheet
    from stretrieve.spots import log_cp10k, read_section

    slide, spots = cohort / "s3" / "image.png", cohort / "s3" / "spots.tsv"
    out = tmp_path / "q.h5ad"
    cli("query", slide, "--ref", reference, "--out", out, "--mpp", "5", "--spots", spots, "-q")
    predicted = ad.read_h5ad(out)
    truth = read_section(read_sheet(cohort / "sheet.csv")[3])
    order = predicted.obs_names.get_indexer(truth.spot_ids)
    expected = log_cp10k(truth.counts).toarray()
    columns = predicted.var_names.get_indexer(truth.gene_names)
    pcc = [
        np.corrcoef(predicted.X[order][:, column], expected[:, gene])[0, 1]
        for gene, column in enumerate(columns)
    ]
    assert np.median(pcc) > 0.5


def test_genes_weights_and_centring_options(cli, cohort, reference, tmp_path):
    slide = cohort / "s3" / "image.png"
    for weights in ("uniform", "bleep", "softmax", "inverse"):
        out = tmp_path / f"{weights}.h5ad"
        code, _, err = cli(
            "query", slide, "--ref", reference, "--out", out, "--mpp", "5", "--weights", weights,
            "--genes", "SIM-A1,SIM-B2", "--centring", "section", "--patient", "A", "-q",
        )  # fmt: skip
        assert code == 0, err
        adata = ad.read_h5ad(out)
        assert list(adata.var_names) == ["SIM-A1", "SIM-B2"]
        assert all(uid.startswith("s2/") for uid in adata.uns["stretrieve"]["neighbour_spot_uid"])
        np.testing.assert_allclose(adata.obsm["stretrieve_weights"].sum(axis=1), 1)


def test_embedders_are_listed(cli):
    code, out, _ = cli("embedders", "--json")
    names = [row["name"] for row in json.loads(out)["embedders"]]
    assert code == 0
    assert {"bleep", "colour"} <= set(names)


def test_version_and_bare_call(cli):
    assert cli("--version")[1].startswith("stretrieve ")
    code, out, _ = cli()
    assert code == 0
    assert "build-ref" in out


def test_command_reference_is_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli" / "generate.py"), "--check"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}run: python cli/generate.py"


def test_readme_names_only_commands_that_exist(cli):
    commands = {
        line.split()[1]
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.strip().startswith("stretrieve ")
    }
    assert commands
    _, help_text, _ = cli("--help")
    assert all(f" {command} " in help_text for command in commands)
