"""The spot-transformer embedder: section attention, start at the closed form, published form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretrieve.embedders import create_embedder
from stretrieve.embedders.mclstexp_settings import MclstexpSettings
from stretrieve.embedders.trainable import TrainBatch
from stretrieve.errors import ConfigError
from stretrieve.models.losses import ContrastiveSettings
from stretrieve.models.section_transformer import TransformerSettings, table_positions
from stretrieve.testing.toy import toy_sections
from stretrieve.training import TrainSettings, fit_embedder

CONFIG = {
    "encoder": {"backbone": "test_resnet"},
    "patch_px": 32,
    "n_genes": 20,
    "dim": 16,
    "dropout": 0.0,
    "transformer": {"width": 24, "n_positions": 32, "heads": 2, "dim_head": 4},
    "joint": {"n_components": 4, "alpha": 10.0},
}


def fitted(**changes):
    embedder = create_embedder("mclstexp", {**CONFIG, **changes})
    sections = toy_sections(embedder.spec)
    embedder.fit(sections)
    return embedder, sections


def trained(**changes):
    embedder, sections = fitted(**changes)
    settings = TrainSettings(epochs=3, batch_size=16, early_stopping=False, device="cpu")
    fit_embedder(embedder, sections, settings=settings)
    return embedder, sections


def spots(embedder, patches, rows=slice(None)):
    section = patches.section
    return embedder.embed_expression(section.counts[rows], section.gene_names, section.xy_um[rows])


def batch(embedder, sections, where):
    inputs = [embedder.spot_inputs(s) for s in sections]
    tensors = {
        name: torch.from_numpy(np.stack([inputs[s][name][r] for s, r in where]))
        for name in inputs[0]
    }
    places = np.array(where)
    return TrainBatch(places[:, 0], places[:, 1], tensors)


def test_starts_at_the_closed_form():
    embedder, sections = fitted()
    frozen = create_embedder(
        "frozen", {k: CONFIG[k] for k in ("encoder", "patch_px", "n_genes", "joint")}
    )
    frozen.fit(sections)
    cosines = []
    for one in (embedder, frozen):
        pair = [
            one.project_patches(one.section_features(sections[0]), sections[0].section.xy_um),
            spots(one, sections[0]),
        ]
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in pair)
        cosines.append(a @ b.T)
    np.testing.assert_allclose(*cosines, atol=1e-3)


def test_a_spot_is_read_among_its_section_once_trained():
    embedder, sections = trained(rates={"heads": 1e-2})
    alone, among = spots(embedder, sections[0], slice(3)), spots(embedder, sections[0])[:3]
    assert np.abs(alone - among).max() > 1e-3


def test_positions_matter_once_trained():
    embedder, sections = trained(rates={"heads": 1e-2})
    section = sections[0].section
    moved = embedder.embed_expression(
        section.counts, section.gene_names, section.xy_um * [1.0, 3.0]
    )
    assert np.abs(moved - spots(embedder, sections[0])).max() > 1e-3
    shifted = embedder.embed_expression(
        section.counts, section.gene_names, section.xy_um + np.array([5e4, -2e3])
    )
    np.testing.assert_allclose(shifted, spots(embedder, sections[0]), atol=1e-5)


@pytest.mark.parametrize("rates", [{"heads": 1e-4}, {"heads": 1e-2}])
def test_training_and_use_see_the_same_numbers(rates):
    embedder, sections = trained(rates=rates)
    state = {k: v.clone() for k, v in embedder.network.state_dict().items()}
    embedder.fit(sections)
    embedder.network.load_state_dict(state)
    where = [(1, 4), (0, 7), (1, 2), (2, 29), (0, 0)]
    got = embedder.encode_batch(batch(embedder, sections, where))["expression"].detach().numpy()
    expected = np.stack([spots(embedder, sections[s])[r] for s, r in where])
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_published_form():
    used = MclstexpSettings(compat=True).effective()
    assert used.transformer.width == 0
    assert used.loss == ContrastiveSettings(tau_logits=1.0, tau_target=1.0, normalize=False)
    assert (used.dropout, used.backbone_stages) == (0.0, -1)
    embedder, sections = fitted(compat=True)
    model = embedder.section_model
    assert model.spot_transformer.width == len(embedder.gene_names)
    assert model.spot_transformer.x_embed.weight.std() > 0.8
    rows = [(0, 1), (0, 5), (0, 9)]
    made = batch(embedder, sections, rows)
    pixels = torch.from_numpy(np.ascontiguousarray(sections[0].views[0][[1, 5, 9]]))
    made = TrainBatch(made.sections, made.rows, made.inputs, (pixels,))
    outputs = embedder.encode_batch(made)
    values, positions = made.inputs["expression"], made.inputs["positions"]
    codes = model.expression_projection(model.section_codes(values, positions))
    torch.testing.assert_close(outputs["expression"], codes)


def test_training_sections_are_let_go():
    embedder, _ = trained()
    assert embedder._sections == []


def test_positions_are_counted_from_the_middle():
    settings = TransformerSettings(n_positions=8, position_um=100.0)
    xy = np.array([[0.0, 0], [200, 0], [100, 300]])
    entries = table_positions(xy, settings)
    np.testing.assert_array_equal(entries, [[3, 2], [5, 2], [4, 6]])
    np.testing.assert_array_equal(table_positions(xy + 1e6, settings), entries)
    wide = table_positions(np.array([[0.0, 0], [1e6, 0]]), settings)
    assert wide.min() == 0
    assert wide.max() == 7
    assert table_positions(np.empty((0, 2)), settings).shape == (0, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"expression_width": 4},
        {"transformer": {"width": 2}},
        {"transformer": {"depth": 0}},
        {"transformer": {"position_um": 0.0}},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        create_embedder("mclstexp", {**CONFIG, **changes})
