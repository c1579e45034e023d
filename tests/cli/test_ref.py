import json
import shutil
import subprocess
import sys

import pytest

from tests.tissue import COLUMNS, write_cohort, write_section, write_sheet

FAST = ("--embedder", "colour", "--patch-px", "32", "--patch-um", "160", "--quiet")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ref")
    sheet = write_cohort(folder / "cohort", "AB")
    command = [sys.executable, "-m", "stretrieve", "build-ref", sheet, "--out", folder / "REF"]
    done = subprocess.run([*map(str, command), *FAST], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "REF"


@pytest.fixture
def ref(built, tmp_path):
    return shutil.copytree(built, tmp_path / "REF")


@pytest.fixture
def more(tmp_path):
    files = write_section(tmp_path / "new" / "s9", seed=9)
    row = dict.fromkeys(COLUMNS, "") | files
    row |= {"section": "s9", "patient": "Z", "format": "st", "species": "human", "mpp": "5"}
    return write_sheet(tmp_path / "new" / "sheet.csv", [row])


def test_add_tag_remove_and_compact(cli, ref, more):
    code, out, err = cli("ref", "add", ref, more, "--json", "-q")
    assert code == 0, err
    assert json.loads(out)["spots"] == 192
    assert cli("ref", "tag", ref, "with-z", "--json")[0] == 0
    code, out, _ = cli("ref", "remove", ref, "--patient", "Z", "--json", "-q")
    assert (code, json.loads(out)["removed"]) == (0, ["s9"])
    code, out, _ = cli("ref", "list", ref, "--versions", "--json")
    assert [v["tags"] for v in json.loads(out)["versions"]] == [[], ["with-z"], []]
    code, out, _ = cli("ref", "compact", ref, "--json", "-q")
    assert json.loads(out)["kept"] == {"2": "tagged 'with-z'"}
    code, out, _ = cli("ref", "compact", ref, "--drop-tags", "--json", "-q")
    assert json.loads(out)["kept"] == {}
    code, out, _ = cli("ref", "list", ref, "--json")
    assert [row["section"] for row in json.loads(out)["sections"]] == ["s0", "s1"]


def test_info_and_list_as_tables(cli, built):
    code, out, _ = cli("ref", "info", built)
    assert code == 0
    assert "indexes.image.recall" in out
    code, out, _ = cli("ref", "list", f"{built}@v000001")
    assert code == 0
    assert "s1" in out


def test_verify(cli, ref):
    code, out, _ = cli("ref", "verify", ref, "--json", "-q")
    assert code == 0
    assert json.loads(out)["ok"] is True
    (ref / "indexes" / "v000001" / "image.faiss").write_bytes(b"x")
    code, out, err = cli("ref", "verify", ref, "--json", "-q")
    assert code == 5
    assert json.loads(out)["faults"][0]["repair"] == "stretrieve ref rebuild-indexes"
    assert "rebuild-indexes" in err
    assert cli("ref", "verify", ref, "-q")[0] == 5
    assert cli("ref", "rebuild-indexes", ref, "--recipe", "exact", "-q")[0] == 0
    assert cli("ref", "verify", ref, "-q")[0] == 0


def test_export_and_import(cli, built, tmp_path):
    file = tmp_path / "ref.zip"
    assert cli("ref", "export", built, "--out", file, "-q")[0] == 0
    code, out, _ = cli("ref", "import", file, "--out", tmp_path / "COPY", "--json", "-q")
    first = json.loads(cli("ref", "info", built, "--json")[1])
    assert code == 0
    assert json.loads(out)["content_digest"] == first["content_digest"]


def test_bad_input_is_one_line(cli, ref, more, tmp_path):
    for arguments, expected in (
        (("info", tmp_path / "none"), 3),
        (("info", f"{ref}@nope"), 3),
        (("remove", ref, "--section", "zz"), 3),
        (("remove", ref), 3),
        (("tag", ref, "v000001"), 2),
        (("add", ref, tmp_path / "none.csv"), 3),
        (("rebuild-indexes", ref, "--recipe", "zz"), 2),
        (("import", tmp_path / "none.zip", "--out", tmp_path / "R"), 3),
    ):
        code, out, err = cli("ref", *arguments)
        assert code == expected, (arguments, err)
        assert err.count("\n") == 1
        assert out == ""
