"""Patients are the unit, at every step."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stretrieve.errors import ShapeError
from stretrieve.metrics import compare_paired, patient_macro


def test_a_patient_with_many_sections_weighs_no_more() -> None:
    macro = patient_macro([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert macro.mean == pytest.approx(0.5)
    assert macro.patients == ("a", "b")
    np.testing.assert_allclose(macro.values, [1.0, 0.0])
    assert macro.n_sections == 4


def test_missing_sections_and_patients_are_left_out() -> None:
    macro = patient_macro([0.2, np.nan, np.nan], ["a", "a", "b"])
    assert (macro.mean, macro.patients, macro.n_sections) == (pytest.approx(0.2), ("a",), 1)
    assert np.isnan(patient_macro([np.nan], ["a"]).mean)
    with pytest.raises(ShapeError):
        patient_macro([1.0], ["a", "b"])


def test_comparison_is_paired_by_name_and_uses_wilcoxon() -> None:
    rng = np.random.default_rng(0)
    names = [f"p{i}" for i in range(9)]
    base = rng.normal(size=9)
    gain = np.abs(rng.normal(0.1, 0.02, 9))
    first = patient_macro(base + gain, names)
    second = patient_macro(base[::-1], names[::-1])  # the same patients in another order
    result = compare_paired(first, second)
    assert result.difference == pytest.approx(gain.mean())
    assert result.p_value == pytest.approx(stats.wilcoxon(gain).pvalue)
    assert 0 < result.low < result.difference < result.high
    assert result == compare_paired(first, second)


def test_comparison_at_its_ends() -> None:
    macro = patient_macro([0.1, 0.2], ["a", "b"])
    same = compare_paired(macro, macro)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    assert np.isnan(same.p_value)
    none = compare_paired(macro, patient_macro([0.3], ["c"]))
    assert none.n_patients == 0
    assert np.isnan(none.difference)
