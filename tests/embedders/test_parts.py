"""Panel, memo, known answer, storage and patches on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from stretrieve.embedders import EMBEDDERS, collect_patches, create_embedder, load_embedder
from stretrieve.embedders.checks import batch_of
from stretrieve.embedders.known_answer import check_known_answer, known_answer, known_patch
from stretrieve.embedders.memo import FeatureMemo, shared_memo
from stretrieve.embedders.panel import GenePanel
from stretrieve.embedders.storage import read_embedder, write_embedder
from stretrieve.errors import (
    EmbedderMismatchError,
    GenePanelError,
    InputNotFoundError,
    SectionError,
    ShapeError,
    UnknownNameError,
)
from stretrieve.specs import PatchSpec, PatchView
from stretrieve.testing.toy import toy_section, toy_sections
from stretrieve.units import MppSource, PixelSize

SPEC = PatchSpec.single(16, side_um=200.0)


def _sections():
    return [patches.section for patches in toy_sections(SPEC)]


def test_panel_centres_a_section_and_shrinks_for_few_spots():
    sections = _sections()
    panel = GenePanel.fit(sections, n_genes=15)
    assert len(panel) == 15
    section = sections[0]
    own = panel.log_expression(section.counts, section.gene_names)
    many = panel.centred(section.counts, section.gene_names)
    n_spots = section.n_spots
    centre = (n_spots * own.mean(axis=0) + 10 * panel.mean) / (n_spots + 10)
    np.testing.assert_allclose(many, (own - centre) / panel.scale, atol=1e-5)
    one = panel.centred(section.counts[:1], section.gene_names)
    assert np.abs(one).max() > 0.1
    scaled = panel.scaled(section.counts, section.gene_names)
    np.testing.assert_allclose(scaled, (own - panel.mean) / panel.scale, atol=1e-5)


def test_panel_uses_the_whole_library():
    section = _sections()[0]
    panel = GenePanel.fit([section], n_genes=3)
    positions = [section.gene_names.index(name) for name in panel.names]
    counts = section.counts.toarray()
    expected = np.log1p(1e4 * counts[:, positions] / counts.sum(axis=1, keepdims=True))
    got = panel.log_expression(section.counts, section.gene_names)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_unmeasured_genes_are_missing_not_zero():
    section = _sections()[0]
    panel = GenePanel.fit([section], n_genes=10)
    kept = [name for name in section.gene_names if name != panel.names[0]]
    columns = [section.gene_names.index(name) for name in kept]
    got = panel.log_expression(section.counts[:, columns], kept)
    assert np.isnan(got[:, 0]).all()
    assert np.isfinite(got[:, 1:]).all()
    assert (panel.centred(section.counts[:, columns], kept)[:, 0] == 0).all()
    with pytest.raises(GenePanelError, match="0%"):
        panel.log_expression(sparse.csr_matrix((2, 1), dtype=np.int32), ["x"])
    with pytest.raises(ShapeError, match="names"):
        panel.log_expression(section.counts, kept)


def test_memo_computes_each_patch_once():
    calls = []

    def encode(views):
        calls.append(len(views[0]))
        return views[0][:, 0, 0, :2].astype(np.float32)

    generator = np.random.default_rng(0)
    patches = generator.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    memo = FeatureMemo()
    first = memo.encode((patches[:4],), encode)
    mixed = memo.encode((patches[2:],), encode)
    assert calls == [4, 2]
    np.testing.assert_array_equal(first[2:], mixed[:2])
    np.testing.assert_array_equal(memo.encode((patches,), encode), encode((patches,)))
    assert memo.encode((patches[:0],), encode).shape == (0, 2)
    small = FeatureMemo(max_bytes=8)
    small.encode((patches,), encode)
    assert len(small) == 1


def test_memo_is_shared_by_backbone():
    assert shared_memo("a") is shared_memo("a")
    assert shared_memo("a") is not shared_memo("b")


def test_known_answer_is_fixed_and_strict():
    patch = known_patch(40)
    assert patch.shape == (1, 40, 40, 3)
    assert patch.std() > 20
    np.testing.assert_array_equal(patch, known_patch(40))
    features = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32)
    stored = json.loads(json.dumps(known_answer(features)))
    check_known_answer(features * 1.0001, stored, name="x")
    other = features + 0.03 * np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    for wrong in (other, features[:, :10], np.zeros_like(features)):
        with pytest.raises(EmbedderMismatchError, match="known answer"):
            check_known_answer(wrong, stored, name="x")


def test_stored_embedder_is_checked(tmp_path):
    with pytest.raises(InputNotFoundError):
        load_embedder(tmp_path)
    write_embedder(tmp_path, name="colour", configuration={}, fitted={}, arrays={"a": np.zeros(2)})
    with pytest.raises(EmbedderMismatchError, match="frozen"):
        read_embedder(tmp_path, name="frozen")
    with pytest.raises(EmbedderMismatchError, match="stored embedder"):
        load_embedder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(EmbedderMismatchError, match="format"):
        load_embedder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EmbedderMismatchError):
        load_embedder(tmp_path)


def test_unknown_embedder_lists_the_choices():
    assert {"bleep", "colour", "frozen"} <= set(EMBEDDERS)
    with pytest.raises(UnknownNameError, match="did you mean 'bleep'"):
        create_embedder("blep")


def _real_section(tmp_path, side=120):
    patches = toy_section(SPEC, section="s/1", patient="p", n_spots=9, n_genes=5)
    section = patches.section
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    picture[..., 0] = np.arange(side)[None, :] * 2
    picture[..., 1] = np.arange(side)[:, None] * 2
    Image.fromarray(picture).save(tmp_path / "image.png")
    grid = np.array([(x, y) for y in (30, 60, 90) for x in (30, 60, 90)], dtype=np.float64)
    object.__setattr__(section, "xy", grid)
    object.__setattr__(section, "image", tmp_path / "image.png")
    object.__setattr__(section, "pixel_size", PixelSize.square(1.0, MppSource.GIVEN))
    return section


def test_patches_lie_on_their_spots_and_come_from_the_cache(tmp_path):
    section = _real_section(tmp_path)
    spec = PatchSpec((PatchView(10, 1.0), PatchView(10, 2.0)))
    plain = collect_patches(section, spec)
    assert [view.shape for view in plain.views] == [(9, 10, 10, 3)] * 2
    centre = plain.views[0][:, 4:6, 4:6].mean(axis=(1, 2))
    np.testing.assert_allclose(centre[:, :2], 2 * section.xy - 1, atol=2)
    cached = collect_patches(section, spec, cache=tmp_path / "cache")
    for a, b in zip(cached.views, plain.views, strict=True):
        np.testing.assert_array_equal(a, b)
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 2
    before = [path.stat().st_mtime_ns for path in files]
    again = collect_patches(section, spec, cache=tmp_path / "cache")
    assert isinstance(again.views[0], np.memmap)
    assert [path.stat().st_mtime_ns for path in files] == before
    other = collect_patches(section, PatchSpec.single(8, side_um=10.0), cache=tmp_path / "cache")
    assert other.views[0].shape[1] == 8


def test_section_without_image_is_refused():
    section = _sections()[0]
    with pytest.raises(SectionError, match="no image"):
        collect_patches(section, SPEC)


def test_rows_of_a_section_as_a_batch():
    patches = toy_sections(SPEC)[0]
    batch = batch_of(patches, slice(3, 7))
    np.testing.assert_array_equal(batch.indices, [3, 4, 5, 6])
    np.testing.assert_array_equal(batch.views[0], patches.views[0][3:7])
    np.testing.assert_array_equal(batch.xy_um, patches.section.xy_um[3:7])
