"""Every leak is planted and found; a clean split is clean."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from stretrieve.errors import ExitCode
from stretrieve.evaluation import EvaluationSettings, freeze_gene_sets, run
from stretrieve.evaluation.audit import (
    LeakError,
    Traces,
    audit_fold,
    check_audit,
    trace_expression,
    trace_images,
)
from stretrieve.evaluation.cohort import Fold
from stretrieve.evaluation.inputs import ImageInputs
from tests.tissue import write_cohort

GENES = 60


def _rows(sheet: Path) -> list[dict[str, str]]:
    with sheet.open() as stream:
        return list(csv.DictReader(stream))


def _write(sheet: Path, rows: list[dict[str, str]]) -> Path:
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return sheet


def _audit(samples, fold, *, inputs=None, sets=None):
    train = [samples[i].section for i in fold.train]
    sets = sets or freeze_gene_sets(train, n_genes=40)
    spec = None if inputs is None else inputs.backbone.spec
    traces = [
        Traces(*trace_images(s, inputs=inputs, spec=spec), trace_expression(s, sets))
        for s in samples
    ]
    found = audit_fold(fold, samples, traces, sets=sets, n_genes=40)
    return {finding.check: finding for finding in found}


def _wide(sample, seed):
    """A section with enough genes for the expression check."""
    rng = np.random.default_rng(seed)
    import pandas as pd
    from scipy import sparse

    names = pd.Index([f"G{i}" for i in range(GENES)])
    counts = rng.poisson(rng.gamma(2.0, 3.0, GENES), (sample.section.n_spots, GENES))
    table = pd.DataFrame({"gene_id": "", "gene_symbol": names}, index=names)
    counts = sparse.csr_matrix(counts.astype(np.int32))
    section = dataclasses.replace(sample.section, counts=counts, genes=table)
    return dataclasses.replace(sample, section=section)


def test_a_clean_split_is_clean(bench):
    inputs = ImageInputs(None, bench.out / "cache")
    found = _audit(bench.samples, bench.folds[0], inputs=inputs)
    assert {check: finding.n for check, finding in found.items()} == {
        "patients": 0, "genes": 0, "images": 0, "expression": 0,
    }  # fmt: skip
    check_audit(list(found.values()))


def test_a_patient_on_both_sides_is_found(bench):
    found = _audit(bench.samples, Fold("A", (1, 2, 3), (0,)))
    assert found["patients"].n == 1
    with pytest.raises(LeakError, match="patients in fold 'A'"):
        check_audit(list(found.values()))


def test_genes_chosen_on_the_test_patient_are_found(bench):
    fold = bench.folds[0]
    samples = [_wide(sample, i) for i, sample in enumerate(bench.samples)]
    everyone = freeze_gene_sets([s.section for s in samples], n_genes=40)
    assert _audit(samples, fold, sets=everyone)["genes"].n > 0
    assert _audit(samples, fold)["genes"].n == 0


def test_one_copied_spot_is_found_by_its_expression(bench):
    samples = [_wide(sample, i) for i, sample in enumerate(bench.samples)]
    assert _audit(samples, bench.folds[2])["expression"].n == 0
    test = samples[3].section
    counts = test.counts.tolil()
    counts[5] = samples[0].section.counts[7]
    copied = dataclasses.replace(
        samples[3], section=dataclasses.replace(test, counts=counts.tocsr())
    )
    found = _audit([*samples[:3], copied], bench.folds[2])
    assert found["expression"].n == 1
    assert samples[3].name in found["expression"].detail


def test_the_same_picture_under_another_donor_fails_the_run(tmp_path):
    rows = _rows(write_cohort(tmp_path, "ABC"))
    shutil.copy(tmp_path / "s0" / "image.png", tmp_path / "s2" / "image.png")
    sheet = _write(tmp_path / "sheet.csv", rows)
    settings = EvaluationSettings(embedders=(), seeds=(0,), n_genes=40, engine=False)
    with pytest.raises(LeakError, match=r"images in fold 'A' \(64 patches of s0\)") as caught:
        run(sheet, tmp_path / "out", settings=settings)
    assert caught.value.exit_code == ExitCode.MISMATCH
    assert (tmp_path / "out" / "run.json").is_file()
    assert not (tmp_path / "out" / "parts").exists()


def test_a_brightened_copy_of_a_picture_is_found(tmp_path, bench):
    from PIL import Image

    sheet = write_cohort(tmp_path, "AB")
    pixels = np.asarray(Image.open(tmp_path / "s0" / "image.png")).astype(np.int16)
    Image.fromarray(np.clip(pixels + 1, 0, 255).astype(np.uint8)).save(
        tmp_path / "s1" / "image.png"
    )
    from stretrieve.evaluation.cohort import make_folds, read_cohort
    from stretrieve.evaluation.settings import LeaveOut

    samples = read_cohort(sheet)
    inputs = ImageInputs(None, tmp_path / "cache")
    found = _audit(samples, make_folds(samples, LeaveOut.PATIENT)[0], inputs=inputs)
    assert found["images"].n > 32
