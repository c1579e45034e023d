"""What lines may know, and that they make use of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from stretrieve.embedders import EMBEDDERS
from stretrieve.embedders.colour import ColourEmbedder
from stretrieve.errors import UnknownNameError
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import _leading_axes, query_genes
from stretrieve.evaluation.lines import Family, choose_lines
from stretrieve.evaluation.lines.base import Training
from stretrieve.evaluation.lines.control import derangement
from stretrieve.evaluation.lines.engine import EngineLine
from stretrieve.evaluation.lines.joint import inner_splits
from stretrieve.evaluation.lines.search import average, nearest
from stretrieve.evaluation.settings import EvaluationSettings, Query
from tests.evaluation.settings import SETTINGS

LINES = {line.name: line for line in choose_lines(SETTINGS)}


@pytest.fixture(scope="module")
def fold(bench):
    return bench.prepare(1)


def _other_truth(sample):
    """The same spots with other measurements."""
    counts = sparse.csr_matrix(sample.section.counts[::-1])
    return dataclasses.replace(sample, section=dataclasses.replace(sample.section, counts=counts))


@pytest.mark.parametrize("name", sorted(LINES))
def test_every_line_predicts_every_gene(fold, name):
    line, (test,) = LINES[name], fold.tests
    prediction = line.fit(fold.training, seed=0).predict(
        test if line.sees_truth else test.blind(), fold.training.inputs
    )
    assert prediction.mean.shape == (test.section.n_spots, len(fold.training.genes))
    assert np.isfinite(prediction.mean).all()
    if prediction.neighbours is not None:
        assert prediction.neighbours.max() < len(fold.training.names)


@pytest.mark.parametrize("name", sorted(n for n, line in LINES.items() if not line.sees_truth))
def test_predictions_do_not_depend_on_the_test_measurements(fold, name):
    fitted, (test,) = LINES[name].fit(fold.training, seed=0), fold.tests
    first = fitted.predict(test.blind(), fold.training.inputs).mean
    second = fitted.predict(_other_truth(test).blind(), fold.training.inputs).mean
    np.testing.assert_array_equal(first, second)


def test_the_oracle_never_reads_the_gene_it_predicts(fold):
    """Each gene has one query, and is not part of it."""
    fitted = LINES["molecular-oracle"].fit(fold.training, seed=0)
    for one in fitted.passes:
        predicted = {fold.training.genes[i] for i in one.columns}
        assert predicted.isdisjoint(one.space.genes)
    covered = np.sort(np.concatenate([one.columns for one in fitted.passes]))
    np.testing.assert_array_equal(covered, np.arange(len(fold.training.genes)))


def test_molecular_queries_hold_no_scored_gene(bench):
    genes = bench.samples[0].section.gene_names
    chosen = query_genes(bench.samples, genes[:30], seed=1)
    assert len(chosen) == (len(genes) - 30) // 2
    assert set(chosen).isdisjoint(genes[:30])
    assert chosen == query_genes(bench.samples, genes[:30], seed=1)


def test_an_expression_query_sees_only_its_query_genes(cohort, tmp_path):
    from stretrieve.evaluation.workbench import Workbench

    settings = EvaluationSettings(seeds=(0,), n_genes=5, query=Query.EXPRESSION, controls=False)
    bench = Workbench(cohort, tmp_path, settings)
    bench._sets = {1: dataclasses.replace(bench.gene_sets(1), panel=("SIM-A1", "SIM-B1"))}
    fold = bench.prepare(1)
    assert set(fold.blind_genes).isdisjoint({"SIM-A1", "SIM-B1"})
    line = next(line for line in bench.lines.values() if line.name == "ridge-retrieval")
    blind = fold.tests[0].blind(fold.blind_genes)
    assert set(blind.section.gene_names) == set(fold.blind_genes)
    predicted = line.fit(fold.training, seed=0).predict(blind, fold.training.inputs).mean
    truth = fold.tests[0].truth(fold.training.genes)
    assert np.corrcoef(predicted[:, 0], truth[:, 0])[0, 1] > 0.4
    assert "colour-ridge" not in bench.lines


def test_the_average_leans_on_both_and_on_no_test_statistics(fold):
    (test,) = fold.tests
    fitted = LINES["average"].fit(fold.training, seed=0)
    whole = fitted.predict(test.blind(), fold.training.inputs).mean
    linear = fitted.linear.predict(fold.training.inputs.features(test))
    joint = fitted.joint.predict(test.blind(), fold.training.inputs).mean
    for one in (linear, joint):
        pcc = [np.corrcoef(whole[:, g], one[:, g])[0, 1] for g in range(whole.shape[1])]
        assert np.mean(pcc) > 0.9


def test_the_average_is_smoothed_where_that_helps_held_out_sections(fold):
    (test,) = fold.tests
    smoothed = LINES["average-smoothed"].fit(fold.training, seed=0)
    plain = LINES["average"].fit(fold.training, seed=0).predict(test.blind(), fold.training.inputs)
    width = smoothed.facts()["smoothing_um"]
    assert width in (
        75.0,
        150.0,
        300.0,
    )  # the programmes of the toys are smooth, their noise is not
    found = smoothed.predict(test.blind(), fold.training.inputs).mean
    distance = np.linalg.norm(test.section.xy_um[:, None] - test.section.xy_um, axis=-1)
    share = np.where(distance <= 3 * width, np.exp(-(distance**2) / (2 * width**2)), 0.0)
    share /= share.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, share @ plain.mean)


def test_patches_too_far_apart_are_left_as_they_are(fold):
    """Of all widths those score alike, and none is taken."""
    samples = [
        dataclasses.replace(s, section=dataclasses.replace(s.section, xy=1000 * s.section.xy))
        for s in fold.training.samples
    ]
    far = dataclasses.replace(fold.training, samples=tuple(samples))
    assert LINES["average-smoothed"].fit(far, seed=0).facts() == {"smoothing_um": 0.0}


def test_a_third_partys_embedder_is_a_line(monkeypatch, fold):
    class Mine(ColourEmbedder):
        name = "mine"

    monkeypatch.setitem(EMBEDDERS._loaded, "mine", Mine)
    lines = choose_lines(dataclasses.replace(SETTINGS, embedders=("mine",)))
    (mine,) = [line for line in lines if line.family is Family.EMBEDDER]
    assert mine.name == "mine"
    assert mine.stochastic
    prediction = mine.fit(fold.training, seed=0).predict(
        fold.tests[0].blind(), fold.training.inputs
    )
    assert np.isfinite(prediction.mean).all()


def test_forms_of_an_embedder_and_one_form_alone():
    every = choose_lines(
        dataclasses.replace(SETTINGS, embedders=("bleep", "m2ost"), controls=False)
    )
    names = [line.name for line in every if line.family is Family.EMBEDDER]
    assert names == ["bleep", "bleep-compat", "m2ost", "m2ost-regression", "m2ost-compat"]
    one = choose_lines(dataclasses.replace(SETTINGS, embedders=("stgchb-compat",), controls=False))
    assert [line.name for line in one if line.family is Family.EMBEDDER] == ["stgchb-compat"]
    with pytest.raises(UnknownNameError, match="did you mean 'bleep'"):
        choose_lines(dataclasses.replace(SETTINGS, embedders=("blep",)))


def test_published_forms_do_not_stop_early_and_are_seeded():
    settings = dataclasses.replace(SETTINGS, embedders=("bleep",), compat_epochs=7)
    lines = {line.name: line for line in choose_lines(settings)}
    compat = lines["bleep-compat"]
    assert compat.configuration(seed=5)["compat"] is True
    assert compat.configuration(seed=5)["seed"] == 5
    assert compat.training_settings(seed=5).epochs == 7
    assert not compat.training_settings(seed=5).early_stopping
    assert lines["bleep"].training_settings(seed=5).early_stopping


def test_a_regression_head_is_judged_without_retrieval(fold):
    tiny = {"network": {"n_levels": 1, "depth": 1}, "patch_px": 32}
    settings = dataclasses.replace(
        SETTINGS, embedders=("m2ost",), compat_epochs=1, embedder_config={"m2ost": tiny}
    )
    lines = {line.name: line for line in choose_lines(settings)}
    training = dataclasses.replace(fold.training, settings=settings)
    assert isinstance(training, Training)
    fitted = lines["m2ost-compat"].fit(training, seed=0)
    prediction = fitted.predict(fold.tests[0].blind(), training.inputs)
    assert prediction.neighbours is None
    assert prediction.mean.std(axis=0).max() > 0
    assert fitted.shift.mean() < -1, "from per million of the panel to per ten thousand"


def test_the_engine_chooses_on_training_patients_and_gives_intervals(fold):
    (test,) = fold.tests
    fitted = LINES["engine"].fit(fold.training, seed=0)
    folds = fitted.calibration.facts["patients"]
    assert test.patient not in folds
    assert sorted(folds) == ["A", "C"]
    prediction = fitted.predict(test.blind(), fold.training.inputs)
    assert sorted(prediction.intervals) == [0.5, 0.8, 0.9]
    low, high = prediction.intervals[0.9]
    truth = test.truth(fold.training.genes)
    assert 0.75 < ((truth >= low) & (truth <= high)).mean() <= 1
    assert {"changes", "candidates", "inflation"} <= set(fitted.facts())


def test_many_training_patients_are_held_out_in_five_groups(bench, fold):
    section = bench.samples[0].section
    samples = tuple(
        Sample(dataclasses.replace(section, meta=dataclasses.replace(section.meta, patient=p)))
        for p in "ABCDEFG"
    )
    splits = list(inner_splits(dataclasses.replace(fold.training, samples=samples)))
    assert [[s.patient for s in out] for _, out in splits] == [
        ["A", "F"], ["B", "G"], ["C"], ["D"], ["E"],
    ]  # fmt: skip
    for inner, out in splits:
        assert sorted(s.patient for s in (*inner.samples, *out)) == list("ABCDEFG")


def test_the_engine_sees_colour_beside_the_backbone():
    backbone = {"encoder": {"backbone": "test_resnet"}, "patch_px": 32}
    settings = dataclasses.replace(SETTINGS, backbone=backbone)
    without = dataclasses.replace(settings, embedder_config={"engine": {"statistics": False}})
    for asked, expected in ((settings, True), (without, False)):
        config = EngineLine(asked)._base.configuration(seed=0)
        assert config["encoder"].get("statistics", False) is expected
        assert config["encoder"]["backbone"] == "test_resnet"


def test_the_engine_may_follow_what_is_not_linear_unless_told_otherwise():
    def joint_of(**own):
        settings = EvaluationSettings(embedder_config={"colour": own})
        return EngineLine(settings)._base.configuration(seed=0)["joint"]

    assert joint_of() == {"method": "auto"}
    assert joint_of(joint={"n_components": 8}) == {"method": "auto", "n_components": 8}
    assert joint_of(joint={"method": "ridge"}) == {"method": "ridge"}
    tower = {"encoder": {"backbone": "mobilenetv2_100"}}
    trained = EvaluationSettings(backbone=tower, embedder_config={"frozen": {"head": "linear"}})
    assert EngineLine(trained)._base.configuration(seed=0).get("joint", {}).get("method") != "auto"


def test_the_engine_on_one_training_section_falls_back_to_its_defaults(bench, fold):
    training = dataclasses.replace(fold.training, samples=bench.samples[:1])
    fitted = LINES["engine"].fit(training, seed=0)
    assert fitted.calibration is None
    prediction = fitted.predict(fold.tests[0].blind(), training.inputs)
    assert not prediction.intervals
    assert np.isfinite(prediction.mean).all()


def test_leading_axes_of_large_matrices_are_the_exact_ones():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(300, 250)) * np.linspace(3, 0.1, 250)).astype(np.float32)
    values -= values.mean(axis=0)
    exact = np.linalg.svd(values, full_matrices=False)[2][:5].T
    found = _leading_axes(values, 5)
    np.testing.assert_allclose(np.abs((exact * found).sum(axis=0)), 1, atol=1e-4)


def test_no_gene_keeps_its_place_in_a_derangement():
    for n in (2, 3, 50):
        order = derangement(n, seed=n)
        assert sorted(order) == list(range(n))
        assert (order != np.arange(n)).all()


def test_search_and_average_by_hand():
    keys = np.eye(3)
    found = nearest(np.array([[1.0, 0.5, 0.0]]), keys, 2)
    np.testing.assert_array_equal(found.indices, [[0, 1]])
    mean, spread = average(found, np.array([[1.0], [3.0], [9.0]]))
    np.testing.assert_allclose(mean, [[2.0]])
    np.testing.assert_allclose(spread, [[1.0]])
