"""The check of a samplesheet: misaligned sections are caught, good ones are not accused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stretrieve.errors import SheetError
from stretrieve.reference.alignment import measure_alignment, spot_pitch_px
from stretrieve.reference.check import CheckReport, check_sheet
from stretrieve.slides.tissue import TissueMask
from stretrieve.units import MppSource, PixelSize

PITCH = 200.0


def blob(shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    """Return an irregular piece of tissue in the middle of a mask of 10 µm pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    disc = (x - 200) ** 2 / 120**2 + (y - 150) ** 2 / 90**2 < 1
    return disc & ~((x > 260) & (y < 120))


def spots_in(mask: np.ndarray) -> np.ndarray:
    grid = np.array(
        [(x, y) for x in np.arange(100, 4000, PITCH) for y in np.arange(100, 3000, PITCH)]
    )
    inside = mask[(grid[:, 1] // 10).astype(int), (grid[:, 0] // 10).astype(int)]
    return grid[inside]


def measure(shift: tuple[float, float]):
    mask = blob()
    xy = spots_in(mask)
    stain = np.where(mask, 120, 240) - (np.arange(400) / 8) * mask
    picture = np.repeat(stain[..., None], 3, axis=2).astype(np.uint8)
    tissue = TissueMask(mask, (4000, 3000), PixelSize.square(1.0, MppSource.GIVEN))
    return measure_alignment(xy + np.array(shift) * PITCH, xy[:, 0].astype(int), tissue, picture)


def test_spots_in_place_are_not_accused() -> None:
    fit = measure((0, 0))
    assert not fit.is_shifted
    assert not fit.is_off_tissue
    assert fit.on_tissue > 0.95
    assert fit.darkness > 0.8


@pytest.mark.parametrize("shift", [(2, 0), (-2, 0), (0, 2), (0, -2), (1.5, -2), (-3, 1)])
def test_shifted_spots_are_caught_and_the_move_back_is_found(shift: tuple[float, float]) -> None:
    fit = measure(shift)
    assert fit.is_shifted
    assert fit.gain > 0.05
    np.testing.assert_allclose(fit.shift, np.negative(shift), atol=0.51)
    np.testing.assert_allclose(fit.shift_px, np.multiply(fit.shift, PITCH))
    assert fit.best_darkness > 0.8


def test_spots_far_off_are_off_the_tissue() -> None:
    assert measure((9, 0)).is_off_tissue


def test_spot_pitch() -> None:
    assert spot_pitch_px(spots_in(blob())).tolist() == [PITCH, PITCH]
    assert spot_pitch_px(np.zeros((1, 2))).tolist() == [1, 1]


def real_sheet(data: Path, folder: Path, names: tuple[str, ...]) -> Path:
    lines = ["section,patient,species,image,counts,spots"]
    for name in names:
        home = data / "her2st" / name
        image = next(home.glob("image.*"))
        lines.append(
            f"{name},{name[0]},human,{image},{home / 'counts.tsv.gz'},{home / 'spots.csv'}"
        )
    (folder / "sheet.csv").write_text("\n".join(lines))
    return folder / "sheet.csv"


def check_real(data: Path, folder: Path, names: tuple[str, ...]) -> CheckReport:
    return check_sheet(real_sheet(data, folder, names), folder / "out")


def test_her2st_a2_is_caught_and_a1_b4_are_not(shared_data: Path, tmp_path: Path) -> None:
    report = check_real(shared_data / "data", tmp_path, ("A1", "A2", "B4"))
    assert [c.alignment.is_shifted for c in report.sections if c.alignment] == [False, True, False]
    assert [len(c.warnings) for c in report.sections] == [0, 1, 0]
    (warning,) = report.warnings
    assert warning.startswith("A2: spots do not fit the image: moved by (+2.")
    fit = report.sections[1].alignment
    assert fit is not None
    np.testing.assert_allclose(fit.shift, (2.1, -2.75), atol=0.6)
    assert all(c.gene_overlap > 0.9 for c in report.sections)
    assert [c.median_counts for c in report.sections] == [4291, 7982, 648]
    for number, check in enumerate(report.sections, start=1):
        assert check.overlay == tmp_path / "out" / f"section_{number:03d}.png"
        with Image.open(check.overlay) as picture:
            assert picture.size[0] >= 1000


@pytest.mark.slow
def test_the_sections_of_patient_c_are_not_accused(shared_data: Path, tmp_path: Path) -> None:
    report = check_real(shared_data / "data", tmp_path, ("C2", "C3", "C4", "C5"))
    assert report.warnings == ()


def bulb_row(data: Path) -> str:
    home = data / "mob_xfuse_st1k" / "test"
    return f"{home / 'image.jpg'},{home / 'counts.tsv'},{home / 'spots.tsv'}"


def test_a_bad_section_is_reported_and_the_others_are_checked(
    shared_data: Path, tmp_path: Path
) -> None:
    cpie = shared_data / "data" / "human_cpie_st1k" / "section1"
    bulb = shared_data / "data" / "mob_st2k" / "MOB1"
    (tmp_path / "sheet.csv").write_text(
        "section,patient,species,image,counts,spots\n"
        f"bad,p,human,,{cpie / 'counts.tsv'},{cpie / 'spot_data.tsv'}\n"
        f"good,,,,{bulb / 'counts.tsv'},{bulb / 'spots.csv'}\n"
    )
    report = check_sheet(tmp_path / "sheet.csv", tmp_path / "out")
    bad, good = report.sections
    assert report.failed == (f"bad: {bad.error}",)
    assert "raw counts" in bad.error
    assert good.n_spots == 379
    texts = " ".join(good.warnings)
    assert "no image" in texts
    assert "patient unknown" in texts
    assert "species unknown" in texts
    assert good.overlay is None
    rows = report.rows()
    assert all(len(row) == len(report.columns) for row in rows)
    assert [row[-1] for row in rows] == ["failed", "3 warnings"]
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["sections"][0]["mpp"] is None


def test_species_that_do_not_meet(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "data"
    bulb, tumour = data / "mob_st2k" / "MOB1", data / "her2st" / "C2"
    (tmp_path / "sheet.csv").write_text(
        "section,patient,species,platform,counts,mpp\n"
        f"m,p,mouse,st,{bulb / 'section.h5ad'},\n"
        f"h,q,human,st,{tumour / 'section.h5ad'},\n"
        f"x,r,,st,{tumour / 'section.h5ad'},\n"
    )
    report = check_sheet(tmp_path / "sheet.csv", tmp_path / "out")
    assert report.warnings[-1] == "the sheet mixes human and mouse: their genes do not meet"
    assert [c.gene_overlap for c in report.sections][1:] == [1.0, 1.0]


def test_a_malformed_sheet(tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("section\na\n")
    with pytest.raises(SheetError):
        check_sheet(tmp_path / "sheet.csv", tmp_path / "out")
