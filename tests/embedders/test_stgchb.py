"""The graph embedder: neighbours matter, blocks do not, published form, trained tower, infomax."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stretrieve.embedders import create_embedder
from stretrieve.embedders.stgchb_settings import StgchbSettings
from stretrieve.embedders.stgchb_start import principal_directions
from stretrieve.embedders.trainable import BatchUnit, TrainBatch
from stretrieve.errors import ConfigError
from stretrieve.models.hsic import BottleneckSettings, bottleneck_loss
from stretrieve.models.losses import ContrastiveSettings, contrastive_loss
from stretrieve.spots.graph import GraphSettings
from stretrieve.testing.toy import toy_section, toy_sections
from stretrieve.training import TrainSettings, fit_embedder

CONFIG = {
    "encoder": {"backbone": "test_resnet"},
    "patch_px": 32,
    "n_genes": 20,
    "dim": 16,
    "dropout": 0.0,
    "code_width": 48,
    "expression_components": 12,
    "joint": {"n_components": 4, "alpha": 10.0},
    "infomax": {"epochs": 1},
}


def fitted(**changes):
    embedder = create_embedder("stgchb", {**CONFIG, **changes})
    sections = toy_sections(embedder.spec)
    embedder.fit(sections)
    return embedder, sections


def image(embedder, patches, *, xy_um=None):
    xy_um = patches.section.xy_um if xy_um is None else xy_um
    return embedder.project_patches(embedder.section_features(patches), xy_um)


def spots(embedder, patches):
    section = patches.section
    return embedder.embed_expression(section.counts, section.gene_names, section.xy_um)


def cosines(embedder, patches):
    first, second = (f(embedder, patches) for f in (image, spots))
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    return first @ (second / np.linalg.norm(second, axis=1, keepdims=True)).T


def batch(embedder, sections, rows, *, views=()):
    inputs = embedder.spot_inputs(sections[0])
    rows = np.asarray(rows)
    tensors = {name: torch.from_numpy(values[rows]) for name, values in inputs.items()}
    return TrainBatch(np.zeros(len(rows), np.int64), rows, tensors, views)


@pytest.fixture(scope="module")
def pair():
    return fitted()


def test_a_spot_is_embedded_with_its_neighbours(pair):
    embedder, sections = pair
    features = embedder.section_features(sections[0])
    xy_um = sections[0].section.xy_um
    before = embedder.project_patches(features, xy_um)
    features[0] += 1
    moved = np.abs(embedder.project_patches(features, xy_um) - before).max(axis=1) > 1e-6
    near = np.linalg.norm(xy_um - xy_um[0], axis=1) <= 300
    assert near.sum() > 3
    assert moved[near].all()
    far = np.linalg.norm(xy_um - xy_um[0], axis=1) > 800
    assert not moved[far].any()


@pytest.mark.parametrize(("weight", "moves"), [(1.0, True), (1e7, False)])
def test_expression_weighs_its_neighbours_apart_from_patches(weight, moves):
    embedder, sections = fitted(expression_self_weight=weight, infomax={"epochs": 0})
    section = sections[0].section
    before = spots(embedder, sections[0])
    counts = section.counts.copy()
    counts[0] = counts[5] + counts[7]
    after = embedder.embed_expression(counts, section.gene_names, section.xy_um)
    near = np.flatnonzero(np.linalg.norm(section.xy_um - section.xy_um[0], axis=1) <= 210)[1:]
    own, others = np.abs(after - before)[0].max(), np.abs(after - before)[near].max()
    assert (
        others > 0.1 * own if moves else others < 0.05 * own
    )  # the section's centre moves a little


def test_alone_a_spot_is_only_itself(pair):
    embedder, sections = pair
    apart = sections[0].section.xy_um * 1e4
    graph = {**CONFIG, "graph": {"radius_um": 300.0}}
    embedder = create_embedder("stgchb", graph)
    embedder.fit(sections)
    features = embedder.section_features(sections[0])
    together = embedder.project_patches(features, apart)
    alone = [embedder.project_patches(features[i : i + 1], apart[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), together[:3], atol=1e-5)


def test_training_and_use_see_the_same_numbers(pair):
    embedder, sections = pair
    rows = [3, 11, 4, 20]
    outputs = embedder.encode_batch(batch(embedder, sections, rows))
    got = outputs["image"].detach().numpy()
    np.testing.assert_allclose(got, image(embedder, sections[0])[rows], atol=1e-5)
    got = outputs["expression"].detach().numpy()
    np.testing.assert_allclose(got, spots(embedder, sections[0])[rows], atol=1e-5)


def test_memory_is_bounded_by_blocks(pair, monkeypatch):
    embedder, sections = pair
    whole = image(embedder, sections[0])
    from stretrieve.embedders import stgchb
    from stretrieve.models.gcn import gather_blocks

    widths = []

    def small_blocks(graph, values, **options):
        for rows, gathered in gather_blocks(graph, values, block=4, **options):
            widths.append(len(gathered))
            yield rows, gathered

    monkeypatch.setattr(stgchb, "gather_blocks", small_blocks)
    np.testing.assert_allclose(image(embedder, sections[0]), whole, atol=1e-5)
    assert max(widths) == 4


def test_heavy_self_weight_comes_to_the_closed_form_without_graph():
    embedder, sections = fitted(
        graph={"self_weight": 1e7},
        infomax={"epochs": 0},
        code_width=64,
        expression_components=20,
        joint={"n_components": 4, "alpha": 1e-3},
    )
    frozen = create_embedder(
        "frozen",
        {k: CONFIG[k] for k in ("encoder", "patch_px", "n_genes")}
        | {"joint": {"n_components": 4, "alpha": 1e-3}},
    )
    frozen.fit(sections)
    ours, theirs = cosines(embedder, sections[0]), cosines(frozen, sections[0])
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.95


def test_loss_is_contrast_and_bottleneck(pair):
    embedder, sections = pair
    outputs = embedder.encode_batch(batch(embedder, sections, range(12)))
    used = embedder.settings
    expected = contrastive_loss(
        outputs["image"],
        outputs["expression"],
        settings=used.loss,
        image_features=outputs["image_features"],
        expression_features=outputs["expression_features"],
    )
    for side in ("image", "expression"):
        expected = expected + used.bottleneck_weight * bottleneck_loss(
            outputs[f"{side}_inputs"],
            outputs[f"{side}_codes"],
            outputs[side],
            settings=used.bottleneck,
        )
    assert embedder.loss(outputs).item() == pytest.approx(expected.item(), rel=1e-6)
    inputs = embedder.spot_inputs(sections[0])
    own = embedder.graph_model.standardise(embedder.section_features(sections[0]))
    np.testing.assert_allclose(inputs["own_features"], own, atol=1e-5)


def test_published_form():
    used = StgchbSettings(compat=True).effective()
    assert used.graph == used.expression_graph() == GraphSettings.published()
    assert used.bottleneck == BottleneckSettings(sigma=10.0, beta=25.0, mixed=True)
    assert used.loss == ContrastiveSettings.published()
    assert (used.expression_components, used.backbone_stages) == (813, 1)
    embedder, sections = fitted(compat=True)
    assert embedder.batch_unit is BatchUnit.SECTION
    assert embedder.trains_pixels
    assert embedder.to_config()["compat"] is True
    graph = used.graph.build(sections[0].section.xy_um).toarray()
    inputs = embedder.spot_inputs(sections[0])
    np.testing.assert_allclose(inputs["features"], graph @ inputs["own_features"], atol=1e-3)
    groups = {g.name for g in embedder.parameter_groups()}
    assert groups == {"heads", "graph", "backbone"}


def test_trained_tower_runs_on_the_batch_only(monkeypatch):
    embedder, sections = fitted(backbone_stages=1)
    rows = [1, 8, 2]
    patches = torch.from_numpy(np.ascontiguousarray(sections[0].views[0][rows]))
    made = batch(embedder, sections, rows, views=(patches,))
    seen = []
    embedder.model.image_encoder.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    outputs = embedder.encode_batch(made)
    assert seen == [3]
    got = outputs["image"].detach().numpy()
    np.testing.assert_allclose(got, image(embedder, sections[0])[rows], atol=1e-4)
    embedder.loss(outputs).backward()
    assert any(p.grad is not None for p in embedder.model.image_encoder.parameters())


def test_trained_tower_refreshes_a_spot_by_its_own_share():
    embedder, sections = fitted(backbone_stages=1)
    rows = np.array([1, 8, 2])
    patches = torch.from_numpy(np.ascontiguousarray(sections[0].views[0][rows]))
    made = batch(embedder, sections, rows, views=(patches,))
    old = embedder.graph_model.standardise(embedder.section_features(sections[0]))
    with torch.no_grad():
        for parameter in embedder.model.image_encoder.parameters():
            parameter.mul_(1.05)
    new = embedder.graph_model.standardise(embedder.section_features(sections[0]))
    assert np.abs(new - old).max() > 1e-2
    graph = embedder.settings.graph.build(sections[0].section.xy_um).toarray()
    for row, got in zip(rows, embedder.encode_batch(made)["image_features"], strict=True):
        mixed = old.copy()
        mixed[row] = new[row]
        np.testing.assert_allclose(got.detach(), (graph @ mixed)[row], atol=1e-3)


def test_published_bottleneck_is_mixed_on_the_image_side_only():
    mixed = BottleneckSettings(sigma=3.0, beta=25.0, mixed=True)
    contrast = {"target_space": "identity"}
    embedder, sections = fitted(
        bottleneck={"sigma": 3.0, "beta": 25.0, "mixed": True}, loss=contrast
    )
    outputs = embedder.encode_batch(batch(embedder, sections, range(12)))
    parts = [
        bottleneck_loss(
            outputs[f"{side}_inputs"],
            outputs[f"{side}_codes"],
            outputs[side],
            settings=mixed,
            image_side=image_side,
        )
        for side, image_side in (("image", True), ("expression", False))
    ]
    contrast_only = contrastive_loss(
        outputs["image"], outputs["expression"], settings=embedder.settings.loss
    )
    expected = contrast_only + embedder.settings.bottleneck_weight * sum(parts)
    assert embedder.loss(outputs).item() == pytest.approx(expected.item(), rel=1e-6)


def test_everything_learns_and_repeats():
    def trained():
        embedder, sections = fitted()
        start = {k: v.clone() for k, v in embedder.network.state_dict().items()}
        settings = TrainSettings(epochs=2, batch_size=16, early_stopping=False, device="cpu")
        fit_embedder(embedder, sections, settings=settings)
        return start, embedder.network.state_dict()

    start, first = trained()
    _, second = trained()
    for part in ("image_gcn.fc.weight", "expression_gcn.act.weight", "image_projection.fc.weight"):
        assert not torch.equal(start[part], first[part])
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_infomax_changes_the_convolutions_only_when_asked():
    without, _ = fitted(infomax={"epochs": 0})
    once, _ = fitted(infomax={"epochs": 3, "learning_rate": 1e-2})
    for side in ("image", "expression"):
        name = f"{side}_gcn.fc.weight"
        a, b = (e.network.state_dict()[name] for e in (without, once))
        assert (a - b).abs().max() > 1e-3


def test_principal_directions():
    values = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32) * [5, 4, 3, 2, 1, 0.5]
    directions = principal_directions(values.astype(np.float32), 4)
    np.testing.assert_allclose(directions.T @ directions, np.eye(4), atol=1e-5)
    spread = (values @ directions).std(axis=0)
    assert (np.diff(spread) < 0).all()
    few = principal_directions(values[:3].astype(np.float32), 4)
    assert (few[:, 2:] == 0).all()


def test_a_large_slide_is_embedded_from_positions(pair):
    embedder, sections = pair
    features = embedder.section_features(sections[0])
    n = 120
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) * 100.0
    many = features[np.arange(n * n) % len(features)]
    embeddings = embedder.project_patches(many, grid)
    assert embeddings.shape == (n * n, embedder.dim)
    assert np.isfinite(embeddings).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"code_width": 0},
        {"expression_components": 0},
        {"expression_width": 4},
        {"bottleneck_weight": -1.0},
        {"infomax": {"epochs": -1}},
        {"graph": {"n_neighbors": 0}},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        create_embedder("stgchb", {**CONFIG, **changes})


def test_settings_are_plain_data_and_back():
    embedder = create_embedder("stgchb", CONFIG)
    assert create_embedder("stgchb", embedder.to_config()).to_config() == embedder.to_config()
    assert {f.name for f in dataclasses.fields(StgchbSettings)} == set(embedder.to_config())


def test_query_of_one_section_does_not_change_another():
    embedder, sections = fitted()
    query = toy_section(embedder.spec, section="q", patient="z", seed=5)
    before = image(embedder, sections[0])
    image(embedder, query)
    np.testing.assert_array_equal(image(embedder, sections[0]), before)
