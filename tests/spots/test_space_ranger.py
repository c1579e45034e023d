"""Space Ranger folders of every generation, as documented and as found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stretrieve.errors import SectionError
from stretrieve.spots import SheetRow, detect_format, read_section
from stretrieve.units import MppSource

from .layouts import MPP, Toy, positions, toy, write_h5, write_mtx, write_spatial


def check(section_row: SheetRow, section: Toy, form: str = "visium", mpp: float = MPP) -> None:
    """Read a row and compare every part with the truth; x and y must not be swapped."""
    assert detect_format(section_row) == form
    found = read_section(section_row)
    order = [section.barcodes.index(name) for name in found.spot_ids]
    assert sorted(order) == np.flatnonzero(section.under).tolist()
    np.testing.assert_array_equal(found.counts.toarray(), section.counts[order])
    np.testing.assert_allclose(found.xy, section.xy[order] * MPP / mpp)
    np.testing.assert_array_equal(found.array_xy, section.array[order])
    assert found.pixel_size.mean == pytest.approx(mpp, rel=1e-3)


def row(counts: Path, **fields: object) -> SheetRow:
    return SheetRow("s", counts, species="human", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_generations_of_the_positions_file(tmp_path: Path, generation: int) -> None:
    section = toy()
    write_h5(tmp_path / "outs" / "filtered_feature_bc_matrix.h5", section)
    write_spatial(tmp_path / "outs" / "spatial", section, generation=generation)
    check(row(tmp_path / "outs"), section)
    check(row(tmp_path), section)
    check(row(tmp_path / "outs" / "filtered_feature_bc_matrix.h5"), section)


def test_a_headed_file_under_the_old_name(tmp_path: Path) -> None:
    section = toy()
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", section)
    write_spatial(tmp_path / "spatial", section)
    positions(section).to_csv(tmp_path / "spatial" / "tissue_positions_list.csv", index=False)
    (tmp_path / "spatial" / "tissue_positions.csv").unlink()
    check(row(tmp_path), section)


@pytest.mark.parametrize("zipped", [True, False])
def test_text_matrix(tmp_path: Path, zipped: bool) -> None:
    section = toy()
    write_mtx(tmp_path / "filtered_feature_bc_matrix", section, zipped=zipped, old=not zipped)
    write_spatial(tmp_path / "spatial", section)
    check(row(tmp_path), section)
    check(row(tmp_path / "filtered_feature_bc_matrix"), section)


def test_sample_prefix_with_several_samples_in_one_folder(tmp_path: Path) -> None:
    one, two = toy(seed=1), toy(seed=2)
    for prefix, section in (("GSM1_a_", one), ("GSM2_b_", two)):
        write_h5(tmp_path / f"{prefix}filtered_feature_bc_matrix.h5", section)
        write_spatial(tmp_path, section, prefix=prefix)
    check(row(tmp_path / "GSM1_a_filtered_feature_bc_matrix.h5"), one)
    check(row(tmp_path / "GSM2_b_filtered_feature_bc_matrix.h5"), two)
    with pytest.raises(SectionError, match="name the file itself"):
        read_section(row(tmp_path))


def test_positions_named_in_the_sheet(tmp_path: Path) -> None:
    section = toy()
    write_h5(tmp_path / "m" / "filtered_feature_bc_matrix.h5", section)
    write_spatial(tmp_path / "elsewhere", section)
    check(row(tmp_path / "m", spots=tmp_path / "elsewhere" / "tissue_positions.csv"), section)


def test_raw_matrix_is_cut_to_the_tissue(tmp_path: Path) -> None:
    section = toy()
    write_h5(tmp_path / "raw_feature_bc_matrix.h5", section, rows=np.ones(len(section.under), bool))
    write_spatial(tmp_path / "spatial", section)
    found = read_section(row(tmp_path))
    assert found.n_spots == section.under.sum()
    assert found.repairs == (
        f"{int((~section.under).sum())} spots off the tissue or image left out",
    )


@pytest.mark.parametrize("lost", ["matrix", "positions"])
def test_barcodes_under_tissue_must_be_those_of_the_matrix(tmp_path: Path, lost: str) -> None:
    section = toy()
    rows = section.under.copy()
    if lost == "matrix":
        rows[np.flatnonzero(rows)[0]] = False
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", section, rows=rows)
    write_spatial(tmp_path / "spatial", section)
    if lost == "positions":
        table = positions(section)
        table = table.drop(index=np.flatnonzero(section.under)[0])
        table.to_csv(tmp_path / "spatial" / "tissue_positions.csv", index=False)
    with pytest.raises(SectionError, match="do not match"):
        read_section(row(tmp_path))


def test_antibodies_are_left_out_and_counted(tmp_path: Path) -> None:
    section = toy()
    kinds = ["Gene Expression"] * 3 + ["Antibody Capture"]
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", section, kinds=kinds)
    write_spatial(tmp_path / "spatial", section)
    found = read_section(row(tmp_path))
    assert found.n_genes == 3
    assert found.repairs == ("1 features that are not genes left out",)


def test_hires_image_scales_the_spots(tmp_path: Path) -> None:
    section = toy()
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", section)
    write_spatial(tmp_path / "spatial", section)
    image = tmp_path / "spatial" / "tissue_hires_image.png"
    shutil.copy(_png(tmp_path, 1200), image)
    check(row(tmp_path, image=image), section, mpp=MPP / 0.25)


def _png(folder: Path, side: int) -> Path:
    from PIL import Image

    Image.new("RGB", (side, side)).save(folder / "blank.png")
    return folder / "blank.png"


def test_visium_hd_bins(tmp_path: Path) -> None:
    for side in (8, 16):
        section = _bins(side)
        home = tmp_path / "binned_outputs" / f"square_{side:03d}um"
        write_h5(home / "filtered_feature_bc_matrix.h5", section)
        write_spatial(
            home / "spatial", section, generation=3, bin_size_um=side, microns_per_pixel=MPP
        )
    for counts in (tmp_path, tmp_path / "binned_outputs"):
        check(row(counts), _bins(8), "visium_hd")
    check(row(tmp_path, format="visium_hd"), _bins(8), "visium_hd")
    found = read_section(row(tmp_path, format="visium_hd@16"))
    assert found.n_spots == _bins(16).under.sum()
    assert found.pixel_size.source is MppSource.METADATA
    check(row(tmp_path / "binned_outputs" / "square_016um"), _bins(16), "visium_hd")


def test_visium_hd_without_stated_resolution_takes_the_bins(tmp_path: Path) -> None:
    section = _bins(8)
    home = tmp_path / "square_008um"
    write_h5(home / "filtered_feature_bc_matrix.h5", section)
    write_spatial(home / "spatial", section, generation=3, bin_size_um=8)
    found = read_section(row(home))
    assert found.pixel_size.mean == pytest.approx(MPP)
    assert found.pixel_size.source is MppSource.GRID


def _bins(side: int) -> Toy:
    base = toy(seed=side)
    array = np.array([(c, r) for r in range(6) for c in range(10)], dtype=float)
    return Toy(base.barcodes, array, array * side / MPP + (50, 20), base.under, base.counts)


def test_real_visium_cytassist(shared_data: Path) -> None:
    outs = shared_data / "data" / "mouse_placenta_visium_cytassist" / "Placenta_S3" / "outs"
    image = outs / "spatial" / "tissue_lowres_image.png"
    found = read_section(SheetRow("p", outs, image=image, species="mouse"))
    text = read_section(SheetRow("p", outs / "filtered_feature_bc_matrix", species="mouse"))
    assert (found.n_spots, found.n_genes) == (2898, 19465)
    assert np.median(found.library_size) == 226
    assert found.pixel_size.mean == pytest.approx(23.3881, rel=0.01)
    assert (found.counts != text.counts).nnz == 0
    np.testing.assert_allclose(found.xy, text.xy * 0.2)


def test_real_fixtures_of_other_loaders(shared_data: Path) -> None:
    home = shared_data / "data" / "loader_fixtures"
    visium = read_section(SheetRow("s", home / "seurat_visium", species="mouse"))
    assert visium.repairs == ("6 spots without any count dropped",)
    assert visium.n_spots == 2689
    assert visium.pixel_size.mean == pytest.approx(0.7248, rel=1e-3)
    for name in ("section1", "section2"):
        assert read_section(SheetRow("s", home / "visiumio" / "10xVisium" / name)).n_spots == 22
    with pytest.raises(SectionError, match="do not match"):
        read_section(SheetRow("s", home / "seurat_visium_hd"))
    with pytest.raises(SectionError, match="zeros only"):
        read_section(SheetRow("s", home / "visiumio" / "binned_outputs" / "square_002um"))
