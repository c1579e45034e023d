"""What the manifest says about the image encoder behind a reference."""

from __future__ import annotations

import pytest

from stretrieve.embedders import create_embedder
from stretrieve.reference.commit import embedder_entry
from stretrieve.testing.toy import toy_sections

TOWER = {"backbone": "test_resnet", "licence": "CC0-1.0", "mean": [0.1, 0.2, 0.3]}
CONFIG = {"patch_px": 32, "n_genes": 20, "joint": {"n_components": 4, "alpha": 10.0}}


@pytest.mark.parametrize("name", ["frozen", "bleep"])
def test_revision_licence_and_preprocessing_are_kept(name, tmp_path):
    embedder = create_embedder(name, {**CONFIG, "encoder": TOWER, "dim": 16})
    embedder.fit(toy_sections(embedder.spec))
    folder = tmp_path / "embedder"
    folder.mkdir()
    embedder.save(folder)
    facts = embedder_entry(embedder, folder, "float32")["encoder"]
    assert facts["architecture"] == "test_resnet"
    assert facts["licence"] == "CC0-1.0"
    assert facts["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert {"source", "revision", "sha256", "std", "image_px", "pooling"} <= set(facts)


def test_no_network_no_facts():
    assert create_embedder("colour").encoder_facts == {}
