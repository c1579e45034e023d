"""``stretrieve evaluate`` from the command line."""

import json

import pytest

from tests.tissue import write_cohort

FAST = ("--set", "n_genes=40", "--set", "engine=false", "--no-controls", "--seeds", "1", "--quiet")


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), "ABC")


def test_from_a_sheet_to_pages(cli, sheet, tmp_path):
    out = tmp_path / "out"
    code, text, err = cli("evaluate", sheet, "--out", out, *FAST, "--json")
    assert code == 0, err
    data = json.loads(text)
    assert {line["line"] for line in data["lines"]} >= {"rrr", "average", "colour", "depth"}
    for name in ("results.parquet", "summary.json", "report.md", "report.html", "genes.csv"):
        assert (out / name).is_file()


def test_a_plan_says_what_would_be_done(cli, sheet, tmp_path):
    code, text, err = cli("evaluate", sheet, "--out", tmp_path / "out", *FAST, "--plan", "--json")
    assert code == 0, err
    plan = json.loads(text)
    assert [fold["held_out"] for fold in plan["folds"]] == ["A", "B", "C"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--embedders", "blep"), 2, "did you mean 'bleep'"),
        (("--metrics", "pcc"), 2, "metrics: got pcc"),
        (("--leave-out", "spot"), 2, "one of patient, section"),
        (("--set", "topk=3"), 2, "did you mean 'top_k'"),
    ],
)
def test_mistakes_are_one_line(cli, sheet, tmp_path, options, code, words):
    got, _, err = cli("evaluate", sheet, "--out", tmp_path / "out", *FAST, *options)
    assert got == code
    assert words in err
    assert err.count("\n") == 1
