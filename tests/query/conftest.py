import pytest

from stretrieve import BuildSettings, build_reference, read_sheet
from stretrieve.spots import read_section
from tests.tissue import write_cohort

BUILD = BuildSettings(embedder="colour", embedder_config={"patch_px": 32, "side_um": 160.0})


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return write_cohort(folder, "AABC")


@pytest.fixture(scope="session")
def sections(cohort):
    return [read_section(row) for row in read_sheet(cohort)]


@pytest.fixture(scope="session")
def reference(sections, tmp_path_factory):
    out = tmp_path_factory.mktemp("ref") / "REF"
    return build_reference(sections[:3], out, settings=BUILD)
