import hashlib

import pytest

from stretrieve._files import atomic_path, canonical_json, sha256_file, sha256_text, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    final = tmp_path / "a.txt"
    final.write_text("old")

    def fail():
        with atomic_path(final) as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert final.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole(tmp_path):
    with atomic_path(tmp_path / "sub" / "out") as path:
        path.mkdir()
        (path / "x").write_text("1")
        assert not (tmp_path / "sub" / "out").exists()
    assert (tmp_path / "sub" / "out" / "x").read_text() == "1"


def test_json_is_sorted_and_digests_do_not_depend_on_order(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "µ"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "µ",\n  "b": 1\n}\n'
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    expected = hashlib.sha256(b"abc").hexdigest()
    assert sha256_file(tmp_path / "x") == sha256_text("abc") == expected
