"""Sections, labels, splits, blindness."""

from __future__ import annotations

import numpy as np
import pytest

from stretrieve.errors import InputError, SectionError
from stretrieve.evaluation.cohort import make_folds, read_cohort
from stretrieve.evaluation.settings import EvaluationSettings, LeaveOut
from stretrieve.spots.labels import read_labels
from tests.tissue import write_cohort


def test_each_patient_is_held_out_once_with_all_their_sections(bench):
    folds = make_folds(bench.samples, LeaveOut.PATIENT)
    assert [(f.name, f.test) for f in folds] == [("A", (0, 1)), ("B", (2,)), ("C", (3,))]
    for fold in folds:
        assert sorted(fold.train + fold.test) == [0, 1, 2, 3]
        held = {bench.samples[i].patient for i in fold.test}
        assert held.isdisjoint({bench.samples[i].patient for i in fold.train})


def test_one_section_at_a_time_only_when_asked(bench):
    folds = make_folds(bench.samples, LeaveOut.SECTION)
    assert [len(f.test) for f in folds] == [1, 1, 1, 1]
    assert EvaluationSettings(leave_out=LeaveOut.SECTION).optimistic


def test_one_patient_cannot_be_evaluated(tmp_path):
    samples = read_cohort(write_cohort(tmp_path, "AA"))
    with pytest.raises(InputError, match="two or more"):
        make_folds(samples, LeaveOut.PATIENT)


def test_a_blind_section_keeps_places_and_loses_measurements(bench):
    sample = bench.samples[0]
    blind = sample.blind()
    assert blind.section.n_genes == 0
    assert blind.labels is None
    np.testing.assert_array_equal(blind.section.xy, sample.section.xy)
    kept = sample.section.gene_names[:3]
    assert blind.section.library_size.sum() == 0
    assert sample.blind(kept).section.gene_names == kept


def test_genes_that_were_not_measured_are_nan_and_the_denominator_is_whole(bench):
    section = bench.samples[0].section
    gene = section.gene_names[0]
    truth = bench.samples[0].truth([gene, "NOT-MEASURED"])
    expected = np.log1p(1e4 * section.counts[:, 0].toarray().ravel() / section.library_size)
    np.testing.assert_allclose(truth[:, 0], expected, rtol=1e-6)
    assert np.isnan(truth[:, 1]).all()


def test_labels_by_place_and_by_name(bench, tmp_path):
    section = bench.samples[0].section
    x, y = section.array_xy[0]
    by_place = tmp_path / "labels.tsv"
    by_place.write_text(f"x\ty\tlabel\n{x + 0.02}\t{y - 0.01}\ttumour\n99\t99\tstroma\n")
    labels = read_labels(by_place, section)
    assert labels[0] == "tumour"
    assert (labels[1:] == "").all()
    by_name = tmp_path / "labels.csv"
    by_name.write_text(f"spot_id,label\n{section.spot_ids[1]},undetermined\n")
    assert (read_labels(by_name, section) == "").all()


def test_labels_of_another_section_are_refused(bench, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("spot_id,label\nnobody,tumour\n")
    with pytest.raises(SectionError, match="no spot of this section"):
        read_labels(path, bench.samples[0].section)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SectionError, match="label and spot_id"):
        read_labels(path, bench.samples[0].section)
