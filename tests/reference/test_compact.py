import gc

import numpy as np
import pytest

from stretrieve.errors import ChecksumError
from stretrieve.reference import (
    Reference,
    add_sections,
    compact_reference,
    remove_sections,
    tag_version,
    verify_reference,
)

from .test_changes import answers

SECRETS = [b"P-SECRET", b"C-SECRET"]


def files_with(folder, needles):
    return [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


def test_what_was_withdrawn_is_gone_from_every_file(ref, new_section):
    digest = Reference.open(ref).manifest.content_digest
    added = add_sections(ref, [new_section])
    reference = Reference.open(ref)
    positions = np.flatnonzero(reference.spots.section == "C-SECRET")
    needles = [*SECRETS, *reference.thumbnails(positions)]
    needles += [reference.embeddings("image", positions[:1]).tobytes()]
    del reference
    gc.collect()
    remove_sections(ref, patients=["P-SECRET"])
    assert files_with(ref, needles)
    done = compact_reference(ref)
    assert files_with(ref, needles) == []
    assert done.kept == {}
    assert done.forgotten == (1, added.version, 3)
    assert done.manifest.content_digest == digest
    assert verify_reference(ref).ok
    assert not (ref / "lance").exists()
    assert list(Reference.open(ref).genes.index) == [f"G{i:02d}" for i in range(45)]


def test_answers_are_the_same_after_compaction(ref, new_section):
    add_sections(ref, [new_section])
    before = answers(Reference.open(ref))
    gc.collect()
    compact_reference(ref)
    assert answers(Reference.open(ref)) == before


def test_tagged_versions_stay_unless_asked(ref, new_section):
    tag_version(ref, "paper")
    known = answers(Reference.open(ref, tag="paper"))
    gc.collect()
    add_sections(ref, [new_section])
    done = compact_reference(ref)
    assert done.kept == {1: "tagged 'paper'"}
    assert done.forgotten == (2,)
    assert answers(Reference.open(ref, tag="paper")) == known
    gc.collect()
    dropped = compact_reference(ref, drop_tags=True)
    assert dropped.kept == {}
    assert not (ref / "lance").exists()
    assert verify_reference(ref).ok


def test_a_reader_keeps_its_version(ref, new_section):
    reader = Reference.open(ref)
    add_sections(ref, [new_section])
    done = compact_reference(ref)
    assert done.kept == {1: "open in a reader"}
    known = answers(reader)
    assert known == answers(reader)
    del reader
    gc.collect()
    assert compact_reference(ref).kept == {}
    with pytest.raises(Exception, match="v000001"):
        Reference.open(ref, tag="v000001")


def test_damaged_rows_are_not_copied(ref):
    reference = Reference.open(ref)
    table = reference.store._spots._table
    table.checkout_latest()
    table.update(where="spot_uid = 'B/1x1'", values={"library_size": 7})
    data = dict(reference.manifest.store)
    data["tables"] = {**data["tables"], "spots": table.version}
    from dataclasses import replace

    changed = replace(reference.manifest, store=data)
    changed.write(reference.layout.manifest)
    changed.write(reference.layout.version(1))
    before = (ref / "manifest.json").read_bytes()
    with pytest.raises(ChecksumError, match="library sizes"):
        compact_reference(ref)
    assert (ref / "manifest.json").read_bytes() == before
    tag_version(ref, "still-works")
    assert sorted(p.name for p in ref.glob("lance*")) == ["lance"]
