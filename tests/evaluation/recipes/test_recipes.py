from collections import Counter

import numpy as np
import pytest

from stretrieve import read_sheet
from stretrieve.errors import InputError, InputNotFoundError, OutputExistsError, UnknownNameError
from stretrieve.evaluation.recipes import RECIPES, build_sheet, get_recipe
from stretrieve.spots import read_section
from tests.evaluation.recipes import downloads
from tests.spots.layouts import st_grid, toy

LAYOUTS = {
    "liver_shared": ("liver", {"C73": 4}),
    "liver_geo": ("liver", {"C73": 4}),
    "dlpfc": ("dlpfc", {"Br5292": 4, "Br5595": 4, "Br8100": 4}),
    "her2st_github": ("her2st", {**dict.fromkeys("ABCD", 6), **dict.fromkeys("EFGH", 3)}),
    "her2st_zenodo": ("her2st", {**dict.fromkeys("ABCD", 6), **dict.fromkeys("EFGH", 3)}),
    "cscc": ("cscc", {"P2": 3, "P5": 3, "P9": 3, "P10": 3}),
    "stnet_mendeley": ("stnet", dict.fromkeys(downloads.STNET_PATIENTS, 2)),
    "stnet_folders": ("stnet", dict.fromkeys(downloads.STNET_PATIENTS, 1)),
}
FIRST = {"liver": "C73_A1", "dlpfc": "151507", "cscc": "P2_ST_rep1", "stnet": "BC23287_C1"}


def in_tissue():
    section = toy()
    return section.counts[section.under]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sheet_of_a_download(layout, tmp_path):
    """Every section with its patient; paths exist; the first section reads with its own counts."""
    name, patients = LAYOUTS[layout]
    getattr(downloads, layout)(tmp_path / "download")
    sheet = build_sheet(RECIPES[name], tmp_path / "download", tmp_path / "sheet.csv")
    assert not sheet.missing
    rows = read_sheet(sheet.path)
    assert Counter(row.patient for row in rows) == patients
    assert {row.species for row in rows} == {"human"}
    assert all(row.image.is_file() and row.counts.exists() and row.spots.is_file() for row in rows)
    assert str(tmp_path) not in sheet.path.read_text()  # relative: the folder can be moved
    if name in FIRST:
        section = read_section(next(row for row in rows if row.section == FIRST[name]))
        counts, mpp = (st_grid()[2], 1.0) if name in ("cscc", "stnet") else (in_tissue(), 0.5)
        assert section.counts.shape == counts.shape
        assert section.pixel_size.mean == pytest.approx(mpp, rel=1e-3)


def test_her2st_section_reads_too(tmp_path):
    downloads.her2st_github(tmp_path / "d")
    downloads.picture(tmp_path / "d" / "data" / "ST-imgs" / "C" / "C3" / "HE_BT14.jpg")
    rows = read_sheet(build_sheet(RECIPES["her2st"], tmp_path / "d", tmp_path / "s.csv").path)
    (row,) = (row for row in rows if row.section == "C3")
    assert row.patient == "C"
    assert row.image.parent.name == "C3"
    assert row.counts.parent.name == "ST-cnts"
    _, xy, counts = st_grid(seed=14)
    section = read_section(row)
    np.testing.assert_array_equal(section.counts.toarray(), counts)
    np.testing.assert_allclose(section.xy, xy)


def test_stnet_spots_are_joined_by_name(tmp_path):
    """The spot table has other conventions (X, Y after a nameless column): values by spot agree."""
    downloads.stnet_mendeley(tmp_path)
    rows = read_sheet(build_sheet(RECIPES["stnet"], tmp_path, tmp_path / "s.csv").path)
    (row,) = (row for row in rows if row.section == "BC23803_D1")
    assert row.image.name == "HE_BC23803_D1.jpg"
    assert row.disease == "breast cancer tnbc"
    (other,) = (row for row in rows if row.section == "BC23209_C1")
    assert other.image.name == "HE_BT23209_C1.jpg"
    array, xy, counts = st_grid(seed=2)
    section = read_section(row)
    order = [list(section.spot_ids).index(f"{int(x)}x{int(y)}") for x, y in array]
    np.testing.assert_array_equal(section.counts.toarray()[order], counts)
    np.testing.assert_allclose(section.xy[order], xy)


def test_dlpfc_sections_that_the_paper_mixed_are_of_one_donor(tmp_path):
    downloads.dlpfc(tmp_path)
    rows = read_sheet(build_sheet(RECIPES["dlpfc"], tmp_path, tmp_path / "s.csv").path)
    donor_of = {row.section: row.patient for row in rows}
    assert {donor_of[f"15167{i}"] for i in (3, 4, 5, 6)} == {"Br8100"}
    assert donor_of["151507"] == "Br5292"
    assert donor_of["151669"] == "Br5595"


def test_what_is_missing_is_named(tmp_path):
    downloads.cscc(tmp_path / "d")
    (tmp_path / "d" / "GSM4284320_P5_ST_rep2.jpg").unlink()
    (tmp_path / "d" / "GSM4284327_P10_ST_rep3_stdata.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"10 of 12 .*P5_ST_rep2: no image.*P10_ST_rep3: no P10"):
        build_sheet(RECIPES["cscc"], tmp_path / "d", tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()
    sheet = build_sheet(RECIPES["cscc"], tmp_path / "d", tmp_path / "s.csv", partial=True)
    assert set(sheet.missing) == {"P5_ST_rep2", "P10_ST_rep3"}
    assert len(read_sheet(sheet.path)) == 10


def test_packed_images_are_to_be_unpacked(tmp_path):
    downloads.cscc(tmp_path / "d", packed=True)
    with pytest.raises(InputError, match=r"P2_ST_rep1\.jpg\.gz is packed: gunzip it"):
        build_sheet(RECIPES["cscc"], tmp_path / "d", tmp_path / "s.csv", partial=True)


def test_two_downloads_in_one_folder_are_refused(tmp_path):
    downloads.dlpfc(tmp_path / "d" / "one")
    (tmp_path / "d" / "two").mkdir()
    twice = "151507_filtered_feature_bc_matrix.h5"
    (tmp_path / "d" / "two" / twice).write_bytes(b"")
    with pytest.raises(InputError, match="one download only"):
        build_sheet(RECIPES["dlpfc"], tmp_path / "d", tmp_path / "s.csv")


@pytest.mark.parametrize("name", RECIPES)
def test_empty_folders_and_wrong_places(name, tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="0 of"):
        build_sheet(RECIPES[name], tmp_path / "d", tmp_path / "s.csv", partial=True)
    with pytest.raises(InputNotFoundError):
        build_sheet(RECIPES[name], tmp_path / "nowhere", tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("mine")
    with pytest.raises(OutputExistsError):
        build_sheet(RECIPES[name], tmp_path / "d", tmp_path / "s.csv")


def test_damaged_metadata(tmp_path):
    (tmp_path / "metadata.csv").write_text("type,patient\nTNBC,BC1\n")
    with pytest.raises(InputError, match="no column 'replicate'"):
        RECIPES["stnet"].find(tmp_path)
    header = "type,replicate,patient,count_matrix,histology_image,spot_coordinates\n"
    (tmp_path / "metadata.csv").write_text(header + "TNBC,C1,,a,b,c\n")
    with pytest.raises(InputError, match="without patient"):
        RECIPES["stnet"].find(tmp_path)
    (tmp_path / "metadata.csv").write_text(header + "TNBC,C1,BC1,a,b,c\n" * 2)
    with pytest.raises(InputError, match="twice"):
        RECIPES["stnet"].find(tmp_path)


def test_unknown_recipe():
    with pytest.raises(UnknownNameError, match="liver, dlpfc"):
        get_recipe("atlas")
