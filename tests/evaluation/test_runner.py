"""A whole evaluation: what it writes, that it resumes, that processes do not change it."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from stretrieve.embedders import EMBEDDERS
from stretrieve.embedders.colour import ColourEmbedder
from stretrieve.errors import InputError, OutputExistsError, SectionError
from stretrieve.evaluation import (
    EvaluationSettings,
    LeaveOut,
    plan,
    run,
    summarise,
    workbench,
)
from stretrieve.evaluation.runner import read_run
from stretrieve.evaluation.summary import comparisons, control_verdicts, macro_scores
from tests.evaluation.settings import SETTINGS
from tests.tissue import write_cohort

SMALL = dataclasses.replace(SETTINGS, embedders=(), engine=False, controls=False, seeds=(0,))


def test_every_number_has_patient_section_gene_seed(evaluated):
    table = pd.read_parquet(evaluated.out / "results.parquet")
    assert list(table.columns) == ["patient", "section", "line", "seed", "metric", "gene", "value"]
    assert set(table["section"]) == {"s0", "s1", "s2", "s3"}
    oracle = table[(table["line"] == "molecular-oracle") & (table["metric"] == "pcc_gene")]
    assert len(oracle) == 2 * 4 * 40
    assert not table.duplicated(["section", "line", "seed", "metric", "gene"]).any()


def test_macro_is_genes_then_sections_then_patients(evaluated):
    table = pd.read_parquet(evaluated.out / "results.parquet")
    chosen = table[(table["line"] == "ridge") & (table["metric"] == "pcc_gene")]
    sections = chosen.groupby("section", observed=True)["value"].mean()
    expected = np.mean([np.mean([sections["s0"], sections["s1"]]), sections["s2"], sections["s3"]])
    (ridge,) = [line for line in evaluated.summary["lines"] if line["line"] == "ridge"]
    assert ridge["scores"]["pcc_gene ALL"]["mean"] == pytest.approx(expected, abs=1e-5)
    assert ridge["scores"]["pcc_gene ALL"]["patients"].keys() == {"A", "B", "C"}


def test_lines_learn_and_controls_sit_at_chance(evaluated):
    means = {
        line["line"]: line["scores"]["pcc_gene HVG50"]["mean"]
        for line in evaluated.summary["lines"]
    }
    assert means["mean-profile"] == 0
    assert min(means[name] for name in ("ridge", "rrr", "knn", "ridge-retrieval", "average")) > 0.5
    assert abs(means["random"]) < 0.1
    assert abs(means["depth"]) < 0.15
    assert {row["control"] for row in evaluated.summary["controls"]} == {
        "control-shuffled", "control-noise", "control-permuted-genes",
    }  # fmt: skip
    assert all(row["at_chance"] for row in evaluated.summary["controls"])
    assert all(row["n"] == 0 for row in evaluated.summary["audit"])
    assert not evaluated.outcome.failures


def test_what_is_needed_to_repeat_it_is_written(evaluated):
    described = read_run(evaluated.out)
    assert described["settings"]["seeds"] == [0, 1]
    assert "numpy" in described["versions"]
    assert described["folds"][0]["sets"]["hvg50"]
    assert json.loads((evaluated.out / "summary.json").read_text())["optimistic"] is False
    genes = pd.read_csv(evaluated.out / "genes.csv", index_col=0)
    assert set(genes.columns) == {line["line"] for line in evaluated.summary["lines"]}
    assert len(genes) == 40


def test_resume_keeps_what_is_done_and_gives_the_same(evaluated, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(evaluated.out, out)
    with pytest.raises(OutputExistsError, match="--resume"):
        run(evaluated.sheet, out, settings=SETTINGS)
    gone = [out / "parts" / "01-B" / "rrr-seed0", out / "parts" / "02-C" / "colour-seed0"]
    for folder in gone:
        shutil.rmtree(folder)
    (out / "parts" / "00-A" / ".ridge-seed0.tmp-1").mkdir()
    planned = plan(evaluated.sheet, out, SETTINGS)
    assert planned.n_tasks - planned.n_done == 2
    outcome = run(evaluated.sheet, out, settings=SETTINGS, resume=True)
    assert outcome.n_resumed == outcome.n_tasks - 2
    assert summarise(out)["comparisons"] == evaluated.summary["comparisons"]


def test_other_settings_are_not_taken_for_finished(evaluated, tmp_path):
    other = dataclasses.replace(SETTINGS, top_k=7)
    assert plan(evaluated.sheet, evaluated.out, other).n_done == 0
    more = dataclasses.replace(SETTINGS, seeds=(0, 1, 2))
    planned = plan(evaluated.sheet, evaluated.out, more)
    assert 0 < planned.n_done < planned.n_tasks


def test_results_of_other_code_are_not_taken_for_finished(evaluated, monkeypatch):
    assert plan(evaluated.sheet, evaluated.out, SETTINGS).n_done == evaluated.outcome.n_tasks
    monkeypatch.setattr(workbench, "code_digest", lambda: "another")
    assert plan(evaluated.sheet, evaluated.out, SETTINGS).n_done == 0


def test_the_digest_of_the_code_sees_what_decides_a_score(tmp_path):
    for name in ("query/a.py", "cli/b.py", "report/c.py"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("x = 1")
    first = workbench.digest_code(tmp_path)
    (tmp_path / "report/c.py").write_text("x = 2")
    assert workbench.digest_code(tmp_path) == first
    (tmp_path / "query/a.py").write_text("x = 2")
    assert workbench.digest_code(tmp_path) != first


def test_processes_do_not_change_the_result(evaluated, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(evaluated.out, out)
    redone = ["00-A/ridge-seed0", "02-C/rrr-seed0"]
    for part in redone:
        shutil.rmtree(out / "parts" / part)
    settings = dataclasses.replace(SETTINGS, workers=2)
    outcome = run(evaluated.sheet, out, settings=settings, resume=True)
    assert (outcome.n_tasks - outcome.n_resumed, outcome.failures) == (2, ())
    for part in redone:
        found, expected = (
            pd.read_parquet(folder / "parts" / part / "scores.parquet")
            for folder in (out, evaluated.out)
        )
        pd.testing.assert_frame_equal(found, expected, rtol=1e-6, atol=1e-9)


def test_a_plan_writes_nothing(cohort, tmp_path):
    planned = plan(cohort, tmp_path / "out", SETTINGS)
    assert planned.n_done == 0
    assert planned.folds[0] == ("A", 2, 2)
    assert not (tmp_path / "out").exists()


def test_a_line_that_fails_costs_its_own_rows_only(cohort, tmp_path, monkeypatch):
    class Broken(ColourEmbedder):
        name = "broken"

        def fit(self, sections, *, progress=None):
            raise SectionError("cannot learn")

    monkeypatch.setitem(EMBEDDERS._loaded, "broken", Broken)
    settings = dataclasses.replace(SMALL, embedders=("broken",))
    outcome = run(cohort, tmp_path / "out", settings=settings)
    assert [(task.line, why) for task, why in outcome.failures] == [("broken", "cannot learn")] * 3
    lines = {line["line"]: line["scores"] for line in summarise(tmp_path / "out")["lines"]}
    assert lines["broken"] == {}
    assert lines["rrr"]["pcc_gene HVG50"]["mean"] > 0.5


def test_a_section_with_a_small_gene_panel_is_scored_without_recall(tmp_path):
    sheet = write_cohort(tmp_path / "cohort", "AB")
    counts = tmp_path / "cohort" / "s1" / "counts.tsv"
    few = pd.read_csv(counts, sep="\t", index_col=0).iloc[:, [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]]
    few.to_csv(counts, sep="\t")
    settings = dataclasses.replace(SMALL, embedders=("colour",))
    outcome = run(sheet, tmp_path / "out", settings=settings)
    assert outcome.failures == ()
    summarise(tmp_path / "out")
    scores = pd.read_parquet(tmp_path / "out" / "results.parquet").query("line == 'colour'")
    full, small = (scores[scores.patient == patient] for patient in "AB")
    assert small[small.metric == "pcc_gene"].value.notna().sum() == 10
    assert full.metric.str.startswith("recall").any()
    assert not small.metric.str.startswith("recall").any()


def test_leaving_sections_out_says_that_it_flatters(cohort, tmp_path):
    settings = dataclasses.replace(SMALL, leave_out=LeaveOut.SECTION)
    run(cohort, tmp_path / "out", settings=settings)
    assert summarise(tmp_path / "out")["optimistic"] is True


def test_images_are_asked_for_in_one_line(tmp_path, cohort):
    text = cohort.read_text().replace("s0/image.png", "")
    sheet = cohort.with_name("no-image.csv")
    sheet.write_text(text)
    with pytest.raises(InputError, match="--query expression"):
        run(sheet, tmp_path / "out", settings=SMALL)


def test_seeds_are_distinct():
    with pytest.raises(ValueError, match="distinct"):
        EvaluationSettings(seeds=(1, 1))


def _patients(values):
    rows = [
        ("line", "pcc_gene", "HVG50", seed, patient, value)
        for (seed, patient), value in values.items()
    ]
    return pd.DataFrame(rows, columns=["line", "metric", "set", "seed", "patient", "value"])


def test_macro_by_hand():
    table = _patients({(0, "a"): 0.1, (1, "a"): 0.3, (0, "b"): 0.5, (1, "b"): 0.5})
    macro = macro_scores(table)[("line", "pcc_gene", "HVG50")]
    assert macro.mean == pytest.approx(0.35)
    assert macro.patients == pytest.approx({"a": 0.2, "b": 0.5})
    assert macro.seed_sd == pytest.approx(np.std([0.3, 0.4], ddof=1))
    assert (macro.low, macro.high) == pytest.approx((0.2, 0.5))


def test_comparison_is_paired_over_patients():
    low = {(0, p): 0.1 * i for i, p in enumerate("abcdefg")}
    high = {(0, p): 0.11 * i + 0.01 for i, p in enumerate("abcdefg")}
    table = pd.concat([_patients(low).assign(line="one"), _patients(high).assign(line="two")])
    rows = {(r["first"], r["second"]): r for r in comparisons(macro_scores(table), ["one", "two"])}
    row = rows["two", "one"]
    assert row["difference"] == pytest.approx(0.04)
    assert row["p_value"] == pytest.approx(2 / 2**7)
    assert row["low"] > 0
    assert rows["one", "two"]["difference"] == pytest.approx(-0.04)


def test_a_control_that_knows_something_is_called_out():
    values = {(seed, p): 0.3 + 0.01 * seed for seed in range(3) for p in "abc"}
    verdict = control_verdicts(_patients(values), ["line"])[0]
    assert verdict["at_chance"] is False
    values = {(seed, p): 0.2 * (-1) ** (seed + i) for seed in range(4) for i, p in enumerate("abc")}
    assert control_verdicts(_patients(values), ["line"])[0]["at_chance"] is True


def test_permuted_genes_are_measured_against_what_genes_share():
    values = {(seed, p): 0.3 + 0.01 * seed for seed in range(3) for p in "abc"}
    table = _patients(values).assign(line="control-permuted-genes")
    shared = table.assign(metric="cross_gene", set="", value=table["value"] - 0.01)
    assert control_verdicts(table, ["control-permuted-genes"])[0]["at_chance"] is False
    both = pd.concat([table, shared])
    assert control_verdicts(both, ["control-permuted-genes"])[0]["at_chance"] is True
