import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "docs", "benchmarks",
    "stretrieve", "cli", "indexes", "examples", "tests",
}  # fmt: skip


def test_top_level_holds_what_the_architecture_names():
    assert {path.name for path in ROOT.iterdir()} >= TOP_LEVEL


def test_folders_named_like_packages_are_not_packages():
    assert not (ROOT / "cli" / "__init__.py").exists()
    assert not (ROOT / "indexes" / "__init__.py").exists()


def test_wheel_has_one_root_and_carries_the_recipes(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"stretrieve"}
    recipes = {path.name for path in (ROOT / "indexes" / "recipes").glob("*.toml")}
    packed = {Path(name).name for name in names if name.startswith("stretrieve/indexes/recipes/")}
    assert recipes
    assert packed == recipes
    assert "stretrieve/py.typed" in names


def test_launcher_works_from_a_checkout():
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli"), "--version"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.startswith("stretrieve ")


def test_library_code_stays_in_small_files():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "stretrieve").rglob("*.py")
        if (lines := path.read_text().count("\n")) > 400
    }
    assert not long
