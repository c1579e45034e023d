import anndata as ad
import numpy as np
import pandas as pd
import pytest

from stretrieve import BuildSettings, build_reference
from stretrieve.errors import (
    ConfigError,
    EmbedderMismatchError,
    GenePanelError,
    InputError,
    ShapeError,
)
from stretrieve.query import SpotPositions
from stretrieve.query.search import ReferencePool, ReferenceSearch, embedder_digest
from stretrieve.spots import log_cp10k
from stretrieve.store import Equals, IsIn
from tests.query.search.brute import best, cosine, everything
from tests.query.search.conftest import OTHER_GENES
from tests.reference.tiny import make_section

SIDES = ("image", "expression")


def check(hits, retriever, vectors, keep=lambda table, i: np.ones(len(table), bool)):
    """Compare with a full float64 product over all spots."""
    table = everything(retriever, hits.target.value)
    scores = cosine(vectors, np.stack(table["vector"]))
    frame = hits.to_frame()
    for i, name in enumerate(hits.query.names):
        mine = keep(table, i)
        expected = best(table[mine], scores[i][mine], hits.positions.shape[1])
        got = frame[frame["query"] == name]
        assert list(got["spot_uid"]) == list(expected["spot_uid"])
        np.testing.assert_allclose(got["score"], expected["score"], atol=1e-9)
        assert list(got["rank"]) == list(range(1, len(expected) + 1))


@pytest.mark.parametrize("target", SIDES)
@pytest.mark.parametrize("source", SIDES)
def test_all_four_directions_against_brute_force(one, source, target):
    uids = ["S0/1x1", "S2/3x4", "S1/2x6"]
    query = one.stored(uids, modality=source)
    hits = one.search(query, target=target, top_k=7, exclude="none")
    assert hits.direction == f"{source}->{target}"
    stored = everything(one, source).set_index("spot_uid").loc[uids, "vector"]
    check(hits, one, np.stack(stored))


def test_a_spot_finds_itself_unless_it_is_left_out(one):
    query = one.stored(["S0/1x1"], modality="image")
    with_self = one.search(query, target="image", top_k=3, exclude="none").to_frame()
    assert with_self["spot_uid"][0] == "S0/1x1"
    assert with_self["score"][0] == pytest.approx(1)
    without = one.search(query, target="image", top_k=2, exclude="spot").to_frame()
    assert list(without["spot_uid"]) == list(with_self["spot_uid"][1:])


@pytest.mark.parametrize("exclude", ["patient", "section"])
def test_each_query_leaves_out_its_own(one, exclude):
    query = one.stored(["S0/1x1", "S2/3x4", "S1/2x2"], modality="expression")
    hits = one.search(query, target="expression", top_k=9, exclude=exclude)
    owners = {"patient": ["P1", "P2", "P1"], "section": ["S0", "S2", "S1"]}[exclude]
    check(hits, one, query.vectors, lambda table, i: (table[exclude] != owners[i]).to_numpy())


def test_filters(one):
    query = one.stored(["S0/1x1"], modality="expression")
    where = Equals("organ", "breast") & ~Equals("section", "S0")
    hits = one.search(query, target="image", top_k=50, where=where, exclude="none")
    check(hits, one, query.vectors, lambda table, i: (table["section"] == "S1").to_numpy())
    assert len(hits.to_frame()) == 36  # all that there are, not top_k


def test_measured_section_is_embedded_as_a_section(one, sections):
    query = one.section(sections[2])
    stored = one.pool.embeddings("expression", *one.pool.find([f"S2/{s}" for s in query.names]))
    np.testing.assert_allclose(query.vectors, stored, rtol=1e-5)
    hits = one.search(query, target="expression", top_k=4)
    check(hits, one, query.vectors, lambda table, i: (table["patient"] != "P2").to_numpy())


def test_anndata_is_read_like_a_file(one, sections):
    section = sections[2]
    adata = ad.AnnData(
        X=section.counts.astype(np.float32),
        obs=pd.DataFrame({"patient": "P2"}, index=section.spot_ids),
        var=pd.DataFrame(index=section.gene_names),
        obsm={"spatial": section.xy},
    )
    query = one.section(adata, mpp=1.0)
    np.testing.assert_allclose(query.vectors, one.section(section).vectors, rtol=1e-5)
    assert set(query.patients) == {"P2"}
    adata.X = adata.X * 0.5
    with pytest.raises(InputError, match="counts"):
        one.section(adata, mpp=1.0)


def test_patches_of_a_slide(one, sections):
    section = sections[2]
    at = SpotPositions(section.spot_ids, section.xy)
    query = one.patches(section.image, mpp=1.0, spots=at, patient="P2", thumbnails=True)
    stored = one.pool.embeddings("image", *one.pool.find([f"S2/{s}" for s in query.names]))
    np.testing.assert_allclose(query.vectors, stored, rtol=1e-4)
    assert len(query.thumbnails) == 25
    assert query.thumbnails[0].startswith(b"\xff\xd8")
    hits = one.search(query, target="expression", top_k=5)
    check(hits, one, query.vectors, lambda table, i: (table["patient"] != "P2").to_numpy())


def test_batches_do_not_change_answers(one, sections):
    query = one.section(sections[2])
    whole = one.search(query, target="image", top_k=6).to_frame()
    parts = [
        one.search(
            one.vectors(
                query.vectors[i : i + 7], modality="expression", names=query.names[i : i + 7],
                patient="P2",
            ),
            target="image", top_k=6,
        ).to_frame()
        for i in range(0, len(query), 7)
    ]  # fmt: skip
    pd.testing.assert_frame_equal(whole, pd.concat(parts, ignore_index=True))


def test_several_references_are_one_pool(both, sections):
    """S2 is in both references: each of its spots is found once."""
    assert len(everything(both, "image")) == 25 + 36 + 25 + 25
    query = both.stored(["S0/1x1", "S3/5x5"], modality="image")
    hits = both.search(query, target="expression", top_k=111, exclude="none")
    check(hits, both, query.vectors)
    frame = hits.to_frame()
    assert frame.groupby("query").size().tolist() == [111, 111]
    assert set(frame.loc[frame["section"] == "S2", "reference"]) == {"one"}
    assert set(frame.loc[frame["section"] == "S3", "reference"]) == {"two"}


def test_same_reference_twice_changes_nothing(folders, one):
    query = one.stored(["S0/1x1"], modality="image")
    twice = ReferenceSearch(folders[0], folders[0])
    again = twice.search(query, target="image", top_k=9).to_frame()
    once = one.search(query, target="image", top_k=9).to_frame()
    assert list(again["spot_uid"]) == list(once["spot_uid"])


def test_another_embedder_is_refused(folders, sections, tmp_path):
    other = BuildSettings(embedder="tiny", embedder_config={"seed": 5}, thumbnail_px=16)
    build_reference(sections[:1], tmp_path / "other", settings=other)
    with pytest.raises(EmbedderMismatchError, match="embedder_from") as caught:
        ReferenceSearch(folders[0], tmp_path / "other")
    assert caught.value.exit_code == 5


def test_embedder_taken_over_is_the_same_bytes(both):
    one, two = both.pool.references
    assert embedder_digest(one.manifest) == embedder_digest(two.manifest)
    assert one.manifest.embedder == two.manifest.embedder


def test_hits_as_anndata_keep_missing_missing(both, sections):
    query = both.stored(["S0/1x1"], modality="image")
    hits = both.search(query, target="image", top_k=111, exclude="none")
    adata = hits.to_anndata()
    assert adata.shape == (111, 45)
    assert list(adata.obs["n_queries"]) == [1] * 111
    for section, reference in ((sections[0], "one"), (sections[3], "two")):
        names = [f"{reference}:{section.meta.section}/{spot}" for spot in section.spot_ids]
        part = adata[names].to_df()
        np.testing.assert_allclose(
            part[section.gene_names], log_cp10k(section.counts).toarray(), rtol=1e-6
        )
        assert part.drop(columns=section.gene_names).isna().all(axis=None)
    frame = hits.to_frame()
    uns = adata.uns["stretrieve"]
    assert list(uns["hits"]["spot"]) == list(frame["reference"] + ":" + frame["spot_uid"])
    assert set(uns["references"]) == {"one", "two"}
    two = hits.to_anndata(genes=["G44", "G00"])
    assert list(two.var_names) == ["G44", "G00"]
    np.testing.assert_array_equal(two.X, adata[:, ["G44", "G00"]].X)


def test_hits_as_anndata_can_be_written(one, tmp_path):
    query = one.stored(["S0/1x1", "S1/1x1"], modality="image")
    adata = one.search(query, target="image", top_k=4).to_anndata()
    adata.write_h5ad(tmp_path / "hits.h5ad")
    back = ad.read_h5ad(tmp_path / "hits.h5ad")
    assert list(back.obs_names) == list(adata.obs_names)
    assert back.uns["stretrieve"]["direction"] == "image->image"


def test_thumbnails_on_request(one):
    query = one.stored(["S0/1x1"], modality="image", thumbnails=True)
    frame = one.search(query, target="image", top_k=3, exclude="none").to_frame(thumbnails=True)
    assert frame["thumbnail"][0] == query.thumbnails[0]
    assert all(image.startswith(b"\xff\xd8") for image in frame["thumbnail"])


def test_partial_panel_is_reported_and_too_small_a_one_refused(tmp_path, folders):
    """The colour embedder's panel: genes that the query lacks say nothing, under half is refused."""
    from tests.tissue import write_cohort

    sheet = write_cohort(tmp_path / "cohort", "AB")
    config = {"patch_px": 32, "side_um": 160.0}
    settings = BuildSettings(embedder="colour", embedder_config=config)
    retriever = ReferenceSearch(build_reference(sheet, tmp_path / "REF", settings=settings))
    genes = [f"SIM-A{i}" for i in range(20)] + [f"SIM-B{i}" for i in range(20)]
    partial = make_section(tmp_path, "X", genes=genes[:30])
    query = retriever.section(partial)
    assert query.notes == ("10 of the embedder's 40 genes are not measured in X",)
    centred = retriever.pool.embedder.panel.centred(partial.counts, partial.gene_names)
    lacking = [g in genes[30:] for g in retriever.pool.embedder.gene_names]
    assert (centred[:, lacking] == 0).all()  # at the mean: they move no spot
    with pytest.raises(GenePanelError, match="25%"):
        retriever.section(make_section(tmp_path, "Y", genes=genes[:10]))
    with pytest.raises(GenePanelError, match="0%"):
        retriever.section(make_section(tmp_path, "Z", genes=OTHER_GENES))


def test_bad_questions(one, folders):
    dim = 12
    with pytest.raises(InputError, match="S9/1x1"):
        one.stored(["S9/1x1"], modality="image")
    with pytest.raises(InputError, match="none"):
        one.stored([], modality="image")
    with pytest.raises(InputError, match="section"):
        one.stored_section("S9", modality="image")
    for bad in (np.ones((2, dim + 1)), np.ones(dim), np.full((1, dim), np.nan), [["a"] * dim]):
        with pytest.raises(ShapeError, match="query vectors"):
            one.vectors(bad, modality="image")
    with pytest.raises(InputError, match="twice"):
        one.vectors(np.ones((2, dim)), modality="image", names=["a", "a"])
    with pytest.raises(InputError, match="none"):
        one.vectors(np.ones((0, dim)), modality="image")
    query = one.vectors(np.ones((1, dim)), modality="image", patient="P1")
    with pytest.raises(ConfigError, match="top_k"):
        one.search(query, target="image", top_k=0)
    with pytest.raises(InputError, match="besides"):
        one.search(query, target="image", where=Equals("organ", "breast"))
    with pytest.raises(InputError, match="filters"):
        one.search(query, target="image", where=IsIn("organ", ()))
    for wrong in ({"target": "fused"}, {"target": "image", "exclude": "donor"}):
        with pytest.raises(ConfigError, match="expected"):
            one.search(query, **wrong)
    with pytest.raises(ConfigError, match="one or more"):
        ReferencePool(())
    unknown = one.vectors(np.ones((1, dim)), modality="image")
    assert "patient unknown" in one.search(unknown, target="image").notes[0]
