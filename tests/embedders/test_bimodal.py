"""The two-tower embedders: settings, starts, storage of the tower, presets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from stretrieve.embedders import create_embedder, load_embedder
from stretrieve.embedders.presets import PRESETS, find_preset, presets_table
from stretrieve.errors import ConfigError, EmbedderMismatchError, InputNotFoundError
from stretrieve.models.losses import ContrastiveSettings
from stretrieve.testing.toy import toy_batch, toy_sections

CONFIG = {
    "encoder": {"backbone": "test_resnet"},
    "patch_px": 32,
    "n_genes": 20,
    "dim": 16,
    "joint": {"n_components": 4, "alpha": 10.0},
}


def _fitted(name="bleep", **changes):
    embedder = create_embedder(name, {**CONFIG, **changes})
    sections = toy_sections(embedder.spec)
    embedder.fit(sections)
    return embedder, sections


def _cosines(embedder, patches):
    section = patches.section
    image = embedder.embed_patches(toy_batch(patches, range(section.n_spots)))
    spots = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
    image = image / np.linalg.norm(image, axis=1, keepdims=True)
    return image @ (spots / np.linalg.norm(spots, axis=1, keepdims=True)).T


def test_bleep_starts_at_the_closed_form():
    bleep, sections = _fitted("bleep")
    frozen, _ = _fitted("frozen")
    assert (bleep.dim, frozen.dim) == (16, 4)
    np.testing.assert_allclose(
        _cosines(bleep, sections[0]), _cosines(frozen, sections[0]), atol=1e-4
    )
    start, _ = _fitted("bleep", start="random")
    assert np.abs(_cosines(start, sections[0]) - _cosines(frozen, sections[0])).max() > 0.1


def test_a_kernel_is_for_heads_that_are_not_trained():
    for name, config in (
        ("bleep", {}), ("frozen", {"head": "linear"}), ("mclstexp", {"head": "closed-form"}),
        ("stgchb", {"head": "closed-form"}),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"joint\.method"):
            create_embedder(name, {**config, "joint": {"method": "auto"}})


def test_compat_is_the_published_method():
    bleep, sections = _fitted("bleep", compat=True)
    assert bleep.settings.loss == ContrastiveSettings.published()
    assert bleep.trains_pixels
    groups = {group.name: group for group in bleep.parameter_groups()}
    assert {g.learning_rate for g in groups.values()} == {1e-3}
    assert {g.weight_decay for g in groups.values()} == {1e-3}
    tower = sum(p.numel() for p in groups["backbone"].parameters)
    assert tower == sum(p.numel() for p in bleep.model.image_encoder.network.parameters())
    section = sections[0].section
    inputs = bleep.spot_inputs(sections[0])
    assert (inputs["expression"] >= 0).all()
    expected = bleep.panel.log_expression(section.counts, section.gene_names)
    np.testing.assert_array_equal(inputs["expression"], expected)
    assert bleep.to_config()["compat"] is True


def test_frozen_tower_gets_no_gradient():
    bleep, _ = _fitted("bleep")
    assert {group.name for group in bleep.parameter_groups()} == {"heads"}
    assert not any(p.requires_grad for p in bleep.model.image_encoder.parameters())
    bleep.train_mode(training=True)
    assert bleep.model.image_projection.training
    assert not bleep.model.image_encoder.training


def test_missing_tower_weights_are_fetched_again_or_refused(tmp_path):
    bleep, sections = _fitted("bleep", store_backbone=False)
    bleep.save(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert not any(name.startswith("image_encoder.") for name in names)
    loaded = load_embedder(tmp_path)
    np.testing.assert_allclose(
        _cosines(loaded, sections[0]), _cosines(bleep, sections[0]), atol=1e-5
    )
    config = json.loads((tmp_path / "config.json").read_text())
    config["configuration"]["encoder"]["seed"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EmbedderMismatchError, match="sha256"):
        load_embedder(tmp_path)
    config["configuration"]["encoder"]["weights"] = "gone.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputNotFoundError, match="gone"):
        load_embedder(tmp_path)


def test_known_answer_is_checked_on_load(tmp_path):
    bleep, _ = _fitted("bleep")
    bleep.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["fitted"]["encoder"]["licence"]
    config["fitted"]["known_answer"][0] += 5.0
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EmbedderMismatchError, match="known answer"):
        load_embedder(tmp_path)


def test_other_preprocessing_than_saved_is_refused(tmp_path):
    bleep, _ = _fitted("bleep")
    bleep.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["fitted"]["encoder"]["mean"] = [0.0, 0.0, 0.0]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EmbedderMismatchError, match="known answer"):
        load_embedder(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        {"dim": 4},
        {"dropout": 1.0},
        {"side_um": 0.0},
        {"backbone_stages": -2},
        {"backbone_stages": 1, "store_backbone": False},
        {"rates": {"heads": 0.0}},
        {"expression_width": 8},
        {"loss": {"tau_logits": 0.0}},
        {"loss": {"tau": 0.1}},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        create_embedder("bleep", {**CONFIG, **bad})


def test_presets_fill_in_what_the_model_wants():
    preset = find_preset("uni2-h")
    encoder = preset.encoder(weights="none")
    assert encoder.weights == "hf-hub:MahmoodLab/UNI2-h"
    assert encoder.licence == preset.licence == "CC-BY-NC-ND-4.0"
    assert preset.encoder(weights="/local.safetensors").weights == "/local.safetensors"
    assert preset.side_um == 112.0
    assert {row["name"] for row in presets_table()} == set(PRESETS)
    json.dumps(presets_table())
    with pytest.raises(ConfigError, match="h-optimus-0"):
        find_preset("nothing")
    with pytest.raises(ConfigError, match="outside timm"):
        find_preset("conch").encoder(weights="none")
    with pytest.raises(ConfigError, match="preset"):
        create_embedder("frozen", {"preset": "uni", "encoder": {"backbone": "test_vit"}})


@pytest.mark.parametrize("name", [name for name, p in PRESETS.items() if p.backbone])
def test_preset_architecture_has_the_stated_width(name):
    import timm

    from stretrieve.models.encoders import Pooling
    from stretrieve.models.towers import layer_kwargs

    preset = PRESETS[name]
    with torch.device("meta"):
        network = timm.create_model(
            preset.backbone, num_classes=0, **layer_kwargs(preset.model_kwargs)
        )
    parts = 2 if preset.pooling is Pooling.CLS_MEAN else 1
    assert network.num_features * parts == preset.dim
