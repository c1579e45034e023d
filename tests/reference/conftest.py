import shutil

import pytest

from stretrieve.reference import BuildSettings, build_reference

from .tiny import make_section

SETTINGS = BuildSettings(embedder="tiny", thumbnail_px=16)


@pytest.fixture(scope="session")
def sections(tmp_path_factory):
    """Sections B (patient P2), A (P1) and A-1 (P1, other genes)."""
    folder = tmp_path_factory.mktemp("images")
    other = [f"G{i:02d}" for i in range(20, 45)]
    return [
        make_section(folder, "B", patient="P2", organ="colon", seed=1),
        make_section(folder, "A", seed=0),
        make_section(folder, "A-1", seed=2, n=4, genes=other),
    ]


@pytest.fixture(scope="session")
def new_section(tmp_path_factory):
    """Section C of patient P-SECRET, with genes that the others lack."""
    folder = tmp_path_factory.mktemp("new")
    genes = [f"G{i:02d}" for i in range(30, 60)]
    return make_section(folder, "C-SECRET", patient="P-SECRET", seed=3, genes=genes)


@pytest.fixture(scope="session")
def built(sections, tmp_path_factory):
    """A reference that no test changes."""
    out = tmp_path_factory.mktemp("built") / "REF"
    build_reference(sections, out, settings=SETTINGS)
    return out


@pytest.fixture
def ref(built, tmp_path):
    """A copy to change."""
    return shutil.copytree(built, tmp_path / "REF")
