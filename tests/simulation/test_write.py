"""Written sections open in OpenSlide and read back unchanged through the readers of real data."""

from __future__ import annotations

import anndata
import numpy as np
import openslide
import pytest

from stretrieve.errors import OutputExistsError
from stretrieve.simulation import (
    DemoData,
    TissueSettings,
    demo_data,
    simulate_section,
    write_demo_data,
    write_pyramid,
)
from stretrieve.simulation import write as write_module
from stretrieve.spots import read_section, read_sheet, read_spot_positions

SMALL = TissueSettings(width_um=1500.0, height_um=1300.0, mpp=1.25)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return write_demo_data(tmp_path_factory.mktemp("demo") / "data", settings=SMALL)


def test_openslide_reads_pyramid_resolution_and_every_pixel(demo) -> None:
    simulated = simulate_section("donor3_a", donor="donor3", settings=SMALL)
    with openslide.OpenSlide(demo.query_image) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(1.25)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(1.25)
        assert slide.level_dimensions == ((1200, 1040), (600, 520))
        pixels = np.asarray(slide.read_region((0, 0), 0, (1200, 1040)).convert("RGB"))
        half = np.asarray(slide.read_region((0, 0), 1, (600, 520)).convert("RGB"))
    np.testing.assert_array_equal(pixels, simulated.image)
    blocks = simulated.image.reshape(520, 2, 600, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(half, blocks, atol=0.5)


def test_sections_read_back_as_they_were_simulated(demo) -> None:
    rows = read_sheet(demo.sheet)
    assert [(row.section, row.patient) for row in rows] == [
        ("donor1_a", "donor1"), ("donor1_b", "donor1"), ("donor2_a", "donor2"),
    ]  # fmt: skip
    simulated = simulate_section("donor2_a", donor="donor2", settings=SMALL).section
    read = read_section(rows[2])
    order = [list(read.spot_ids).index(spot) for spot in simulated.spot_ids]
    np.testing.assert_array_equal(read.counts[order].toarray(), simulated.counts.toarray())
    np.testing.assert_array_equal(read.xy[order], simulated.xy)
    np.testing.assert_array_equal(read.array_xy[order], simulated.array_xy)
    assert read.gene_names == simulated.gene_names
    assert read.pixel_size.mean == pytest.approx(1.25, rel=1e-3)
    assert read.image == rows[2].image
    assert read.repairs == ()


def test_truth_and_query_positions_fit_together(demo) -> None:
    truth = anndata.read_h5ad(demo.truth)
    names, xy = read_spot_positions(demo.query_positions)
    order = [list(names).index(name) for name in truth.obs_names]
    assert len(names) == truth.n_obs
    np.testing.assert_array_equal(xy[order], truth.obsm["spatial"])
    simulated = simulate_section("donor3_a", donor="donor3", settings=SMALL)
    np.testing.assert_array_equal(truth.X, simulated.truth)
    np.testing.assert_array_equal(
        truth.layers["counts"].toarray(), simulated.section.counts.toarray()
    )
    assert set(truth.obs["patient"]) == {demo.query_patient}
    assert demo.query_patient not in {row.patient for row in read_sheet(demo.sheet)}


def test_truth_is_what_the_counts_are_drawn_around() -> None:
    deep = TissueSettings(
        width_um=1000, height_um=1000, mpp=4, library_size=1e8, library_sigma=0, dispersion=0
    )
    simulated = simulate_section("s", donor="d", settings=deep)
    counts = simulated.section.counts.toarray()
    measured = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(measured, simulated.truth, atol=0.05)


def test_paths_are_found_again_and_nothing_is_overwritten(demo) -> None:
    assert demo_data(demo.folder) == demo
    for path in (demo.sheet, demo.query_image, demo.query_positions, demo.truth):
        assert path.is_file()
    with pytest.raises(OutputExistsError, match="another folder"):
        write_demo_data(demo.folder, settings=SMALL)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write_module, "_write_positions", fail)
    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path / "data", settings=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_small_images_have_one_level(tmp_path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 301, 3), dtype=np.uint8)
    write_pyramid(image, tmp_path / "x.tiff", mpp=0.5)
    with openslide.OpenSlide(tmp_path / "x.tiff") as slide:
        assert slide.level_dimensions == ((301, 300),)
