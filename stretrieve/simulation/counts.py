"""Spots on a Visium grid and the counts that they capture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from stretrieve.keys import CP10K
from stretrieve.simulation._random import generator
from stretrieve.simulation.programmes import Programmes
from stretrieve.simulation.settings import PITCH_UM, SPOT_UM, TissueSettings
from stretrieve.simulation.tissue import FIELD_UM, TissueMap

_MIN_TISSUE = 0.5


@dataclass(frozen=True)
class Grid:
    """Spots of the capture area.

    Parameters
    ----------
    array_xy
        ``(n, 2)`` (column, row) of the array; columns advance by two within a row, as on Visium.
    xy_um
        ``(n, 2)`` centres in microns.
    in_tissue
        ``(n,)`` bool, at least half of the spot lies on tissue.
    """

    array_xy: npt.NDArray[np.int64]
    xy_um: npt.NDArray[np.float64]
    in_tissue: npt.NDArray[np.bool_]


def visium_grid(settings: TissueSettings, tissue: TissueMap) -> Grid:
    """Return the hexagonal spot grid (100 µm pitch) of a slide."""
    margin = PITCH_UM / 2
    row_step = PITCH_UM * np.sqrt(3) / 2
    n_rows = int((settings.height_um - 2 * margin) // row_step) + 1
    n_cols = int((settings.width_um - 2 * margin) // (PITCH_UM / 2)) + 1
    array_xy = np.asarray(
        [(col, row) for row in range(n_rows) for col in range(row % 2, n_cols, 2)], dtype=np.int64
    )
    xy_um = margin + array_xy * (PITCH_UM / 2, row_step)
    covered = spot_means(tissue.tissue.astype(np.float32), xy_um)
    return Grid(array_xy, xy_um, covered >= _MIN_TISSUE)


def spot_means(
    field: npt.NDArray[np.floating], xy_um: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the mean ``(n,)`` of a field ``(h, w)`` over the discs of spots at ``xy_um``."""
    radius = SPOT_UM / 2 / FIELD_UM
    reach = int(np.ceil(radius))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (np.hypot(dx, dy) <= radius).astype(np.float64)
    mean = ndimage.convolve(field.astype(np.float64), disc / disc.sum(), mode="nearest")
    x, y = (xy_um / FIELD_UM - 0.5).T
    return np.asarray(ndimage.map_coordinates(mean, (y, x), order=1, mode="nearest"))


def expected_expression(
    programmes: Programmes,
    tissue: TissueMap,
    xy_um: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return expected expression ``(n_spots, n_genes)`` of spots, donor effect included.

    Parameters
    ----------
    programmes
        Genes and what drives them.
    tissue
        Hidden state of the section.
    xy_um
        ``(n_spots, 2)`` centres in microns.
    offsets
        ``(n_genes,)`` log offsets of donor and section.
    """
    fractions = np.stack([spot_means(field, xy_um) for field in tissue.fractions], axis=1)
    states = np.stack([spot_means(field, xy_um) for field in tissue.states], axis=1)
    return np.asarray(programmes.rates(fractions, states) * np.exp(offsets))


def donor_offsets(
    settings: TissueSettings, n_genes: int, *, section: str, donor: str, seed: int
) -> npt.NDArray[np.float64]:
    """Return log offsets ``(n_genes,)``: a donor's own, and a section's a third as large."""
    own = generator("donor", donor, seed).standard_normal(n_genes)
    batch = generator("batch", section, donor, seed).standard_normal(n_genes)
    return np.asarray(settings.donor_sigma * (own + batch / 3))


def draw_counts(
    expected: npt.NDArray[np.float64], settings: TissueSettings, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Return negative-binomial counts ``(n_spots, n_genes)``, int32 CSR without stored zeros.

    The median spot has ``settings.library_size`` counts; a spot's depth follows its cellularity
    and a log-normal capture efficiency.
    """
    totals = expected.sum(axis=1)
    scale = settings.library_size / np.median(totals)
    efficiency = rng.lognormal(0.0, settings.library_sigma, len(expected))
    mean = expected * scale * efficiency[:, None]
    if settings.dispersion > 0:
        shape = 1.0 / settings.dispersion
        mean = mean * rng.gamma(shape, settings.dispersion, mean.shape)
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.int32))
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts


def log_expected(expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return log1p CP10k ``(n_spots, n_genes)`` of expected expression: the noise-free truth."""
    share = expected / expected.sum(axis=1, keepdims=True)
    return np.asarray(np.log1p(CP10K * share), dtype=np.float32)
