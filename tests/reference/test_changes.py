import numpy as np
import pytest

from stretrieve.errors import (
    BusyError,
    ConfigError,
    InputError,
    OutputExistsError,
    ReferenceNotFoundError,
    SectionError,
    UnknownNameError,
)
from stretrieve.reference import (
    Reference,
    add_sections,
    build_reference,
    rebuild_indexes,
    remove_sections,
    set_calibration,
    tag_version,
    verify_reference,
)
from stretrieve.reference.locks import writer_lock

from .conftest import SETTINGS


def answers(reference):
    """Everything a reader can ask, as one comparable value."""
    queries = np.random.default_rng(0).normal(size=(5, 12))
    found = [reference.search(queries, 4, modality=m) for m in ("image", "expression")]
    positions = np.arange(0, len(reference.spots), 7)
    return (
        reference.manifest.content_digest,
        tuple(reference.spots.spot_uid),
        tuple(reference.genes.index),
        [r.indices.tobytes() + r.scores.tobytes() for r in found],
        reference.expression(positions).toarray().tobytes(),
        reference.thumbnails(positions),
        reference.measured.tobytes(),
    )


def test_adding_gives_a_new_version_and_readers_keep_theirs(ref, new_section):
    before = Reference.open(ref)
    known = answers(before)
    after = before.add([new_section])
    assert after.manifest.version == 2
    assert answers(before) == known == answers(Reference.open(ref, tag="v000001"))
    assert len(after.spots) == len(before.spots) + 25
    assert list(after.genes.index) == [*before.genes.index, *(f"G{i}" for i in range(45, 60))]
    assert not after.measured[:3].any(axis=0)[0:0].any()
    names = list(after.sections().index)
    added = after.measured[names.index("C-SECRET")]
    assert set(after.genes.index[added]) == set(new_section.gene_names)
    assert verify_reference(ref).ok


def test_added_rows_are_those_of_a_build_in_one_go(ref, sections, new_section, tmp_path):
    add_sections(ref, [new_section])
    added = Reference.open(ref)
    whole = build_reference([*sections, new_section], tmp_path / "WHOLE", settings=SETTINGS)
    positions = np.arange(len(whole.spots))
    columns = added.genes.index.get_indexer(whole.genes.index)
    assert added.manifest.content_digest == whole.manifest.content_digest
    np.testing.assert_array_equal(
        added.expression(positions).toarray()[:, columns], whole.expression(positions).toarray()
    )


def test_adding_and_removing_gives_the_first_content_back(ref, new_section):
    digest = Reference.open(ref).manifest.content_digest
    add_sections(ref, [new_section])
    removed = remove_sections(ref, patients=["P-SECRET"])
    assert removed.sections == ("C-SECRET",)
    assert removed.manifest.content_digest == digest
    assert removed.manifest.version == 3
    assert verify_reference(ref).ok
    assert "C-SECRET" not in Reference.open(ref).sections().index


def test_removing_by_section_and_patient(ref):
    reference = Reference.open(ref).remove(sections=["A"], patients=["P2"])
    assert list(reference.sections().index) == ["A-1"]
    assert set(reference.spots.section) == {"A-1"}
    assert len(reference.embeddings("image")) == len(reference.spots) == 16
    assert reference.measured.shape == (1, 45)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"sections": ["Z"]}, "'Z', which the reference does not hold"),
        ({"patients": ["P1' OR '1'='1"]}, "does not hold"),
        ({"patients": ["P1", "P2"]}, "all of them"),
        ({}, "none"),
    ],
)
def test_removals_that_are_refused(ref, what, message):
    with pytest.raises(InputError, match=message):
        remove_sections(ref, **what)
    assert Reference.open(ref).manifest.version == 1


def test_adding_a_section_twice_is_refused_before_anything_is_written(ref, sections, new_section):
    with pytest.raises(SectionError, match="'B'"):
        add_sections(ref, [new_section, sections[0]])
    assert Reference.open(ref).manifest.version == 1
    assert Reference.open(ref).store.n_spots == 66


def test_tags(ref, new_section):
    Reference.open(ref).tag("first")
    add_sections(ref, [new_section])
    tag_version(ref, "second")
    assert Reference.open(ref, tag="first").manifest.version == 1
    second = Reference.open(ref, tag="second")
    assert second.identity["tag"] == "second"
    with pytest.raises(OutputExistsError, match="tag of version 2"):
        tag_version(ref, "second", version="first")
    tag_version(ref, "second", version="v000001", move=True)
    assert Reference.open(ref, tag="second").manifest.version == 1
    with pytest.raises(ReferenceNotFoundError, match="first, second"):
        Reference.open(ref, tag="third")
    for bad in ("v000001", "../x", "", "a b"):
        with pytest.raises(ConfigError):
            tag_version(ref, bad)


def test_indexes_of_old_versions_are_kept_for_tags_only(ref, new_section):
    tag_version(ref, "first")
    add_sections(ref, [new_section])
    add_sections_again = remove_sections(ref, sections=["C-SECRET"])
    assert add_sections_again.manifest.version == 3
    kept = sorted(path.name for path in (ref / "indexes").iterdir())
    assert kept == ["v000001", "v000003"]


def test_rebuilding_repairs_and_changes_the_recipe(ref):
    path = ref / "indexes" / "v000001" / "image.faiss"
    path.write_bytes(b"damaged")
    assert not verify_reference(ref).ok
    queries = np.random.default_rng(0).normal(size=(5, 12))
    manifest = rebuild_indexes(ref, recipe="hnsw")
    assert verify_reference(ref).ok
    assert manifest.indexes["image"].recipe == "hnsw"
    again = rebuild_indexes(ref)
    assert again.indexes["image"].recipe == "hnsw"
    assert Reference.open(ref).search(queries, 3).indices.shape == (5, 3)
    with pytest.raises(UnknownNameError):
        rebuild_indexes(ref, recipe="hsnw")


def test_a_calibration_holds_until_rows_change(ref, new_section):
    set_calibration(ref, {"temperature": 0.5})
    assert Reference.open(ref).manifest.calibration == {"temperature": 0.5}
    assert verify_reference(ref).ok
    assert rebuild_indexes(ref).calibration == {"temperature": 0.5}
    assert add_sections(ref, [new_section]).calibration is None


def test_a_second_writer_is_turned_away_or_waits(ref):
    with (
        writer_lock(ref / ".lock", what="test"),
        pytest.raises(BusyError, match="another process that writes"),
    ):
        tag_version(ref, "x")
    tag_version(ref, "x", wait_s=5)


def test_no_reference_to_change(tmp_path):
    with pytest.raises(ReferenceNotFoundError):
        tag_version(tmp_path / "none", "x")
    assert not (tmp_path / "none").exists()
