"""Simulated tissue: reproducible, consistent, and its picture tells of its genes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from stretrieve.errors import ConfigError
from stretrieve.metrics import pearson_per_gene
from stretrieve.simulation import (
    REGIONS,
    Region,
    SimulatedSection,
    State,
    TissueSettings,
    make_programmes,
    simulate_section,
)
from stretrieve.simulation.counts import draw_counts, spot_means
from stretrieve.simulation.paint import donor_stain
from stretrieve.simulation.tissue import FIELD_UM

SMALL = TissueSettings(width_um=1500.0, height_um=1300.0, mpp=1.25)


@pytest.fixture(scope="module")
def section() -> SimulatedSection:
    return simulate_section("s", donor="d", settings=SMALL)


def test_same_arguments_same_section(section) -> None:
    again = simulate_section("s", donor="d", settings=SMALL)
    np.testing.assert_array_equal(again.image, section.image)
    assert (again.section.counts != section.section.counts).nnz == 0
    np.testing.assert_array_equal(again.truth, section.truth)


@pytest.mark.parametrize(
    ("name", "donor", "seed"), [("other", "d", 0), ("s", "other", 0), ("s", "d", 1)]
)
def test_any_other_argument_gives_another_section(section, name, donor, seed) -> None:
    other = simulate_section(name, donor=donor, seed=seed, settings=SMALL)
    assert (other.image != section.image).mean() > 0.1


def test_shapes_and_units(section) -> None:
    assert section.image.shape == (1040, 1200, 3)
    assert section.image.dtype == np.uint8
    n = section.section.n_spots
    assert section.truth.shape == (n, 250)
    assert section.region.shape == (n,)
    assert section.gene_group.shape == (250,)
    distance, _ = cKDTree(section.section.xy_um).query(section.section.xy_um, k=2)
    np.testing.assert_allclose(distance[:, 1], 100.0, atol=2 * SMALL.mpp)  # whole pixels
    assert (section.section.xy >= 0).all()
    assert (section.section.xy < (1200, 1040)).all()


def test_counts_are_plausible(section) -> None:
    counts = section.section.counts
    assert counts.dtype == np.int32
    assert counts.has_sorted_indices
    assert counts.data.min() >= 1
    assert np.median(section.section.library_size) == pytest.approx(SMALL.library_size, rel=0.25)
    assert len(set(section.section.spot_ids)) == section.section.n_spots


def test_counts_follow_the_stated_negative_binomial() -> None:
    settings = dataclasses.replace(SMALL, library_sigma=0.0, dispersion=0.2, library_size=100.0)
    expected = np.tile([20.0, 80.0], (40_000, 1))
    counts = draw_counts(expected, settings, np.random.default_rng(0)).toarray()
    np.testing.assert_allclose(counts.mean(axis=0), [20, 80], rtol=0.02)
    np.testing.assert_allclose(counts.var(axis=0), [20 + 0.2 * 400, 80 + 0.2 * 6400], rtol=0.05)
    poisson = draw_counts(
        expected, dataclasses.replace(settings, dispersion=0.0), np.random.default_rng(0)
    ).toarray()
    np.testing.assert_allclose(poisson.var(axis=0), [20, 80], rtol=0.05)


def test_fractions_are_shares_inside_and_nothing_outside(section) -> None:
    total = section.tissue.fractions.sum(axis=0)
    np.testing.assert_allclose(total[section.tissue.tissue], 1.0, atol=1e-5)
    assert (total[~section.tissue.tissue] == 0).all()
    assert ndimage.label(section.tissue.tissue)[1] == 1
    assert section.tissue.states.min() >= 0
    assert section.tissue.states.max() <= 1


def test_spots_lie_on_tissue_and_the_others_do_not(section) -> None:
    covered = spot_means(section.tissue.tissue.astype(float), section.grid.xy_um)
    assert (covered[section.grid.in_tissue] >= 0.5).all()
    assert (covered[~section.grid.in_tissue] < 0.5).all()


def test_spot_mean_is_the_mean_over_the_disc() -> None:
    ramp = np.tile(
        np.arange(80.0), (60, 1)
    )  # value = column, centre of column c at (c + 0.5) steps
    at = np.array([[40.5 * FIELD_UM, 30.5 * FIELD_UM], [12.5 * FIELD_UM, 30.5 * FIELD_UM]])
    np.testing.assert_allclose(spot_means(ramp, at), [40.0, 12.0])


def test_glass_is_bright_and_tissue_is_stained(section) -> None:
    height, width = section.image.shape[:2]
    rows = (
        (np.arange(height) * SMALL.mpp / FIELD_UM)
        .astype(int)
        .clip(0, section.tissue.tissue.shape[0] - 1)
    )
    cols = (
        (np.arange(width) * SMALL.mpp / FIELD_UM)
        .astype(int)
        .clip(0, section.tissue.tissue.shape[1] - 1)
    )
    tissue = ndimage.binary_erosion(section.tissue.tissue, iterations=4)[np.ix_(rows, cols)]
    glass = ~ndimage.binary_dilation(section.tissue.tissue, iterations=4)[np.ix_(rows, cols)]
    assert section.image[glass].mean() > 230
    assert section.image[tissue].mean() < 215
    red, green, blue = section.image[tissue].mean(axis=0)
    assert green < min(red, blue)  # purple to pink


def _window_mean(section: SimulatedSection, channel: int) -> np.ndarray:
    half = round(40 / SMALL.mpp)
    smooth = ndimage.uniform_filter(section.image[..., channel].astype(float), 2 * half)
    x, y = section.section.xy.astype(int).T
    return smooth[y, x]


def test_picture_tells_of_fat_genes_and_not_of_hidden_ones(section) -> None:
    brightness = np.tile(_window_mean(section, 1)[:, None], (1, 250))
    r = pearson_per_gene(brightness, section.truth)
    assert r[section.gene_group == Region.FAT.value].mean() > 0.5
    assert abs(r[section.gene_group == State.HIDDEN.value].mean()) < 0.35


def test_markers_are_highest_in_their_own_region() -> None:
    programmes = make_programmes(7)
    for row, region in enumerate(REGIONS):
        mine = programmes.region_rates[:, programmes.group == region.value]
        assert (mine.argmax(axis=0) == row).all()
    pure = np.eye(len(REGIONS))
    low, high = np.zeros((len(REGIONS), 3)), np.ones((len(REGIONS), 3))
    gain = programmes.rates(pure, high) / programmes.rates(pure, low)
    driven = np.isin(programmes.group, [s.value for s in State])
    assert (gain[:, driven] > 2).all()
    np.testing.assert_allclose(gain[:, ~driven], 1.0)


def test_genes_cannot_be_taken_for_real_ones(section) -> None:
    assert all(name.startswith("SIM-") for name in section.section.gene_names)
    assert (section.section.genes["gene_id"] == "").all()
    assert section.section.genes.index.is_unique


def test_sections_of_a_donor_share_stain_and_offsets_and_donors_do_not() -> None:
    same = [donor_stain(SMALL, donor="a", seed=0) for _ in range(2)]
    assert same[0] == same[1]
    assert donor_stain(SMALL, donor="b", seed=0) != same[0]
    still = dataclasses.replace(SMALL, stain_shift=0.0)
    assert donor_stain(still, donor="a", seed=0) == donor_stain(still, donor="b", seed=0)


@pytest.mark.parametrize(
    "change",
    [{"mpp": 0.0}, {"width_um": 10.0}, {"dispersion": -1.0}, {"library_size": float("nan")}],
)
def test_settings_refuse_what_cannot_be(change) -> None:
    with pytest.raises(ConfigError, match="simulat"):
        TissueSettings(**change)


def test_names_are_needed() -> None:
    with pytest.raises(ConfigError, match="empty name"):
        simulate_section("", donor="d", settings=SMALL)
