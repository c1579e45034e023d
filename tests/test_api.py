import importlib
import subprocess
import sys

import pytest

import stretrieve

HEAVY = (
    "torch", "timm", "open_clip", "faiss", "lancedb", "pyarrow", "pandas", "anndata", "scipy", "sklearn",
    "skimage", "openslide", "matplotlib", "tifffile", "PIL", "h5py",
    "numba", "llvmlite",
)  # fmt: skip


def heavy_modules_after(code):
    script = f"{code}\nimport sys\nprint('heavy:', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_package_loads_no_heavy_library():
    assert heavy_modules_after("import stretrieve") == []


def test_help_loads_no_heavy_library():
    code = (
        "import sys; sys.argv = ['stretrieve', '--help']\n"
        "from stretrieve.cli.app import app\n"
        "app(standalone_mode=False)"
    )
    assert heavy_modules_after(code) == []


def test_the_check_for_heavy_libraries_sees_one():
    assert heavy_modules_after("import scipy") == ["scipy"]


def test_at_most_twenty_public_names_and_each_resolves():
    assert len(stretrieve.__all__) <= 20
    for name in stretrieve.__all__:
        assert getattr(stretrieve, name) is not None
    assert set(stretrieve.__all__) <= set(dir(stretrieve))


def test_lazy_table_and_type_checking_block_name_the_same_things():
    source = importlib.import_module("inspect").getsource(stretrieve)
    block = source.partition("if TYPE_CHECKING:")[2].partition("_PUBLIC")[0]
    named = {
        line.rsplit(" as ", 1)[1]: line.split()[1].removeprefix("stretrieve.")
        for line in block.splitlines()
        if " as " in line
    }
    assert named == stretrieve._PUBLIC


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        stretrieve.nonsense  # noqa: B018
