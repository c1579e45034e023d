"""Who is held out."""

from __future__ import annotations

import pytest

from stretrieve.errors import ConfigError
from stretrieve.specs import PatchSpec
from stretrieve.testing.toy import toy_section
from stretrieve.training import TrainSettings
from stretrieve.training.split import hold_out

SPEC = PatchSpec.single(4, side_um=200.0)


def _sections(*patients_and_sizes):
    return [
        toy_section(SPEC, section=f"s{i}", patient=patient, n_spots=size, n_genes=5)
        for i, (patient, size) in enumerate(patients_and_sizes)
    ]


def test_whole_patients_are_held_out_nearest_to_the_fraction():
    sections = _sections(("a", 10), ("b", 40), ("a", 10), ("c", 40))
    plan = hold_out(sections, TrainSettings(validation_fraction=0.2))
    assert plan.names == ("a",)
    assert plan.held_out == (0, 2)
    assert plan.train == (1, 3)


def test_one_patient_holds_out_a_section_and_one_section_nothing():
    plan = hold_out(_sections(("a", 30), ("a", 10)), TrainSettings())
    assert plan.names == ("s1",)
    alone = hold_out(_sections(("a", 30)), TrainSettings())
    assert (alone.train, alone.held_out) == ((0,), ())


def test_asked_for_patients_are_held_out():
    sections = _sections(("a", 10), ("b", 40), ("c", 5))
    plan = hold_out(sections, TrainSettings(validation_patients=("b",)))
    assert plan.held_out == (1,)
    for asked in (("z",), ("a", "b", "c")):
        with pytest.raises(ConfigError, match="validation_patients"):
            hold_out(sections, TrainSettings(validation_patients=asked))


def test_nobody_is_held_out_without_early_stopping():
    sections = _sections(("a", 10), ("b", 40))
    assert hold_out(sections, TrainSettings(early_stopping=False)).held_out == ()
