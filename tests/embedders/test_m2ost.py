"""The multi-scale embedder: fields of view, objectives, regression head, published form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretrieve.embedders import create_embedder, load_embedder
from stretrieve.embedders.m2ost_settings import M2ostEmbedderSettings
from stretrieve.errors import ConfigError
from stretrieve.testing.toy import toy_sections
from stretrieve.training import TrainSettings, fit_embedder

CONFIG = {
    "patch_px": 32,
    "side_um": 100.0,
    "n_genes": 20,
    "dim": 16,
    "dropout": 0.0,
    "network": {"width": 12, "depth": 1, "dim_head": 4, "mlp_hidden": 12},
    "joint": {"n_components": 4, "alpha": 10.0},
    "rates": {"heads": 1e-3, "backbone": 1e-3},
}
TRAIN = TrainSettings(epochs=3, batch_size=32, early_stopping=False, device="cpu")


def fitted(**changes):
    embedder = create_embedder("m2ost", {**CONFIG, **changes})
    sections = toy_sections(embedder.spec)
    embedder.fit(sections)
    return embedder, sections


def features(embedder, patches):
    return embedder.section_features(patches)


def test_published_fields_of_view():
    spec = create_embedder("m2ost", {"network": {"depth": 1}}).spec
    assert [v.patch_px for v in spec.views] == [224, 224, 224]
    assert [v.side_um for v in spec.views] == pytest.approx([112.0, 224.0, 448.0])
    assert M2ostEmbedderSettings().sizes().dim == 576


@pytest.mark.parametrize("n_levels", [1, 2, 4])
def test_other_numbers_of_levels(n_levels):
    embedder, sections = fitted(network={**CONFIG["network"], "n_levels": n_levels})
    assert len(embedder.spec.views) == n_levels
    assert features(embedder, sections[0]).shape == (30, 12 * n_levels)


def test_every_view_counts():
    embedder, sections = fitted()
    before = features(embedder, sections[0])
    for level in range(3):
        views = list(sections[0].views)
        views[level] = 255 - views[level]
        changed = type(sections[0])(sections[0].section, tuple(views))
        assert np.abs(features(embedder, changed) - before).max() > 1e-3


def test_regression_space_is_expression():
    embedder, sections = fitted(objective="regression")
    section = sections[0].section
    assert embedder.dim == len(embedder.gene_names) == 20
    measured = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
    expected = embedder.panel.centred(section.counts, section.gene_names)
    np.testing.assert_allclose(measured, expected, atol=1e-6)
    found = features(embedder, sections[0])
    predicted = embedder.predict_expression(found)
    scaled = embedder.project_patches(found, section.xy_um)
    panel = embedder.panel
    np.testing.assert_allclose(predicted, scaled * panel.scale + panel.mean, rtol=1e-5)


def test_regression_learns_expression():
    rates = {"heads": 3e-3, "backbone": 3e-3}
    embedder, sections = fitted(objective="regression", start="random", rates=rates)
    fit_embedder(embedder, sections, settings=TrainSettings(
        epochs=10, batch_size=32, early_stopping=False, device="cpu", clip_norm=0
    ))  # fmt: skip
    got, truth = [], []
    for patches in sections:
        found = features(embedder, patches)
        got.append(embedder.project_patches(found, patches.section.xy_um))
        truth.append(embedder.panel.centred(patches.section.counts, patches.section.gene_names))
    got, truth = np.concatenate(got), np.concatenate(truth)
    assert ((got - truth) ** 2).mean() < 0.8 * (truth**2).mean()


@pytest.mark.parametrize(
    ("objective", "groups"),
    [
        ("contrastive", {"heads", "backbone"}),
        ("regression", {"regression", "backbone"}),
        ("both", {"heads", "backbone", "regression"}),
    ],
)
def test_objectives_train_their_own_parts(objective, groups, tmp_path):
    embedder, sections = fitted(objective=objective)
    assert {g.name for g in embedder.parameter_groups()} == groups
    start = {k: v.clone() for k, v in embedder.network.state_dict().items()}
    fit_embedder(embedder, sections, settings=TRAIN)
    moved = {k for k, v in embedder.network.state_dict().items() if not torch.equal(v, start[k])}
    assert any(k.startswith("image_encoder.network") for k in moved)
    assert any(k.startswith("regression") for k in moved) == ("regression" in groups)
    assert any(k.startswith("image_projection") for k in moved) == ("heads" in groups)
    embedder.save(tmp_path)
    loaded = load_embedder(tmp_path)
    found = features(embedder, sections[0])
    np.testing.assert_allclose(features(loaded, sections[0]), found, atol=1e-5)
    np.testing.assert_allclose(
        loaded.predict_expression(found), embedder.predict_expression(found), atol=1e-5
    )


def test_published_form():
    embedder, sections = fitted(compat=True, n_genes=1000)
    used = embedder.settings
    assert used.objective == "regression"
    assert used.n_genes == 250
    section = sections[0].section
    target = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
    columns = [section.gene_names.index(g) for g in embedder.gene_names]
    counts = section.counts[:, columns].toarray()
    expected = np.log1p(1e6 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-3)
    found = features(embedder, sections[0])
    np.testing.assert_array_equal(
        embedder.predict_expression(found), embedder.project_patches(found, section.xy_um)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": {"backbone": "resnet50"}},
        {"backbone_stages": 1},
        {"patch_px": 30},
        {"network": {"image_px": 64}},
        {"network": {"n_levels": 5}},
        {"objective": "guess"},
        {"regression_weight": -1.0},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        create_embedder("m2ost", {**CONFIG, **changes})
