import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from stretrieve import BuildSettings, Reference, build_reference, read_sheet
from stretrieve.spots import read_section
from tests.tissue import write_cohort

COLOUR = {"patch_px": 32, "side_um": 160.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Sections s0, s1 (patient A), s2 (B) in REF; s2 and s3 (C) in TWO with the same embedder."""
    folder = tmp_path_factory.mktemp("retrieve")
    sections = [read_section(row) for row in read_sheet(write_cohort(folder, "AABC"))]
    settings = BuildSettings(embedder="colour", embedder_config=COLOUR)
    build_reference(sections[:3], folder / "REF", settings=settings)
    same = BuildSettings(embedder_from=str(folder / "REF"))
    build_reference(sections[2:], folder / "TWO", settings=same)
    other = BuildSettings(embedder="colour", embedder_config={**COLOUR, "n_genes": 30})
    build_reference(sections[3:], folder / "OTHER", settings=other)
    return folder


def answers(cli, *arguments):
    code, out, err = cli("retrieve", *arguments, "--json", "-q")
    assert code == 0, err
    return json.loads(out)


def test_stored_spots(cli, place, tmp_path):
    out, sheet = tmp_path / "hits.csv", tmp_path / "hits.png"
    said = answers(
        cli, "spots", "s0/1x1", "s2/3x3", "--ref", place / "REF", "--top-k", "4", "--out", out,
        "--contact-sheet", sheet,
    )  # fmt: skip
    assert said["direction"] == "image->image"
    assert [(a["query"], a["rank"]) for a in said["answers"]] == [
        (query, rank) for query in ("s0/1x1", "s2/3x3") for rank in range(1, 5)
    ]
    patients = {(a["query"], a["patient"]) for a in said["answers"]}
    assert patients == {("s0/1x1", "B"), ("s2/3x3", "A")}
    table = pd.read_csv(out)
    assert list(table["spot_uid"]) == [a["spot_uid"] for a in said["answers"]]
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_patches_of_a_slide(cli, place, tmp_path):
    out = tmp_path / "hits.h5ad"
    said = answers(
        cli, "patches", place / "s3" / "image.png", "--mpp", "5", "--ref", place / "REF",
        "--spots", place / "s3" / "spots.tsv", "--patient", "C", "--top-k", "2", "--out", out,
        "--where", "patient!=B", "--where", "organ=Breast,colon", "--where", "species=Homo sapiens",
    )  # fmt: skip
    assert len(said["answers"]) == 128
    assert {a["patient"] for a in said["answers"]} == {"A"}
    adata = ad.read_h5ad(out)
    assert set(adata.obs["spot_uid"]) == {a["spot_uid"] for a in said["answers"]}


def test_measured_section_over_two_references(cli, place, tmp_path):
    out = tmp_path / "hits.parquet"
    said = answers(
        cli, "section", place / "s0" / "counts.tsv", "--spots", place / "s0" / "spots.tsv",
        "--format", "st", "--patient", "A", "--ref", place / "REF", "--ref", place / "TWO",
        "--to", "image", "--top-k", "40", "--out", out,
    )  # fmt: skip
    assert said["direction"] == "expression->image"
    found = pd.read_parquet(out)
    by_section = found.groupby("section")["reference"].unique().map(list).to_dict()
    assert by_section == {"s2": ["REF"], "s3": ["TWO"]}
    assert found["thumbnail"][0].startswith(b"\xff\xd8")


def test_vectors(cli, place, tmp_path):
    reference = Reference.open(place / "REF")
    np.save(tmp_path / "q.npy", reference.embeddings("expression")[:3])
    said = answers(
        cli, "vectors", tmp_path / "q.npy", "--from", "expression", "--to", "expression",
        "--ref", place / "REF", "--top-k", "1",
    )  # fmt: skip
    assert [a["spot_uid"] for a in said["answers"]] == list(reference.spots["spot_uid"][:3])
    assert any("patient unknown" in note for note in said["notes"])


def test_signature_of_spots_and_of_a_slide(cli, place, tmp_path):
    genes = ("SIM-A0", "SIM-A1=2", "SIM-B0=-1")
    out = tmp_path / "sig.h5ad"
    said = answers(cli, "signature", *genes, "--ref", place / "REF", "--out", out, "--top-k", "5")
    assert said["signature"] == {"SIM-A0": 1, "SIM-A1": 2, "SIM-B0": -1}
    scores = [a["score"] for a in said["answers"]]
    assert scores == sorted(scores, reverse=True)
    assert list(ad.read_h5ad(out).obs["score"]) == pytest.approx(scores)
    said = answers(
        cli, "signature", *genes, "NOPE", "--ignore-unknown", "--ref", place / "REF", "--slide",
        place / "s3" / "image.png", "--mpp", "5", "--contact-sheet", tmp_path / "p.html",
    )  # fmt: skip
    assert len(said["answers"]) == 10
    assert any("NOPE" in note for note in said["notes"])
    assert (tmp_path / "p.html").read_text().count("<img") == 10


def test_match(cli, place, tmp_path):
    pairs = tmp_path / "pairs.csv"
    common = ("--ref", place / "REF", "--ref", place / "TWO", "--max-spots", "30")
    said = answers(
        cli, "match", place / "s1" / "counts.tsv", "--spots", place / "s1" / "spots.tsv",
        "--format", "st", "--patient", "A", "--pairs", pairs, *common,
    )  # fmt: skip
    assert {a["section"] for a in said["answers"]} == {"s2", "s3"}
    assert said["answers"][0]["null_patients"] == 1
    assert len(pd.read_csv(pairs)) == 60
    said = answers(cli, "match", "--stored", "s0", *common, "--exclude", "section")
    assert {a["section"] for a in said["answers"]} == {"s1", "s2", "s3"}
    said = answers(cli, "match", "--slide", place / "s3" / "image.png", "--mpp", "5", *common)
    assert len(said["answers"]) == 4


def test_table_on_stdout_says_what_it_leaves_out(cli, place):
    code, out, _ = cli(
        "retrieve", "spots", "s0/1x1", "--ref", place / "REF", "--exclude", "none", "--top-k", "120"
    )
    assert code == 0
    assert "s0/1x1" in out
    assert "20 more rows" in out


WRONG = {
    "other embedder": (5, ("spots", "s0/1x1", "--ref", "REF", "--ref", "OTHER"), "embedder_from"),
    "no such spot": (3, ("spots", "s9/1x1", "--ref", "REF"), "s9/1x1"),
    "no reference": (3, ("spots", "s0/1x1", "--ref", "NOWHERE"), "no manifest"),
    "no such side": (2, ("spots", "s0/1x1", "--ref", "REF", "--to", "sound"), "'sound'"),
    "no such exclusion": (2, ("spots", "s0/1x1", "--ref", "REF", "--exclude", "x"), "exclusion"),
    "no such column": (2, ("spots", "s0/1x1", "--ref", "REF", "--where", "x=1"), "filter column"),
    "no equals sign": (2, ("spots", "s0/1x1", "--ref", "REF", "--where", "organ"), "--where"),
    "nothing left": (3, ("spots", "s0/1x1", "--ref", "REF", "--where", "organ=skin"), "none"),
    "only the own": (3, ("spots", "s0/1x1", "--ref", "REF", "--where", "patient=A"), "besides"),
    "unknown gene": (3, ("signature", "NOPE", "--ref", "REF"), "NOPE"),
    "weight no number": (2, ("signature", "SIM-A0=x", "--ref", "REF"), "SIM-A0=x"),
    "gene twice": (2, ("signature", "SIM-A0", "SIM-A0=2", "--ref", "REF"), "twice"),
    "no vectors": (3, ("vectors", "none.npy", "--ref", "REF"), "no file"),
    "not an array": (3, ("vectors", "sheet.csv", "--ref", "REF"), "sheet.csv"),
    "nothing to match": (2, ("match", "--ref", "REF"), "--stored"),
    "two to match": (2, ("match", "--stored", "s0", "--slide", "x", "--ref", "REF"), "--stored"),
    "no such section": (3, ("match", "--stored", "s9", "--ref", "REF"), "'s9'"),
    "ending": (2, ("spots", "s0/1x1", "--ref", "REF", "--out", "x.txt"), ".parquet"),
    "sheet ending": (2, ("spots", "s0/1x1", "--ref", "REF", "--contact-sheet", "x.gif"), ".html"),
    "exists": (3, ("spots", "s0/1x1", "--ref", "REF", "--out", "sheet.csv"), "exists"),
    "match as h5ad": (2, ("match", "--stored", "s0", "--ref", "REF", "--out", "x.h5ad"), ".csv"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_are_one_line_with_their_exit_code(cli, place, monkeypatch, case):
    expected, arguments, text = WRONG[case]
    monkeypatch.chdir(place)
    code, out, err = cli("retrieve", *arguments)
    assert (code, out) == (expected, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err
