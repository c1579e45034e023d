"""One simulated section: picture, counts, and the truth behind both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve.errors import ConfigError, explain
from stretrieve.simulation import counts as spots
from stretrieve.simulation._random import generator
from stretrieve.simulation.paint import donor_stain, paint
from stretrieve.simulation.programmes import make_programmes
from stretrieve.simulation.settings import TissueSettings
from stretrieve.simulation.tissue import REGIONS, TissueMap, lay_out
from stretrieve.spots.section import Section, SectionMeta
from stretrieve.units import MppSource, PixelSize

_BASES = np.asarray(list("ACGT"))


@dataclass(frozen=True)
class SimulatedSection:
    """A section that was made up, with everything that decided it.

    Parameters
    ----------
    section
        Counts and spots under tissue, in the form that readers give real ones.
    image
        ``(height, width, 3)`` uint8 RGB, level 0.
    truth
        ``(n_spots, n_genes)`` noise-free log1p CP10k: what a perfect predictor would say.
    gene_group
        ``(n_genes,)`` what drives each gene (see :class:`~stretrieve.simulation.Programmes`).
    region
        ``(n_spots,)`` the region that covers most of the spot.
    grid
        All spots of the capture area, also those beside the tissue.
    tissue
        Hidden state that decided picture and counts.
    """

    section: Section
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.float32]
    gene_group: npt.NDArray[np.str_]
    region: npt.NDArray[np.str_]
    grid: spots.Grid
    tissue: TissueMap

    @property
    def barcodes(self) -> npt.NDArray[np.str_]:
        """``(n_grid,)`` barcodes of all spots of the capture area."""
        return make_barcodes(len(self.grid.array_xy))


def simulate_section(
    name: str, *, donor: str, seed: int = 0, settings: TissueSettings | None = None
) -> SimulatedSection:
    """Make a section whose picture and counts follow the same hidden tissue.

    Parameters
    ----------
    name
        Name of the section; another name gives another piece of the donor's tissue.
    donor
        Name of the donor; sections of one donor share stain, mix of tissues and expression offsets.
    seed
        Seed of the whole cohort; the same arguments give the same section, bit for bit.
    settings
        Size, resolution and noise.

    Raises
    ------
    ConfigError
        When a name is empty.

    Notes
    -----
    Simulated tissue is for the demo, the tests and the documentation. Results on it say that the
    software works, not how well a method predicts real tissue.
    """
    if not name or not donor:
        raise ConfigError(explain("simulated section", got="an empty name", expected="two names"))
    settings = settings or TissueSettings()
    tissue = lay_out(settings, section=name, donor=donor, seed=seed)
    grid = spots.visium_grid(settings, tissue)
    programmes = make_programmes(settings.panel_seed)
    offsets = spots.donor_offsets(
        settings, len(programmes.genes), section=name, donor=donor, seed=seed
    )
    xy_um = grid.xy_um[grid.in_tissue]
    expected = spots.expected_expression(programmes, tissue, xy_um, offsets)
    counts = spots.draw_counts(expected, settings, generator("counts", name, donor, seed))
    stain = donor_stain(settings, donor=donor, seed=seed)
    image = paint(settings, tissue, stain, generator("picture", name, donor, seed))
    section = Section(
        meta=SectionMeta(name, donor, "simulated", "simulated", "visium", "simulated"),
        counts=counts,
        genes=programmes.genes,
        spot_ids=make_barcodes(len(grid.array_xy))[grid.in_tissue],
        xy=np.rint(xy_um / settings.mpp),
        array_xy=grid.array_xy[grid.in_tissue].astype(np.float64),
        pixel_size=PixelSize.square(settings.mpp, MppSource.FILE),
    )
    shares = np.stack([spots.spot_means(field, xy_um) for field in tissue.fractions], axis=1)
    region = np.asarray([str(r) for r in REGIONS])[shares.argmax(axis=1)]
    truth = spots.log_expected(expected)
    return SimulatedSection(section, image, truth, programmes.group, region, grid, tissue)


def make_barcodes(n: int) -> npt.NDArray[np.str_]:
    """Return ``n`` unique barcodes of sixteen bases and ``-1``, always the same."""
    rng = generator("barcodes")
    codes: dict[str, None] = {}
    while len(codes) < n:
        for row in _BASES[rng.integers(0, 4, (n, 16))]:
            codes["".join(row) + "-1"] = None
    return np.asarray(list(codes)[:n])
