import io
import logging

import numpy as np
import pytest
from PIL import Image

from stretrieve.errors import (
    ChecksumError,
    ConfigError,
    GenePanelError,
    ManifestError,
    ReferenceNotFoundError,
)
from stretrieve.indexes import ExactIndex, Metric
from stretrieve.reference import Reference
from stretrieve.reference.manifest import read_manifest
from stretrieve.reference.versions import read_tags
from stretrieve.store import Equals, IsIn

from .tiny import DIM


@pytest.fixture(scope="module")
def reference(built):
    return Reference.open(built)


def by_name(sections):
    return {section.meta.section: section for section in sections}


def test_spots_are_in_order_of_their_names(reference, sections):
    uids = [f"{s.meta.section}/{i}" for s in sections for i in s.spot_ids]
    assert list(reference.spots.spot_uid) == sorted(uids)
    assert reference.spots.index.tolist() == list(range(len(uids)))


def test_metadata_and_positions_of_every_spot(reference, sections):
    known = by_name(sections)
    for row in reference.spots.itertuples():
        section = known[row.section]
        place = list(section.spot_ids).index(row.spot_uid.partition("/")[2])
        assert (row.patient, row.organ) == (section.meta.patient, section.meta.organ)
        assert (row.x, row.y) == tuple(section.xy[place])
        assert (row.x_um, row.y_um) == tuple(section.xy_um[place])
        assert row.library_size == section.library_size[place]


def test_expression_is_what_was_counted(reference, sections):
    positions = np.array([40, 3, 3, 60, 0])
    counts = reference.expression(positions)
    assert counts.shape == (5, len(reference.genes))
    known = by_name(sections)
    for found, position in zip(counts.toarray(), positions, strict=True):
        row = reference.spots.iloc[position]
        section = known[row.section]
        place = list(section.spot_ids).index(row.spot_uid.partition("/")[2])
        expected = dict(zip(section.gene_names, section.counts[place].toarray()[0], strict=True))
        assert dict(zip(reference.genes.index, found, strict=True)) == {
            gene: expected.get(gene, 0) for gene in reference.genes.index
        }


def test_some_genes_in_the_order_asked_for(reference):
    positions = np.arange(10)
    some = reference.expression(positions, genes=["G30", "G02"])
    columns = reference.genes.index.get_indexer(["G30", "G02"])
    np.testing.assert_array_equal(
        some.toarray(), reference.expression(positions).toarray()[:, columns]
    )
    with pytest.raises(GenePanelError, match="'NOPE'"):
        reference.expression(positions, genes=["G30", "NOPE"])


def test_missing_genes_are_known_by_section(reference, sections):
    assert list(reference.sections().index) == ["A", "A-1", "B"]
    for row, name in enumerate(reference.sections().index):
        expected = set(by_name(sections)[name].gene_names)
        assert set(reference.genes.index[reference.measured[row]]) == expected
    names = reference.sections().index[reference.section_index]
    assert list(names) == list(reference.spots.section)


def test_genes_keep_id_and_symbol(reference):
    assert reference.genes.loc["G07"].to_dict() == {"gene_id": "ENSG07", "gene_symbol": "G07"}


@pytest.mark.parametrize("modality", ["image", "expression"])
def test_search_is_exact_cosine_over_stored_vectors(reference, modality):
    vectors = reference.embeddings(modality)
    assert vectors.shape == (len(reference.spots), DIM)
    queries = np.random.default_rng(0).normal(size=(9, DIM))
    found = reference.search(queries, 6, modality=modality)
    exact = ExactIndex(np.array(vectors), metric=Metric.COSINE).search(queries, 6)
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_array_equal(found.scores, exact.scores)


def test_search_among_allowed_spots(reference):
    allowed = (reference.spots.patient != "P1").to_numpy()
    found = reference.search(
        reference.embeddings("image")[:5], 40, modality="image", allowed=allowed
    )
    assert allowed[found.indices[:, :25]].all()
    assert (found.indices[:, 25:] == -1).all()


def test_predicates_on_metadata(reference):
    where = Equals("organ", "breast") & ~IsIn("section", ("A-1",))
    mask = reference.mask(where)
    assert set(reference.spots.section[mask]) == {"A"}
    found = reference.search(reference.embeddings("image")[:3], 5, modality="image", allowed=mask)
    assert mask[found.indices].all()


def test_embeddings_are_those_of_the_embedder(reference, sections):
    section = by_name(sections)["B"]
    expected = reference.embedder.embed_expression(
        section.counts, section.gene_names, section.xy_um
    )
    positions = reference.positions([f"B/{spot}" for spot in section.spot_ids])
    np.testing.assert_array_equal(reference.embeddings("expression", positions), expected)


def test_unknown_modality_and_spot(reference):
    with pytest.raises(ConfigError, match="'genes'"):
        reference.embeddings("genes")
    with pytest.raises(KeyError, match="B/0x0"):
        reference.positions(["B/1x1", "B/0x0"])


def test_take_and_thumbnails(reference):
    uids = ["B/2x1", "A/1x1"]
    assert list(reference.take(uids).spot_uid) == uids
    images = reference.thumbnails(reference.positions(uids))
    for image in images:
        assert Image.open(io.BytesIO(image)).size == (16, 16)
    assert images[0] != images[1]


def test_describe(reference):
    said = reference.describe()
    assert (said["spots"], said["sections"], said["patients"], said["genes"]) == (66, 3, 2, 45)
    assert said["organ"] == ["breast", "colon"]
    assert said["indexes"]["image"]["recipe"] == "flat"
    assert said["indexes"]["image"]["recall"] == 1.0
    assert "every vector" in said["indexes"]["image"]["reason"]


def test_no_reference_there(tmp_path):
    with pytest.raises(ReferenceNotFoundError, match="no manifest"):
        Reference.open(tmp_path)


def test_no_such_tag(built):
    for tag in ("v000007", "mine"):
        with pytest.raises(ReferenceNotFoundError, match=tag):
            Reference.open(built, tag=tag)
    with pytest.raises(ConfigError, match="tag"):
        Reference.open(built, tag="../x")


def flip(path, offset=-3):
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["image.npy", "image.faiss", "spots.arrow"])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_derived_files_that_are_damaged_cost_speed_and_one_warning(ref, caplog, name, how):
    path = ref / "indexes" / "v000001" / name
    expected = Reference.open(ref)
    queries = np.array(expected.embeddings("image")[:7])
    uids = list(expected.spots.spot_uid)
    flip(path) if how == "damaged" else path.unlink()
    with caplog.at_level(logging.WARNING):
        reference = Reference.open(ref)
        found = [reference.search(queries, 5, modality="image") for _ in range(3)]
        assert list(reference.spots.spot_uid) == uids
    truth = expected.search(queries, 5, modality="image")
    for result in found:
        np.testing.assert_array_equal(result.indices, truth.indices)
        np.testing.assert_array_equal(result.scores, truth.scores)
    assert len(caplog.records) == 1
    assert "rebuild-indexes" in caplog.text


def test_a_damaged_embedder_is_not_loaded(ref):
    flip(ref / "embedder" / "model.safetensors")
    with pytest.raises(ChecksumError, match=r"model\.safetensors"):
        Reference.open(ref).embedder  # noqa: B018


@pytest.mark.parametrize("name", ["manifest.json", "tags.json"])
def test_every_flipped_byte_of_what_open_reads_first_is_noticed(ref, name):
    """Each byte in turn, white space included."""
    Reference.open(ref).tag("first")
    layout = Reference.open(ref).layout
    path = ref / name
    read = (lambda: read_manifest(path)) if name == "manifest.json" else (lambda: read_tags(layout))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    bits = 1 << rng.integers(0, 8, len(good))
    for offset, bit in enumerate(bits.tolist()):
        data = bytearray(good)
        data[offset] ^= bit
        path.write_bytes(data)
        with pytest.raises(ManifestError):
            read()
    path.write_bytes(good)
    read()


def test_an_unknown_format_version_is_named(ref):
    path = ref / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(ManifestError, match="format version 99; expected 1"):
        Reference.open(ref)


def test_a_table_at_another_state_is_noticed(ref):
    reference = Reference.open(ref)
    table = reference.store._sections._table
    table.checkout_latest()
    table.update(where="section = 'B'", values={"patient": "P9"})
    data = reference.manifest.to_dict()
    data["store"]["tables"]["sections"] = table.version
    changed = type(reference.manifest)(
        **{
            name: getattr(reference.manifest, name)
            for name in reference.manifest.__dataclass_fields__
            if name != "store"
        },
        store=data["store"],
    )
    changed.write(reference.layout.manifest)
    with pytest.raises(ChecksumError, match="sections table"):
        Reference.open(ref).genes  # noqa: B018
