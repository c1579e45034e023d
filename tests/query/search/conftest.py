import pytest

from stretrieve import BuildSettings, build_reference
from stretrieve.query.search import ReferenceSearch
from tests.reference.tiny import make_section

SETTINGS = BuildSettings(embedder="tiny", thumbnail_px=16)
GENES = [f"G{i:02d}" for i in range(30)]
OTHER_GENES = [f"G{i:02d}" for i in range(20, 45)]


@pytest.fixture(scope="session")
def sections(tmp_path_factory):
    """S0 and S1 of P1 (breast), S2 of P2 (colon), S3 of P3 (breast) with another gene panel."""
    folder = tmp_path_factory.mktemp("images")
    return [
        make_section(folder, "S0", seed=10),
        make_section(folder, "S1", seed=11, n=6),
        make_section(folder, "S2", patient="P2", organ="colon", seed=12),
        make_section(folder, "S3", patient="P3", seed=13, genes=OTHER_GENES),
    ]


@pytest.fixture(scope="session")
def folders(sections, tmp_path_factory):
    """A reference of S0–S2, and one of S2 and S3 with the same embedder."""
    root = tmp_path_factory.mktemp("refs")
    build_reference(sections[:3], root / "one", settings=SETTINGS)
    other = BuildSettings(embedder_from=str(root / "one"), thumbnail_px=16)
    build_reference(sections[2:], root / "two", settings=other)
    return root / "one", root / "two"


@pytest.fixture(scope="session")
def one(folders):
    return ReferenceSearch(folders[0])


@pytest.fixture(scope="session")
def both(folders):
    return ReferenceSearch(*folders)
