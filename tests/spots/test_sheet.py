"""The samplesheet: what it accepts, and every fault reported at once in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from stretrieve.errors import InputNotFoundError, MppError, SheetError
from stretrieve.spots import read_sheet
from stretrieve.spots.row import UNKNOWN_PATIENT, SheetRow, canonical_species, parse_mpp
from stretrieve.units import MppSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("counts.tsv", "spots.tsv", "image.png"):
        (tmp_path / name).write_text("x")
    return tmp_path


def sheet(folder: Path, text: str) -> Path:
    path = folder / "sheet.csv"
    path.write_text(text)
    return path


def fault(folder: Path, text: str) -> str:
    with pytest.raises(SheetError) as caught:
        read_sheet(sheet(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_columns_are_read_and_paths_are_relative_to_the_sheet(folder: Path) -> None:
    rows = read_sheet(
        sheet(
            folder,
            "section,patient,organ,species,platform,disease,image,counts,spots,format,mpp\n"
            "A 1,P1,Breast,Homo sapiens,ST,HER2+,image.png,counts.tsv,spots.tsv,st,0.69x0.685\n",
        )
    )
    (row,) = rows
    assert (row.section, row.patient, row.organ, row.species) == ("A 1", "P1", "breast", "human")
    assert (row.platform, row.disease, row.format) == ("st", "her2+", "st")
    assert row.counts == folder / "counts.tsv"
    assert row.spots == folder / "spots.tsv"
    assert row.image == folder / "image.png"
    assert row.mpp is not None
    assert (row.mpp.x, row.mpp.y, row.mpp.source) == (0.69, 0.685, MppSource.SHEET)


def test_rows_without_patient_share_one(folder: Path) -> None:
    rows = read_sheet(sheet(folder, "section,patient,counts\na,,counts.tsv\nb,,counts.tsv\n"))
    assert {row.patient for row in rows} == {UNKNOWN_PATIENT}
    assert all(row.format == "auto" for row in rows)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_byte_order_mark_and_blank_lines(folder: Path, delimiter: str) -> None:
    text = "\ufeffSection,Counts\n\na,counts.tsv\n,\n".replace(",", delimiter)
    assert [row.section for row in read_sheet(sheet(folder, text))] == ["a"]


def test_every_fault_is_in_one_line(folder: Path) -> None:
    message = fault(
        folder,
        "section,counts,image,mpp,format\n"
        "a,counts.tsv,,,\n"
        "a,counts.tsv,,,\n"
        "b,missing.tsv,,,\n"
        "c,,gone.png,,\n"
        "d,counts.tsv,,zero,\n"
        "e,counts.tsv,,,visum\n"
        "f,counts.tsv,,,st@x\n"
        "g,counts.tsv,,,,,\n",
    )
    for piece in (
        "section 'a' is listed 2 times",
        "line 4: counts: no file",
        "line 5: counts is empty",
        "image: no file",
        "line 6: mpp: got 'zero'",
        "line 7: format: got 'visum'",
        "did you mean 'visium'?",
        "line 8: format: got 'st@x'",
        "line 9: cells: got 7",
    ):
        assert piece in message


def test_unknown_column_names_the_nearest(folder: Path) -> None:
    message = fault(folder, "section,counts,pateint\na,counts.tsv,p\n")
    assert "unknown column 'pateint'; did you mean 'patient'?" in message


def test_missing_and_repeated_columns(folder: Path) -> None:
    assert "column 'counts' is missing" in fault(folder, "section\na\n")
    assert "column 'section'" in fault(folder, "section,section,counts\na,b,counts.tsv\n")


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\\b", "..", "", "a\x07b", "x" * 129])
def test_section_names_that_look_like_paths_are_refused(folder: Path, name: str) -> None:
    assert "section name" in fault(folder, f'section,counts\n"{name}",counts.tsv\n')


@pytest.mark.parametrize("column", ["patient", "organ", "species", "platform", "disease"])
@pytest.mark.parametrize("label", ["../../x", "/etc", "a\nb", "x" * 300])
def test_labels_that_look_like_paths_are_refused(folder: Path, column: str, label: str) -> None:
    message = fault(folder, f'section,counts,{column}\ns,counts.tsv,"{label}"\n')
    assert f": {column}: got " in message
    assert "\n" not in message


def test_labels_with_a_slash_inside_are_fine(folder: Path) -> None:
    (folder / "sheet.csv").write_text("section,counts,organ\ns,counts.tsv,placenta/embryo\n")
    assert read_sheet(folder / "sheet.csv")[0].organ == "placenta/embryo"


def test_empty_sheets(folder: Path) -> None:
    assert "no section is listed" in fault(folder, "section,counts\n")
    assert "empty file" in fault(folder, "")


def test_a_file_that_is_no_text(folder: Path) -> None:
    (folder / "sheet.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(SheetError, match="UTF-8"):
        read_sheet(folder / "sheet.csv")


def test_missing_sheet(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        read_sheet(tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "abc", "0.05", "50", "1x", "1x2x3", "1e", ""])
def test_bad_mpp(text: str) -> None:
    with pytest.raises(MppError):
        parse_mpp(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Homo_sapiens", "human"), ("MOUSE", "mouse"), ("Mus  musculus", "mouse"), ("Rat", "rat")],
)
def test_species_names(text: str, expected: str) -> None:
    assert canonical_species(text) == expected


def test_size_behind_the_format() -> None:
    assert SheetRow("a", Path(), format="xenium@100").spot_um == 100
    assert SheetRow("a", Path()).spot_um is None
    with pytest.raises(SheetError):
        _ = SheetRow("a", Path(), format="xenium@0").spot_um
