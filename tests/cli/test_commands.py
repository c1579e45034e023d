import json
import shutil
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
    silent = np.isnan(grid.X).all(axis=1)
    assert np.isfinite(grid.X[~silent]).all()
    assert silent.mean() < 0.2  # the rim, where a patch is mostly glass, which no reference spot is
    assert (grid.obs["status"][silent] == "ood").all()
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


def test_an_added_embedder_answers_by_its_label(cli, cohort, reference, tmp_path):
    root = shutil.copytree(reference, tmp_path / "REF")
    code, _, err = cli(
        "ref", "add-embedder", root, cohort / "train.csv", "--embedder", "colour", "--label", "wide",
        "--set", "embedder_config.patch_px=32", "--set", "embedder_config.side_um=240", "-q",
    )  # fmt: skip
    assert code == 0, err
    common = ("query", cohort / "s3" / "image.png", "--ref", root, "--mpp", "5", "--json", "-q")
    common += ("--spots", cohort / "s3" / "spots.tsv")
    found = []
    for options in ((), ("--embedder", "wide"), ("--embedder", "wide", "--device", "cpu")):
        out = tmp_path / f"{len(found)}.h5ad"
        code, _, err = cli(*common, "--out", out, *options)
        assert code == 0, err
        found.append(ad.read_h5ad(out))
    said = [adata.uns["stretrieve"] for adata in found]
    assert [one["reference"].get("embedder", "") for one in said] == ["", "wide", "wide"]
    assert [one["patch_side_um"] for one in said] == [160, 240, 240]
    assert not np.array_equal(found[0].X, found[1].X)
    np.testing.assert_array_equal(found[1].X, found[2].X)
    code, _, err = cli(*common, "--out", tmp_path / "no.h5ad", "--embedder", "third")
    assert code == 2
    assert "'third'; expected one of wide" in err


def test_presets_are_listed_with_their_licence(cli):
    code, out, _ = cli("embedders", "--presets", "--json")
    rows = {row["name"]: row for row in json.loads(out)["presets"]}
    assert code == 0
    assert rows["virchow2"]["dim"] == 2560
    assert rows["virchow2"]["licence"].startswith("CC-BY-NC-ND")
    code, out, _ = cli("embedders", "--presets")
    assert code == 0
    assert "uni2-h" in out


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


def test_tissue_of_good_and_bad_slides(cli, cohort, tmp_path):
    slide, bad = cohort / "s0" / "image.png", tmp_path / "bad.svs"
    bad.write_bytes(b"not a slide")
    common = ("tissue", "--mpp", "5", "--out", tmp_path / "out", "--json", "-q")
    code, out, err = cli(*common, slide, bad)
    assert code == 4
    good, failed = json.loads(out)["slides"]
    assert good["tissue_mm2"] > 0
    assert Path(good["regions"]).is_file()
    assert "bad.svs" in failed["error"]
    assert len(err.strip().splitlines()) == 1
    assert cli(*common, bad)[0] == 3
    assert cli(*common, slide)[0] == 0


def test_query_inside_regions(cli, cohort, reference, tmp_path):
    slide = cohort / "s3" / "image.png"
    box = [[100.0, 100.0], [300.0, 100.0], [300.0, 250.0], [100.0, 250.0], [100.0, 100.0]]
    regions = tmp_path / "regions.geojson"
    regions.write_text(json.dumps({"type": "Polygon", "coordinates": [box]}))
    common = ("query", slide, "--ref", reference, "--mpp", "5", "--top-k", "20", "-q", "--regions")
    out = tmp_path / "q.h5ad"
    code, _, err = cli(*common, regions, "--out", out, "--min-tissue", "0.99")
    assert code == 0, err
    xy = ad.read_h5ad(out).obsm["spatial"]
    assert len(xy) >= 4
    assert ((xy > (100, 100)) & (xy < (300, 250))).all()
    for text in ("{", '{"type": "Point", "coordinates": [1, 2]}', '{"type": "Polygon"}'):
        regions.write_text(text)
        code, _, err = cli(*common, regions, "--out", tmp_path / "none.h5ad")
        assert (code, len(err.splitlines())) == (3, 1), err
    regions.write_text(
        json.dumps({"type": "Polygon", "coordinates": [(np.add(box, 1e6)).tolist()]})
    )
    code, _, err = cli(*common, regions, "--out", tmp_path / "none.h5ad")
    assert (code, len(err.splitlines())) == (3, 1), err
    assert "touches the slide" in err
    assert not (tmp_path / "none.h5ad").exists()


def test_query_a_sheet(cli, cohort, reference, tmp_path):
    """Table and exit code say what became of each slide; a second run computes nothing anew."""
    slide = cohort / "s0" / "image.png"
    (tmp_path / "bad.png").write_bytes(b"nothing")
    sheet = tmp_path / "slides.csv"
    sheet.write_text(
        f"slide,name,mpp,exclude\n{slide},good,5,\nbad.png,bad,5,\n{slide},twice,5,a copy\n"
    )
    common = ("query", sheet, "--ref", reference, "--out", tmp_path / "out", "-q")
    code, out, err = cli(*common, "--genes", "SIM-A1,SIM-B1", "--geojson", tmp_path / "qupath")
    assert code == 4, err
    assert "1 of 3 failed" in err
    assert all(word in out for word in ("done", "failed", "excluded", "a copy", "1 done"))
    assert json.loads((tmp_path / "qupath" / "good.geojson").read_text())["features"]
    code, out, _ = cli(*common, "--genes", "SIM-A1,SIM-B1", "--json")
    data = json.loads(out)
    assert (code, data["done"], data["failed"], data["excluded"]) == (4, 1, 1, 1)
    assert [item["was_there"] for item in data["slides"]] == [True, False, False]
    sheet.write_text(f"slide,name,mpp\n{slide},good,5\n")
    assert cli(*common, "--genes", "SIM-A1,SIM-B1")[0] == 0
    code, _, err = cli(*common, "--mpp", "5")
    assert (code, "--mpp" in err) == (2, True)
    code, out, _ = cli(*common, "--plan", "--json")
    assert (code, json.loads(out)["slides"][0]["outcome"]) == (0, "planned")


def test_query_plans_without_writing(cli, cohort, reference, tmp_path):
    slide = cohort / "s0" / "image.png"
    common = ("query", slide, "--ref", reference, "--mpp", "5", "-q", "--plan")
    code, out, err = cli(*common, "--out", tmp_path / "q.h5ad", "--json")
    assert code == 0, err
    assert json.loads(out)["patches"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "more"), [("q.zarr", ()), ("q.h5ad", ("--sparse",))])
def test_query_formats(cli, cohort, reference, tmp_path, name, more):
    import anndata as ad

    genes = tmp_path / "genes.txt"
    genes.write_text("SIM-A1\nSIM-B1\n")
    out = tmp_path / name
    slide = cohort / "s0" / "image.png"
    result = cli(
        "query", slide, "--ref", reference, "--out", out, "--mpp", "5", "--genes", genes, "-q",
        "--set", "max_failed=0.1", *more,
    )  # fmt: skip
    assert result[0] == 0, result[2]
    adata = ad.read_zarr(out) if out.is_dir() else ad.read_h5ad(out)
    assert list(adata.var_names) == ["SIM-A1", "SIM-B1"]
    assert adata.uns["stretrieve"]["settings"]["max_failed"] == 0.1
    wrong = cli("query", slide, "--ref", reference, "--out", tmp_path / "q.txt", "-q")
    assert (wrong[0], ".h5ad or .zarr" in wrong[2]) == (3, True)
    wrong = cli("query", slide, "--ref", reference, "--out", out, "--format", "csv", "-q")
    assert wrong[0] == 2
