"""What is unlike the reference is told by what patches look like, whatever the embedder sees in them."""

import dataclasses

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stretrieve import BuildSettings, QueryEngine, QuerySettings, build_reference
from stretrieve._failpoints import CRASH_CODE
from stretrieve.models.look import looks
from stretrieve.query import (
    ArrayPool,
    Centring,
    OutputSettings,
    Predictor,
    Question,
    RetrievalSettings,
    SpotPositions,
    encode,
    engine,
    groups,
)
from stretrieve.query.look import comparable_px, looks_of_images, looks_of_patches
from stretrieve.query.ood import OF_LOOKS, Appearance, Scatter
from stretrieve.query.parts import read_encoded, write_encoded
from stretrieve.query.workfolder import work_path
from stretrieve.reference import FurtherSettings, Reference, add_embedder
from stretrieve.slides import open_slide, read_patches
from stretrieve.specs import PatchView
from tests.query.interrupted import run_child

SETTINGS = QuerySettings(top_k=12, batch_size=16)
FROZEN = BuildSettings(
    embedder="frozen",
    embedder_config={
        "encoder": {"backbone": "mobilenetv2_100"}, "patch_px": 64, "side_um": 320.0,
    },
)  # fmt: skip
CHANGES = {
    "own": lambda pixels: pixels,
    "noise": lambda pixels: np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8),
    "white": lambda pixels: np.full_like(pixels, 244),
    "inverted": lambda pixels: 255 - pixels,
}


@pytest.fixture(scope="module")
def frozen(sections, tmp_path_factory):
    """A reference whose embedder is a network with seeded weights and a ridge."""
    out = tmp_path_factory.mktemp("frozen") / "REF"
    return build_reference(sections[:3], out, settings=FROZEN)


def ask(reference, section, *, settings=SETTINGS, **options):
    spots = SpotPositions(section.spot_ids, section.xy)
    asked = QueryEngine(reference, settings=settings)
    return asked.query(section.image, mpp=5.0, spots=spots, **options).adata.obs


def marked(obs):
    return float((obs["status"] == "ood").mean())


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_tissue_is_marked_and_own_tissue_is_not(
    reference, frozen, sections, tmp_path, monkeypatch, change
):
    pixels = CHANGES[change](np.asarray(Image.open(sections[3].image)))
    Image.fromarray(pixels).save(tmp_path / "asked.png")
    asked = dataclasses.replace(sections[3], image=tmp_path / "asked.png")
    for one in (reference, frozen):
        share = marked(ask(one, asked))
        assert share < 0.1 if change == "own" else share == 1
    monkeypatch.setattr(engine, "comparable_px", lambda *_: None)
    assert marked(ask(frozen, asked)) < 0.5, "image embeddings of this network cannot tell"


def test_patches_are_compared_as_they_are_stored(reference, sections, monkeypatch):
    """Without JPEG a query's own tissue is sharper than the thumbnails of it."""
    alike = ask(reference, sections[0])
    assert marked(alike) < 0.1
    monkeypatch.setattr(encode, "looks_of_patches", lambda patches, **_: looks(patches))
    assert marked(ask(reference, sections[0])) > marked(alike) + 0.3


def test_a_patch_looks_as_its_thumbnail(reference, sections):
    section = sections[0]
    uids = [f"{section.meta.section}/{spot_id}" for spot_id in section.spot_ids[:5]]
    kept = looks_of_images(reference.thumbnails(reference.positions(uids)))
    with open_slide(section.image, pixel_size=section.pixel_size) as slide:
        (batch,) = read_patches(slide, section.xy[:5], reference.embedder.spec)
    np.testing.assert_array_equal(looks_of_patches(batch.views[0], thumbnail_px=32), kept)
    assert looks_of_patches(batch.views[0][:0], thumbnail_px=32).shape == (0, 29)


@given(st.integers(0, 200), st.integers(1, 29))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_a_statistic_does_not_matter(seed, dim):
    rng = np.random.default_rng(seed)
    vectors, sections = rng.normal(size=(60, dim)), np.repeat([0, 1, 2], 20)
    asked, units = rng.normal(size=(9, dim)), 10.0 ** rng.uniform(-1, 4, size=dim)
    plain = Appearance.fit(vectors, sections, OF_LOOKS).distance(asked)
    other = Appearance.fit(vectors * units, sections, OF_LOOKS).distance(asked * units)
    np.testing.assert_allclose(other, plain, rtol=1e-6)


def test_units_matter_where_all_numbers_are_of_one():
    vectors = np.random.default_rng(1).normal(size=(60, 4))
    sections, units = np.repeat([0, 1], 30), np.array([1.0, 1.0, 1.0, 1000.0])
    plain = Appearance.fit(vectors, sections, Scatter()).distance(vectors)
    other = Appearance.fit(vectors * units, sections, Scatter()).distance(vectors * units)
    assert np.abs(other / plain - 1).max() > 0.1


def test_a_statistic_that_never_varies_does_not_mark_everything():
    vectors = np.random.default_rng(2).normal(size=(60, 4))
    vectors[:, 3] = 1.0
    seen = Appearance.fit(vectors, np.repeat([0, 1], 30), OF_LOOKS)
    asked = vectors.copy()
    asked[:, 3] -= 1 / 255
    assert seen.distance(asked).max() < 4 * seen.distance(vectors).max()


def test_spots_left_out_are_not_looked_at(reference, sections, monkeypatch):
    plain, seen = Reference.thumbnails, []
    monkeypatch.setattr(
        Reference, "thumbnails", lambda self, p: (seen.extend(p), plain(self, p))[1]
    )
    ask(reference, sections[0], patient="A")
    donors = reference.spots["patient"].to_numpy()
    assert set(donors[seen]) == set(donors) - {"A"}
    assert len(seen) == len(set(seen)), "read once for the whole slide"


def test_without_thumbnails_image_embeddings_decide(reference):
    pool = ArrayPool.of(reference, np.arange(len(reference.spots)))
    predictor = Predictor(pool, RetrievalSettings(top_k=12))
    asked = pool.embeddings("image")[:5]
    some = looks_of_images(reference.thumbnails(np.arange(5)))
    np.testing.assert_array_equal(
        predictor.find(asked, looks=some).ood, predictor.find(asked).ood
    )  # fmt: skip
    stored = Predictor(reference, RetrievalSettings(top_k=12))
    by_look = stored.find_slide(asked, looks=some).ood
    assert (by_look != stored.find_slide(asked).ood).any()


def test_only_the_same_field_of_view_is_compared(reference, sections, tmp_path):
    assert reference.thumbnail_view == PatchView(32, 5.0)
    assert comparable_px(reference, PatchView(32, 5.0)) == 32
    assert comparable_px(reference, PatchView(224, 160 / 224)) == 32
    assert comparable_px(reference, PatchView(32, 5.1)) is None
    assert comparable_px(reference, PatchView(16, 10.0)) is None, "fewer pixels than were stored"
    small = dataclasses.replace(
        FROZEN, embedder="colour", embedder_config={"side_um": 160.0}, thumbnail_px=16
    )
    root = tmp_path / "REF"
    assert (
        comparable_px(build_reference(sections[:2], root, settings=small), PatchView(64, 2.5))
        is None
    )


def test_an_embedder_of_another_field_of_view_goes_by_its_embeddings(reference, sections, tmp_path):
    root = tmp_path / "REF"
    build_reference(sections[:2], root, settings=FROZEN)
    for label, side_um, there in (("wide", 640.0, False), ("same", 320.0, True)):
        further = FurtherSettings(embedder="colour", embedder_config={"side_um": side_um})
        add_embedder(root, sections[:2], further, label=label)
        other = Reference.open(root, embedder=label)
        assert (comparable_px(other, other.embedder.spec.primary) is not None) is there
        scores = ask(other, sections[3])["ood_score"]
        assert np.isfinite(scores).all()


def test_looks_are_kept_between_runs_and_missed_in_older_work_folders(
    reference, sections, tmp_path, monkeypatch
):
    monkeypatch.setattr(groups, "MAX_ROWS", 16)
    both = dataclasses.replace(SETTINGS, centring=Centring.BOTH)
    out = tmp_path / "q.h5ad"
    section = sections[3]
    spots = SpotPositions(section.spot_ids, section.xy)
    question = Question(section.image, mpp=5.0, spots=spots)
    root = reference.layout.root
    assert run_child(root, out, question, both, OutputSettings(), 16, 6) == CRASH_CODE
    files = sorted((work_path(out) / "encoded").glob("[0-9]*.npz"))
    assert files
    for path in files:
        group = read_encoded(path)
        assert group.looks.shape == (16, 29)
        write_encoded(path, dataclasses.replace(group, looks=None))
    assert read_encoded(files[0]).looks is None
    by_look = ask(reference, section, settings=both)["ood_score"].to_numpy()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "comparable_px", lambda *_: None)
        by_embedding = ask(reference, section, settings=both)["ood_score"].to_numpy()
    QueryEngine(reference, settings=both).query_to(out, question)
    older = 16 * len(files)
    expected = np.r_[by_embedding[:older], by_look[older:]]
    np.testing.assert_array_equal(ad.read_h5ad(out).obs["ood_score"], expected)


def test_the_answer_of_a_stream_goes_by_looks(reference, sections):
    """So that what is tested of batches, threads and interruptions is tested of looks."""
    question = Question(sections[3].image, mpp=5.0)
    with QueryEngine(reference, settings=SETTINGS).open(question) as opened:
        assert opened.job.thumbnail_px == 32
