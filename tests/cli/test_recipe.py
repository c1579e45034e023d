import json

from stretrieve.evaluation.recipes import RECIPES
from tests.evaluation.recipes import downloads


def test_command_line(cli, tmp_path):
    downloads.liver_shared(tmp_path / "d")
    code, out, err = cli("recipe", "liver", tmp_path / "d", "-o", tmp_path / "s.csv", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["sections"], said["patients"], said["missing"]) == (4, 1, [])
    assert "--leave-out section" in said["next"]
    assert "Harmony" in said["published"]
    code, out, _ = cli("recipe")
    assert code == 0
    assert all(name in out for name in RECIPES)
    code, out, err = cli("recipe", "cscc", tmp_path / "d")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert cli("recipe", "cscc")[0] == 2
    assert cli("recipe", "atlas", tmp_path)[0] == 2
