"""Legacy ST: joins by name, policies, real sections against the manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stretrieve.errors import MppError, SectionError
from stretrieve.spots import SheetRow, detect_format, read_section
from stretrieve.spots.row import parse_mpp
from stretrieve.units import MppSource

from .layouts import SYMBOLS, st_grid, write_st


def row(folder: Path, **changes: object) -> SheetRow:
    fields = {
        "section": "s",
        "counts": folder / "counts.tsv",
        "spots": folder / "spots.tsv",
        "species": "human",
    }
    return SheetRow(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_st(tmp_path, *st_grid())
    return tmp_path


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "spots.tsv", sep="\t")


def save(folder: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(folder / "spots.tsv", sep="\t", index=False)


def test_a_section_is_read_joined_by_name(folder: Path) -> None:
    array, xy, counts = st_grid()
    save(folder, table(folder).sample(frac=1, random_state=1))
    section = read_section(row(folder))
    assert detect_format(row(folder)) == "st"
    assert section.counts.dtype == np.int32
    np.testing.assert_array_equal(section.counts.toarray(), counts)
    np.testing.assert_array_equal(section.xy, xy)
    np.testing.assert_array_equal(section.array_xy, array)
    assert list(section.genes["gene_symbol"]) == SYMBOLS
    assert section.gene_names[0] == "ENSG00000141736"
    assert section.pixel_size.x == pytest.approx(1.0)
    assert section.pixel_size.source is MppSource.GRID
    assert section.repairs == ()


def test_mpp_of_the_sheet_goes_first(folder: Path) -> None:
    section = read_section(row(folder, mpp=parse_mpp("0.5")))
    assert (section.pixel_size.x, section.pixel_size.source) == (0.5, MppSource.SHEET)


def test_spots_not_selected_are_left_out_and_counted(folder: Path) -> None:
    frame = table(folder)
    frame.loc[:2, "selected"] = 0
    save(folder, frame)
    section = read_section(row(folder))
    assert section.n_spots == len(frame) - 3
    assert section.repairs == ("3 spots off the tissue or image left out",)


def test_a_few_without_a_partner_are_counted(folder: Path) -> None:
    frame = table(folder)
    frame.loc[0, "x"] = 30
    save(folder, frame)
    section = read_section(row(folder))
    assert section.n_spots == len(frame) - 1
    assert section.repairs == (
        "1 spots under tissue without counts left out",
        "1 spots of the counts without a position left out",
    )


def test_many_without_a_partner_are_an_error(folder: Path) -> None:
    frame = table(folder)
    frame.loc[:8, "x"] += 40
    save(folder, frame)
    with pytest.raises(SectionError, match="do not match"):
        read_section(row(folder))


def test_duplicate_spots_are_an_error(folder: Path) -> None:
    frame = table(folder)
    frame.loc[1, ["x", "y"]] = frame.loc[0, ["x", "y"]]
    save(folder, frame)
    with pytest.raises(SectionError, match="twice"):
        read_section(row(folder))


def test_spots_outside_the_image_are_an_error(folder: Path) -> None:
    Image.new("RGB", (1500, 1500)).save(folder / "image.png")
    with pytest.raises(SectionError, match=r"outside image\.png"):
        read_section(row(folder, image=folder / "image.png"))
    Image.new("RGB", (2100, 2100)).save(folder / "image.png")
    assert read_section(row(folder, image=folder / "image.png")).image == folder / "image.png"


def test_a_sheet_without_spot_file(folder: Path) -> None:
    with pytest.raises(SectionError, match="spots column"):
        read_section(row(folder, spots=None))


def test_transposed_quoted_counts_without_corner_cell(folder: Path) -> None:
    frame = pd.read_csv(folder / "counts.tsv", sep="\t", index_col=0).T
    lines = ["\t".join(f'"{c}"' for c in frame.columns)]
    lines += [f'"{g}"\t' + "\t".join(map(str, frame.loc[g])) for g in frame.index]
    (folder / "counts.tsv").write_text("\n".join(lines))
    section = read_section(row(folder))
    np.testing.assert_array_equal(section.counts.toarray(), st_grid()[2])


def test_names_by_adjusted_coordinates(folder: Path) -> None:
    frame = pd.read_csv(folder / "counts.tsv", sep="\t", index_col=0)
    spots = pd.read_csv(folder / "spots.tsv", sep="\t", dtype=str)
    frame.index = [f"{x}x{y}" for x, y in zip(spots.new_x, spots.new_y, strict=True)]
    frame.to_csv(folder / "counts.tsv", sep="\t")
    assert read_section(row(folder)).n_spots == len(frame)


def test_a_matrix_of_the_whole_array_may_hold_many_spots_off_the_tissue(folder: Path) -> None:
    names = [f"{x}x{y}" for x in range(1, 34) for y in range(1, 36)]
    counts = np.random.default_rng(0).poisson(3, size=(len(names), 4))
    pd.DataFrame(counts, index=names, columns=SYMBOLS).to_csv(folder / "counts.tsv", sep="\t")
    assert read_section(row(folder)).n_spots == len(table(folder))


@pytest.mark.parametrize("name", ["A1", "A2", "B4", "C2", "C3", "C4", "C5"])
def test_her2st_agrees_with_the_manifest(shared_data: Path, name: str) -> None:
    home = shared_data / "data" / "her2st" / name
    section = read_section(
        SheetRow(
            name,
            home / "counts.tsv.gz",
            species="human",
            spots=home / "spots.csv",
            image=next(home.glob("image.*")),
        )
    )
    facts = pd.read_json(home / "section.json", typ="series")
    assert section.n_spots == facts["spots_under_tissue"]
    assert float(np.median(section.library_size)) == facts["median_umi"]
    assert (section.pixel_size.x, section.pixel_size.y) == pytest.approx(facts["mpp"], rel=0.01)
    assert section.pixel_size.source is MppSource.GRID
    assert np.mean(section.genes["gene_id"] != "") > 0.99


@pytest.mark.parametrize("name", ["B4", "C3"])
def test_her2st_selection_tables_give_the_same_spots(shared_data: Path, name: str) -> None:
    home = shared_data / "data" / "her2st" / name
    one, two = (
        read_section(SheetRow(name, home / "counts.tsv.gz", spots=home / spots, species="human"))
        for spots in ("spots.csv", "spots_selection.tsv")
    )
    np.testing.assert_array_equal(one.spot_ids, two.spot_ids)
    np.testing.assert_allclose(one.xy, two.xy)
    assert "under tissue without counts" in two.repairs[0]


def test_her2st_selection_of_the_full_image_is_refused_for_the_small_one(shared_data: Path) -> None:
    home = shared_data / "data" / "her2st" / "A1"
    with pytest.raises(SectionError, match="346 of 346 outside"):
        read_section(
            SheetRow(
                "A1",
                home / "counts.tsv.gz",
                spots=home / "spots_selection.tsv",
                image=home / "image.png",
            )
        )


def test_normalised_values_are_refused(shared_data: Path) -> None:
    home = shared_data / "data" / "human_cpie_st1k" / "section1"
    with pytest.raises(SectionError, match="raw counts"):
        read_section(SheetRow("cpie", home / "counts.tsv", spots=home / "spot_data.tsv"))


@pytest.mark.parametrize(
    ("folder", "spots", "n_spots"),
    [
        ("mob_st1k/Rep1", "spots.csv", 267),
        ("mob_st2k/MOB1", "alignment_table.tsv", 379),
        ("mob_st2k/MOB1", "spots.csv", 379),
        ("mob_st2k/MOB2", "alignment_table.tsv", 407),
        ("mob_xfuse_st1k/test", "spots.tsv", 279),
    ],
)
def test_bulbs_agree_with_the_manifest(
    shared_data: Path, folder: str, spots: str, n_spots: int
) -> None:
    home = shared_data / "data" / folder
    section = read_section(
        SheetRow(
            "bulb",
            next(home.glob("counts.tsv*")),
            spots=home / spots,
            image=home / "image.jpg",
            species="mouse",
        )
    )
    facts = pd.read_json(home / "section.json", typ="series")
    assert section.n_spots == n_spots
    assert (section.pixel_size.x, section.pixel_size.y) == pytest.approx(facts["mpp"], rel=0.01)
    assert np.mean(section.genes["gene_id"] != "") > 0.9


def test_too_few_spots_for_the_grid(tmp_path: Path) -> None:
    array, xy, counts = st_grid(2, 2)
    write_st(tmp_path, array, xy, counts)
    with pytest.raises(MppError, match="sheet"):
        read_section(row(tmp_path))
