import json
import shutil

import numpy as np
import pytest

from stretrieve.errors import ManifestError, ReferenceNotFoundError, StretrieveError
from stretrieve.reference import (
    FurtherSettings,
    Reference,
    add_embedder,
    add_sections,
    tag_version,
    verify_reference,
)


def all_files(folder):
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {".lock", "latest_version_hint.json"}
    )


def found_wrong(folder):
    try:
        return not verify_reference(folder).ok
    except StretrieveError:
        return True


def test_a_fresh_reference_is_sound(built):
    done = verify_reference(built)
    assert done.to_dict() == {
        "ok": True,
        "version": 1,
        "content_digest": Reference.open(built).manifest.content_digest,
        "faults": [],
        "notes": [],
    }
    json.dumps(done.to_dict())


def test_one_flipped_bit_in_any_file_is_found(ref, new_section):
    tag_version(ref, "first")
    add_sections(ref, [new_section])
    rng = np.random.default_rng(0)
    files = all_files(ref)
    assert len(files) > 30
    missed = []
    for path in files:
        good = path.read_bytes()
        data = bytearray(good)
        data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(data)
        name = path.relative_to(ref).as_posix()
        old_version = name.startswith(("indexes/v000001", "versions/v000001"))
        if not found_wrong(ref) and not (old_version and found_old(ref)):
            missed.append(name)
        path.write_bytes(good)
    assert verify_reference(ref).ok
    assert missed == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_flipped_bytes_in_every_file_are_found(ref, sections, new_section):
    """The first, the last and ten other bytes of every file of a reference with two embedders."""
    settings = FurtherSettings("tiny", {"dim": 5, "seed": 3}, embedding_dtype="float16")
    add_embedder(ref, sections, settings, label="second")
    tag_version(ref, "first")
    add_sections(ref, [new_section])
    rng = np.random.default_rng(0)
    missed, tried = [], 0
    for path in all_files(ref):
        good = path.read_bytes()
        name = path.relative_to(ref).as_posix()
        for offset in {0, len(good) - 1, *rng.integers(0, len(good), 10).tolist()}:
            data = bytearray(good)
            data[offset] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(data)
            tried += 1
            if not any(wrong(ref) for wrong in (found_wrong, found_old, found_first)):
                missed.append((name, offset))
        path.write_bytes(good)
    assert verify_reference(ref).ok
    assert tried > 600
    assert missed == []


def found_old(ref, tag="first"):
    try:
        return not verify_reference(ref, tag=tag).ok
    except StretrieveError:
        return True


def found_first(ref):
    return found_old(ref, "v000001")


def test_whatever_damaged_bytes_make_a_library_raise_is_a_fault(built, monkeypatch):
    def damaged(*_args, **_options):
        raise KeyError('Field "array_y" does not exist in schema')

    monkeypatch.setattr("stretrieve.store.read.rows_from_table", damaged)
    done = verify_reference(built)
    assert not done.ok
    assert any("array_y" in fault.problem and fault.repair for fault in done.faults)


@pytest.mark.parametrize("name", ["image.npy", "expression.faiss", "spots.arrow"])
def test_a_missing_derived_file_is_named_with_its_repair(ref, name):
    (ref / "indexes" / "v000001" / name).unlink()
    (fault,) = verify_reference(ref).faults
    assert name in fault.problem
    assert fault.repair == "stretrieve ref rebuild-indexes"


def test_indexes_of_other_rows_are_noticed(ref):
    """Checksums that hold are not enough: the vectors have to be those of the store."""
    from dataclasses import replace

    from stretrieve._files import sha256_file

    folder = ref / "indexes" / "v000001"
    vectors = np.load(folder / "image.npy")
    np.save(folder / "image.npy", vectors[::-1].copy())
    manifest = Reference.open(ref).manifest
    entry = replace(manifest.indexes["image"], vectors_sha256=sha256_file(folder / "image.npy"))
    changed = replace(manifest, indexes={**manifest.indexes, "image": entry})
    changed.write(ref / "manifest.json")
    changed.write(ref / "versions" / "v000001.json")
    faults = verify_reference(ref).faults
    assert [fault.part for fault in faults] == ["image vectors"]


def test_repeated_spots_are_noticed(ref):
    reference = Reference.open(ref)
    table = reference.store._spots._table
    table.checkout_latest()
    rows = table.search().where("spot_uid = 'B/1x1'").to_arrow()
    table.add(rows)
    from dataclasses import replace

    tables = {**reference.manifest.store["tables"], "spots": table.version}
    store = {**reference.manifest.store, "tables": tables}
    for path in (ref / "manifest.json", ref / "versions" / "v000001.json"):
        replace(reference.manifest, store=store).write(path)
    problems = " ".join(fault.problem for fault in verify_reference(ref).faults)
    assert "1 repeated spots" in problems
    assert "67 rows, 66 in the manifest" in problems


def test_a_tag_of_a_version_that_is_gone(ref):
    tag_version(ref, "x")
    shutil.copy(ref / "tags.json", ref / "kept.json")
    (ref / "tags.json").write_text("{}")
    assert [fault.part for fault in verify_reference(ref).faults] == ["tags"]


def test_no_reference_and_a_manifest_that_cannot_be_read(ref, tmp_path):
    with pytest.raises(ReferenceNotFoundError):
        verify_reference(tmp_path / "none")
    (ref / "manifest.json").write_text("[]")
    with pytest.raises(ManifestError):
        verify_reference(ref)


def test_nothing_is_written(built):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    verify_reference(built)
    Reference.open(built).expression(np.arange(5))
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before
