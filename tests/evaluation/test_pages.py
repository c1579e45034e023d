"""Pages and figures of an evaluation."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from stretrieve.evaluation import summarise
from stretrieve.report.evaluation import OPTIMISTIC, html_page, plain_words, write_report
from stretrieve.report.evaluation_ablation import ablation_table, without_table
from stretrieve.report.evaluation_tables import all_tables, audit_table, verdict
from stretrieve.report.table import Table, markdown


@pytest.fixture(scope="module")
def pages(evaluated):
    return write_report(evaluated.out, evaluated.summary, command="stretrieve evaluate sheet.csv")


def test_pages_show_every_line_and_label_what_flatters(evaluated, pages):
    text = pages[0].read_text()
    for line in evaluated.summary["lines"]:
        assert f"| {line['title']} |" in text
    assert "### OPTIMISTIC: the same predictions under published conventions" in text
    assert "stretrieve evaluate sheet.csv" in text
    assert "at chance" in text
    assert OPTIMISTIC not in text


def test_html_is_well_formed_and_its_pictures_exist(evaluated, pages):
    class Checker(HTMLParser):
        def __init__(self):
            super().__init__()
            self.stack, self.images = [], []

        def handle_starttag(self, tag, attrs):
            if tag == "img":
                self.images.append(dict(attrs)["src"])
            elif tag != "meta":
                self.stack.append(tag)

        def handle_endtag(self, tag):
            assert self.stack.pop() == tag

    checker = Checker()
    checker.feed(pages[1].read_text())
    assert not checker.stack
    assert len(checker.images) >= 6
    for name in checker.images:
        picture = Image.open(evaluated.out / name)
        assert min(picture.size) > 200
        assert len(picture.convert("L").getcolors(256) or []) > 10


def test_tables_are_rectangular(evaluated):
    tables = all_tables(evaluated.summary)
    assert len(tables) >= 7
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
        lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_every_table_of_a_sister_section_run_is_marked(evaluated):
    flattering = {**evaluated.summary, "optimistic": True}
    page = html_page(flattering, all_tables(flattering), [], command="")
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert OPTIMISTIC in page
    assert all("OPTIMISTIC" in title for title in titles[:-2])


def test_plain_words_name_what_is_beaten(evaluated):
    words = plain_words(evaluated.summary)
    (row,) = [
        row for row in evaluated.summary["comparisons"]
        if (row["first"], row["second"]) == ("engine", "mean-profile")
    ]  # fmt: skip
    expected = f"mean profile by {row['difference']:.3f} [+{row['low']:.3f}, +{row['high']:.3f}]"
    assert expected in words.partition("It is below")[0]
    assert "molecular-oracle" not in words
    assert re.search(r"90 % intervals cover 0\.\d+ of the measured values, from 0\.\d+ to", words)


def test_a_difference_that_a_test_shows_is_starred(evaluated):
    rows = [{**row, "p_value": 0.03} for row in evaluated.summary["comparisons"]]
    words = plain_words({**evaluated.summary, "comparisons": rows})
    assert re.search(r"mean profile by 0\.\d+\*", words)


def test_ablation_is_one_change_at_a_time():
    candidates = [
        {"changes": {}, "mean": 0.2},
        {"changes": {"top_k": 20}, "mean": 0.25},
        {"changes": {"top_k": 20, "companion": 0.5}, "mean": 0.5},
        {"changes": {"weights": "softmax", "top_k": 200, "temperature": 0.2}, "mean": 0.1},
    ]
    fact = {"fold": "A", "seed": 0, "candidates": candidates}
    table = ablation_table({"lines": [{"family": "engine", "fits": {"facts": [fact]}}]})
    assert table.columns == ("change", "A, seed 0")
    assert table.rows == (
        ("softmax over 200 at temperature 0.2", "−0.100"),
        ("top_k 20", "+0.050"),
    )


def test_what_was_chosen_is_undone_one_at_a_time():
    soft = {"weights": "softmax", "top_k": 200, "temperature": 0.2}
    candidates = [
        {"changes": {}, "mean": 0.2},
        {"changes": {"centring": "both"}, "mean": 0.25},
        {"changes": {"centring": "both", **soft}, "mean": 0.3},
        {"changes": {"centring": "both", "companion": 0.5, **soft}, "mean": 0.4},
    ]
    fact = {"fold": "A", "seed": 0, "changes": candidates[-1]["changes"], "candidates": candidates}
    table = without_table({"lines": [{"family": "engine", "fits": {"facts": [fact]}}]})
    assert table.rows == (("without companion 0.5", "−0.100"),)
    fact["changes"] = candidates[2]["changes"]
    table = without_table({"lines": [{"family": "engine", "fits": {"facts": [fact]}}]})
    assert table.rows == (("without softmax over 200 at temperature 0.2", "−0.050"),)


def test_many_folds_are_shown_by_mean_and_range():
    facts = [
        {"fold": str(i), "seed": 0, "candidates": [
            {"changes": {}, "mean": 0.1}, {"changes": {"top_k": 20}, "mean": 0.1 + i / 100},
        ]}
        for i in range(7)
    ]  # fmt: skip
    table = ablation_table({"lines": [{"family": "engine", "fits": {"facts": facts}}]})
    assert table.columns == ("change", "mean over folds", "lowest", "highest")
    assert table.rows == (("top_k 20", "+0.030", "+0.000", "+0.060"),)


def test_an_audit_names_findings_and_is_short_without():
    rows = [
        {"check": check, "fold": fold, "n": n, "detail": "s1" if n else ""}
        for check, fold, n in (("genes", "A", 0), ("genes", "B", 0), ("images", "A", 2))
    ]
    assert audit_table({"audit": rows}).rows == (
        ("images", "A", "2", "s1"), ("genes", "all", "0", "clean"),
    )  # fmt: skip


def test_verdicts():
    row = {"difference": 0.1, "low": 0.05, "high": 0.2, "p_value": 0.25, "n_patients": 3}
    assert verdict(row) == "better, interval beyond 0; too few patients for a test"
    assert verdict({**row, "n_patients": 8}) == "better, interval beyond 0"
    assert verdict({**row, "p_value": 0.01}) == "better, p < 0.05"
    assert (
        verdict({**row, "difference": -0.1, "low": -0.2, "high": 0.1})
        == "worse, within uncertainty"
    )
    assert verdict({**row, "difference": None}) == "not comparable"


def test_text_cannot_break_a_table():
    assert "a\\|b" in markdown(Table("t", ("x", "y"), (("a|b", "1"),)))


def test_summary_of_a_part_run_is_possible(evaluated, tmp_path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(evaluated.out, out)
    shutil.rmtree(out / "parts" / "00-A")
    summary = summarise(out, failures=[("ridge, fold 0, seed 0", "killed")])
    write_report(out, summary)
    text = (out / "report.md").read_text()
    assert "killed" in text
    assert "| reduced-rank ridge (2 of 3 patients) |" in text
    assert dataclasses.is_dataclass(all_tables(summary)[0])
