import zipfile

import numpy as np
import pytest

from stretrieve.errors import ChecksumError, InputNotFoundError, OutputExistsError
from stretrieve.reference import (
    Reference,
    add_sections,
    export_reference,
    import_reference,
    remove_sections,
    verify_reference,
)

from .test_changes import answers


@pytest.fixture(scope="module")
def exported(built, tmp_path_factory):
    return export_reference(built, tmp_path_factory.mktemp("export") / "ref.zip")


def test_a_copy_answers_as_the_original(built, exported, tmp_path):
    copy = import_reference(exported, tmp_path / "COPY")
    original = Reference.open(built)
    assert answers(copy) == answers(original)
    assert copy.identity == original.identity
    assert verify_reference(tmp_path / "COPY").ok
    assert [p.name for p in tmp_path.iterdir()] == ["COPY"]


def test_what_was_removed_does_not_travel(ref, new_section, tmp_path):
    add_sections(ref, [new_section])
    remove_sections(ref, patients=["P-SECRET"])
    out = export_reference(ref, tmp_path / "x.zip")
    assert b"SECRET" not in out.read_bytes()
    assert import_reference(out, tmp_path / "COPY").manifest.n_spots == 66
    old = export_reference(ref, tmp_path / "old.zip", tag="v000002")
    assert import_reference(old, tmp_path / "OLD").manifest.n_spots == 91


def test_one_flipped_bit_anywhere_is_noticed(exported, tmp_path):
    good = exported.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "x.zip"
    accepted = 0
    for offset in rng.integers(0, len(good), 25):
        data = bytearray(good)
        data[offset] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(data)
        try:
            import_reference(path, tmp_path / f"R{offset}")
        except ChecksumError:
            assert not (tmp_path / f"R{offset}").exists()
        else:  # a byte of the archive's own book-keeping that nothing depends on
            accepted += 1
            assert verify_reference(tmp_path / f"R{offset}").ok
    assert accepted <= 2
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["../evil", "embedder/../../evil", "/etc/evil", "other.txt"])
def test_members_with_other_names_are_refused(exported, tmp_path, name):
    import json

    path = tmp_path / "x.zip"
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "checksums.json":
                data = json.dumps({**json.loads(data), name: "0"}).encode()
            new.writestr(info.filename, data)
        new.writestr(name, b"evil")
    with pytest.raises(ChecksumError):
        import_reference(path, tmp_path / "REF")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_files_that_are_in_the_way_or_missing(built, exported, tmp_path):
    with pytest.raises(OutputExistsError):
        export_reference(built, exported)
    with pytest.raises(InputNotFoundError):
        import_reference(tmp_path / "none.zip", tmp_path / "REF")
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(ChecksumError):
        import_reference(tmp_path / "x.zip", tmp_path / "REF")
    with pytest.raises(OutputExistsError):
        import_reference(exported, built)
