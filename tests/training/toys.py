"""A tiny trainable embedder's settings and sections, shared by the training tests."""

from __future__ import annotations

from stretrieve.embedders import create_embedder
from stretrieve.testing.toy import toy_sections

HEADS = {
    "encoder": {"backbone": "test_resnet"},
    "patch_px": 32,
    "n_genes": 20,
    "dim": 16,
    "dropout": 0.0,
    "joint": {"n_components": 4, "alpha": 10.0},
    "rates": {"heads": 1e-3, "backbone": 1e-3},
}
PIXELS = {**HEADS, "backbone_stages": 1}


def make(config=HEADS, **changes):
    return create_embedder("bleep", {**config, **changes})


def sections_of(embedder, patients=("a", "b", "b")):
    return toy_sections(embedder.spec, patients=patients)
