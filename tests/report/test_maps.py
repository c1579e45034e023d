"""Maps: right places, right colours, honest scales, whole files."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from stretrieve.errors import InputError, ShapeError
from stretrieve.report import maps, write_maps
from stretrieve.report._canvas import canvas_of, draw_dots, draw_scale_bar, draw_slide

SIDE = 6
MPP = 0.5
PITCH_PX = 200.0
SCALE = 0.25


def _adata(*, image: bool = True) -> anndata.AnnData:
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    xy = (np.stack([cols.ravel(), rows.ravel()], axis=1) + 1.0) * PITCH_PX
    values = np.stack([cols.ravel() / SIDE, rows.ravel() / SIDE, np.ones(SIDE**2)], axis=1)
    adata = anndata.AnnData(
        X=values.astype(np.float32),
        obs=pd.DataFrame(index=[f"p{i}" for i in range(SIDE**2)]),
        var=pd.DataFrame({"gene_symbol": ["EPCAM", "VIM", "VIM"]}, index=["E1", "E2", "E3"]),
        obsm={"spatial": xy},
    )
    if image:
        side = int((SIDE + 1) * PITCH_PX * SCALE)
        pixels = np.full((side, side + 40, 3), 240, dtype=np.uint8)
        adata.uns["spatial"] = {
            "slide": {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": SCALE}}
        }
        adata.uns["stretrieve"] = {"slide": {"mpp_x": MPP, "mpp_y": MPP}}
    return adata


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_one_file_a_gene_by_key_or_symbol(tmp_path) -> None:
    paths = write_maps(_adata(), ["EPCAM", "E2"], tmp_path / "maps")
    assert [path.name for path in paths] == ["E1.png", "E2.png"]
    sizes = {_size(path) for path in paths}
    assert len(sizes) == 1
    assert min(sizes.pop()) > 300
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["E1.png", "E2.png"]


def test_a_gene_that_is_absent_or_ambiguous_is_refused(tmp_path) -> None:
    for gene in ("nope", "VIM"):
        with pytest.raises(InputError, match="gene to map"):
            write_maps(_adata(), [gene], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_truth_must_fit_and_adds_a_panel(tmp_path) -> None:
    adata = _adata()
    truth = np.asarray(adata.X)[:, :1] + 0.5
    with pytest.raises(ShapeError, match="true maps"):
        write_maps(adata, ["E1"], tmp_path, truth=truth[:-1])
    (alone,) = write_maps(adata, ["E1"], tmp_path / "alone")
    (both,) = write_maps(adata, ["E1"], tmp_path / "both", truth=truth)
    assert _size(both)[0] > 1.2 * _size(alone)[0]


def test_both_maps_share_one_scale_and_the_title_gives_r() -> None:
    canvas = canvas_of(_adata())
    truth = np.linspace(0, 4, SIDE**2)
    figure = maps._figure(canvas, "G", truth / 4, truth)
    panels = [axes for axes in figure.axes if axes.collections]
    limits = [axes.collections[0].get_clim() for axes in panels[:2]]
    assert limits[0] == limits[1]
    assert limits[0][1] > 3
    assert panels[0].get_title() == "G, predicted (r = 1.00)"
    assert panels[1].get_title() == "G, true"
    assert figure.get_supxlabel() == maps.CAPTION
    assert any(axes.get_ylabel() == maps.UNIT for axes in figure.axes)


def test_dots_lie_on_the_thumbnail_in_colours_that_the_colour_blind_can_tell() -> None:
    canvas = canvas_of(_adata())
    np.testing.assert_allclose(canvas.xy[0], [PITCH_PX * SCALE] * 2)
    assert canvas.diameter == pytest.approx(0.94 * PITCH_PX * SCALE)
    axes = Figure().subplots()
    values = np.arange(SIDE**2, dtype=float)
    values[3] = np.nan
    dots = draw_dots(axes, canvas, values, limits=(0.0, 35.0))
    assert dots.get_cmap() == colormaps["viridis"]
    assert len(dots.get_offsets()) == SIDE**2 - 1
    np.testing.assert_allclose(dots.get_offsets()[0], canvas.xy[0])
    draw_slide(axes, canvas)
    assert axes.get_ylim() == (350.0, 0.0)  # y grows downwards, as on the slide
    assert axes.get_xlim() == (0.0, 390.0)


def test_scale_bar_has_the_length_it_states() -> None:
    canvas = canvas_of(_adata())
    assert canvas.um_per_px == pytest.approx(MPP / SCALE)
    assert canvas.bar_um == 100  # a quarter of 390 px · 2 µm/px = 195 µm
    axes = Figure().subplots()
    draw_scale_bar(axes, canvas)
    x = axes.lines[0].get_xdata()
    assert (x[1] - x[0]) * canvas.um_per_px == pytest.approx(100)
    assert axes.texts[0].get_text() == "100 µm"


def test_without_image_or_resolution_a_map_is_still_drawn(tmp_path) -> None:
    adata = _adata(image=False)
    canvas = canvas_of(adata)
    assert canvas.image is None
    assert canvas.bar_um is None
    axes = Figure().subplots()
    draw_scale_bar(axes, canvas)
    assert not axes.lines
    assert write_maps(adata, ["E3"], tmp_path)[0].is_file()  # constant: no empty colour range


def test_missing_values_are_not_drawn_and_do_not_break_the_scale(tmp_path) -> None:
    adata = _adata()
    adata.X[:, 0] = np.nan
    assert maps._limits(np.full(4, np.nan)) == (0.0, 1.0)
    assert write_maps(adata, ["E1"], tmp_path)[0].is_file()


def test_no_positions_no_map(tmp_path) -> None:
    with pytest.raises(InputError, match="no positions"):
        write_maps(anndata.AnnData(np.ones((2, 1), np.float32)), ["0"], tmp_path)


def test_file_names_are_safe_and_unique() -> None:
    assert maps._file_names(["../../etc", "HLA-A", "hla-a", "a/b", "a:b"]) == [
        "_.._etc.png", "HLA-A.png", "hla-a_2.png", "a_b.png", "a_b_2.png",
    ]  # fmt: skip


def test_a_failed_drawing_leaves_no_file(tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        write_maps(_adata(), ["E1"], tmp_path)
    assert list(tmp_path.iterdir()) == []
