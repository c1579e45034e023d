"""The hidden state of a simulated section: where which tissue is, and in which condition."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stretrieve.simulation._random import Field, generator, smooth_field
from stretrieve.simulation.settings import TissueSettings

FIELD_UM = 6.0
"""Spacing of the grid on which tissue is laid out."""


class Region(StrEnum):
    """Kinds of simulated tissue; the value is the prefix of its marker genes."""

    TUMOUR = "TUM"
    DUCT = "DUC"
    STROMA = "STR"
    FAT = "FAT"
    IMMUNE = "IMM"


class State(StrEnum):
    """Conditions that vary within the tissue; the value is the prefix of the genes they drive."""

    GRADE = "GRA"
    """Drives the size of tumour nuclei."""
    FIBROSIS = "FIB"
    """Drives the density of collagen."""
    HIDDEN = "HID"
    """Drives genes and nothing that can be seen; no predictor can find it in the image."""


REGIONS = tuple(Region)
STATES = tuple(State)

# region: (length scale in µm, threshold; higher = rarer, sharpness of the border)
_LAYOUT = {
    Region.TUMOUR: (85.0, 0.25, 7.0),
    Region.DUCT: (60.0, 1.15, 8.0),
    Region.STROMA: (200.0, 0.0, 0.0),
    Region.FAT: (200.0, 0.85, 9.0),
    Region.IMMUNE: (60.0, 0.95, 6.0),
}


@dataclass(frozen=True)
class TissueMap:
    """Hidden state on a grid of :data:`FIELD_UM` microns.

    Parameters
    ----------
    tissue
        ``(h, w)`` bool, inside the tissue.
    fractions
        ``(n_regions, h, w)`` share of each region in the order of :data:`REGIONS`; sums to 1 inside
        the tissue and to 0 outside.
    states
        ``(n_states, h, w)`` conditions in the order of :data:`STATES`, 0 to 1.
    """

    tissue: npt.NDArray[np.bool_]
    fractions: Field
    states: Field

    def fraction(self, region: Region) -> Field:
        """Return the share ``(h, w)`` of one region."""
        return np.asarray(self.fractions[REGIONS.index(region)])

    def state(self, state: State) -> Field:
        """Return one condition ``(h, w)``, 0 to 1."""
        return np.asarray(self.states[STATES.index(state)])


def lay_out(settings: TissueSettings, *, section: str, donor: str, seed: int) -> TissueMap:
    """Return the hidden state of one section.

    Parameters
    ----------
    settings
        Size of the slide.
    section, donor, seed
        Together they decide the layout; sections of one donor share the mix of regions.
    """
    shape = (round(settings.height_um / FIELD_UM), round(settings.width_um / FIELD_UM))
    rng = generator("layout", section, donor, seed)
    tissue = _outline(rng, shape)
    fractions = _fractions(rng, generator("mix", donor, seed), shape) * tissue
    states = np.stack([_unit(smooth_field(rng, shape, 170.0 / FIELD_UM)) for _ in STATES])
    return TissueMap(tissue, fractions.astype(np.float32), states.astype(np.float32))


def _unit(field: Field) -> Field:
    """Map a standard normal field to 0…1 with a nearly uniform distribution."""
    return np.asarray(1.0 / (1.0 + np.exp(-1.7 * field)), dtype=np.float32)


def _outline(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot((x - width / 2) / (0.46 * width), (y - height / 2) / (0.45 * height))
    large = smooth_field(rng, shape, min(shape) / 9)
    fine = smooth_field(rng, shape, min(shape) / 40)
    inside = radius + 0.07 * large + 0.02 * fine < 0.93
    edge = np.zeros(shape, dtype=bool)
    margin = max(2, round(0.02 * min(shape)))
    edge[margin:-margin, margin:-margin] = True
    labels, n = ndimage.label(inside & edge)
    sizes = ndimage.sum_labels(np.ones(shape), labels, np.arange(1, n + 1))
    return np.asarray(labels == 1 + int(np.argmax(sizes)), dtype=np.bool_)


def _fractions(
    rng: np.random.Generator, mix: np.random.Generator, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Return shares ``(n_regions, h, w)``: smooth fields through a softmax, stroma as the rest."""
    scores = []
    for region in REGIONS:
        scale_um, threshold, sharpness = _LAYOUT[region]
        field = smooth_field(rng, shape, scale_um / FIELD_UM)
        shift = 0.2 * mix.standard_normal()
        scores.append(sharpness * (field - threshold + shift))
    stacked = np.stack(scores)
    stacked -= stacked.max(axis=0)
    shares = np.exp(stacked)
    return np.asarray(shares / shares.sum(axis=0), dtype=np.float32)
