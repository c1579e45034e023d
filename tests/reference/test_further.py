"""A second embedder beside the first: its own columns, indexes and calibration, nothing written anew."""

from dataclasses import replace

import numpy as np
import pytest

from stretrieve.errors import ChecksumError, ConfigError, SectionError
from stretrieve.indexes import ExactIndex, Metric
from stretrieve.reference import (
    BuildSettings,
    FurtherSettings,
    Reference,
    add_embedder,
    add_sections,
    build_reference,
    compact_reference,
    export_reference,
    import_reference,
    remove_embedder,
    remove_sections,
    set_calibration,
    verify_reference,
)

from .conftest import SETTINGS
from .test_changes import answers

SECOND = FurtherSettings("tiny", {"dim": 7, "seed": 5})


@pytest.fixture
def two(ref, sections):
    add_embedder(ref, sections, SECOND, label="second")
    return ref


def store_bytes(root):
    return {path: path.stat().st_size for path in (root / "lance" / "spots.lance").rglob("*.lance")}


def second_vectors(reference, sections, modality="expression"):
    """What the embedder itself says, in canonical order."""
    found = {}
    for section in sections:
        values = reference.embedder.embed_expression(
            section.counts, section.gene_names, section.xy_um
        )
        found |= {
            f"{section.meta.section}/{s}": v for s, v in zip(section.spot_ids, values, strict=True)
        }
    return np.stack([found[uid] for uid in reference.spots.spot_uid])


def test_it_is_opened_by_its_label_and_the_first_stays(ref, sections):
    before = answers(Reference.open(ref))
    manifest = add_embedder(ref, sections, SECOND, label="second")
    assert (manifest.version, sorted(manifest.indexes)) == (
        2,
        ["expression", "expression.second", "image", "image.second"],
    )
    first, second = Reference.open(ref), Reference.open(ref, embedder="second")
    assert answers(first)[1:] == before[1:]
    assert answers(Reference.open(ref, tag="v000001")) == before
    assert second.embedder.dim == 7
    assert second.identity["embedder"] == "second"
    assert first.describe()["further_embedders"] == {"second": "tiny"}
    expected = second_vectors(second, sections)
    np.testing.assert_array_equal(second.embeddings("expression"), expected)
    queries = np.random.default_rng(0).normal(size=(6, 7))
    for modality in ("image", "expression"):
        vectors = np.array(second.embeddings(modality))
        truth = ExactIndex(vectors, metric=Metric.COSINE).search(queries, 5)
        found = second.search(queries, 5, modality=modality)
        np.testing.assert_array_equal(found.indices, truth.indices)
    assert verify_reference(ref).ok
    with pytest.raises(ConfigError, match="'third'; expected one of second"):
        Reference.open(ref, embedder="third")


def test_nothing_is_written_anew(ref, sections):
    """Only the new columns, 66 spots of 2 x 7 numbers, and the names' index come to the disk."""
    before = store_bytes(ref)
    ids = Reference.open(ref).spot_table.row_ids
    add_embedder(ref, sections, SECOND, label="second")
    after = store_bytes(ref)
    assert set(before) <= set(after)
    data = [path for path in set(after) - set(before) if path.parent.name == "data"]
    assert len(data) == len(sections)
    grown = sum(after[path] for path in data)
    old = sum(size for path, size in before.items() if path.parent.name == "data")
    assert grown < 66 * 2 * 7 * 4 + 3 * 2000
    assert grown < old / 3
    np.testing.assert_array_equal(Reference.open(ref).spot_table.row_ids, ids)


def test_half_precision(ref, sections, tmp_path):
    add_embedder(ref, sections, replace(SECOND, embedding_dtype="float16"), label="half")
    reference = Reference.open(ref, embedder="half")
    exact = second_vectors(reference, sections)
    stored = reference.embeddings("expression")
    np.testing.assert_array_equal(stored, exact.astype(np.float16).astype(np.float32))
    assert reference.store.dtypes["expression_embedding__half"] == "<f2"
    whole = replace(SETTINGS, embedding_dtype="float16")
    built = build_reference(sections, tmp_path / "HALF", settings=whole)
    assert set(built.store.dtypes.values()) == {"<f2"}
    for root in (ref, tmp_path / "HALF"):
        compact_reference(root)
        assert verify_reference(root).ok
        export_reference(root, tmp_path / f"{root.name}.zip")
        again = import_reference(tmp_path / f"{root.name}.zip", tmp_path / f"{root.name}-2")
        assert again.store.dtypes == Reference.open(root).store.dtypes
        assert verify_reference(tmp_path / f"{root.name}-2").ok
    with pytest.raises(ConfigError, match="float32 or float16"):
        BuildSettings(embedding_dtype="int8")


def test_sections_that_come_later_are_embedded_with_both(two, sections, new_section, tmp_path):
    add_sections(two, [new_section])
    reference = Reference.open(two, embedder="second")
    expected = second_vectors(reference, [*sections, new_section])
    np.testing.assert_array_equal(reference.embeddings("expression"), expected)
    assert verify_reference(two).ok
    digest = remove_sections(two, sections=["C-SECRET"]).manifest.content_digest
    assert digest == Reference.open(two, tag="v000002").manifest.content_digest
    compact_reference(two)
    export_reference(two, tmp_path / "x.zip")
    imported = import_reference(tmp_path / "x.zip", tmp_path / "NEW")
    assert imported.manifest.content_digest == digest
    opened = Reference.open(tmp_path / "NEW", embedder="second")
    np.testing.assert_array_equal(opened.embeddings("expression"), second_vectors(opened, sections))
    assert verify_reference(two).ok


def test_each_embedder_has_its_own_calibration(two, new_section):
    set_calibration(two, {"a": 1})
    set_calibration(two, {"a": 2}, embedder="second")
    assert Reference.open(two).manifest.calibration == {"a": 1}
    assert Reference.open(two, embedder="second").manifest.calibration == {"a": 2}
    compact_reference(two)
    assert Reference.open(two, embedder="second").manifest.calibration == {"a": 2}
    add_sections(two, [new_section])
    assert Reference.open(two, embedder="second").manifest.calibration is None
    with pytest.raises(ConfigError, match="'third'"):
        set_calibration(two, {}, embedder="third")


def test_removing_gives_the_first_content_back(two, built, sections):
    manifest = remove_embedder(two, "second")
    assert manifest.content_digest == Reference.open(built).manifest.content_digest
    assert sorted(manifest.indexes) == ["expression", "image"]
    assert verify_reference(two).ok
    compact_reference(two)
    assert not list((two / "embedders").iterdir())
    add_embedder(two, sections, SECOND, label="second")
    assert verify_reference(two).ok
    with pytest.raises(ConfigError, match="'other'"):
        remove_embedder(two, "other")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damage_to_it_is_noticed(two, name):
    path = two / "embedders" / "second" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert [fault.part for fault in verify_reference(two).faults] == ["embedder second"]
    assert Reference.open(two).embedder.dim == 12
    with pytest.raises(ChecksumError, match=name.replace(".", r"\.")):
        Reference.open(two, embedder="second").embedder  # noqa: B018


def test_what_is_refused_changes_nothing(two, sections, new_section):
    moved = replace(sections[0], xy=sections[0].xy + 1)
    for wrong, message in (
        (sections[:2], "none named"),
        ([*sections, new_section], "as well"),
        ([moved, *sections[1:]], "other positions"),
    ):
        with pytest.raises(SectionError, match=message):
            add_embedder(two, wrong, SECOND, label="third")
    for label in ("second", "Third", "a b", "../x", "a;b", "1a", "a" * 33):
        with pytest.raises(ConfigError, match="label"):
            add_embedder(two, sections, SECOND, label=label)
    assert Reference.open(two).manifest.version == 2
    assert verify_reference(two).ok


def test_spots_are_indexed_by_metadata(two, new_section):
    store = Reference.open(two).store
    meta = ("disease", "organ", "patient", "platform", "section", "species")
    assert store.indexed == tuple(sorted((*meta, "spot_uid")))
    add_sections(two, [new_section])
    rows = Reference.open(two).store.section_rows("C-SECRET")
    assert len(rows.spot_ids) == 25
