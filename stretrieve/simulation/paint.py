"""The picture of a simulated section: eosin texture, fat, lumens, nuclei, stain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from stretrieve.simulation._random import Field, generator, resize, smooth_field
from stretrieve.simulation.nuclei import paint_nuclei, scatter_nuclei
from stretrieve.simulation.settings import TissueSettings
from stretrieve.simulation.tissue import FIELD_UM, Region, State, TissueMap

_TEXTURE_UM = 1.5
_HAEMATOXYLIN = (0.5626, 0.7201, 0.4062)
_EOSIN = (0.2159, 0.8012, 0.5581)


@dataclass(frozen=True, slots=True)
class Stain:
    """Colour of a donor's slides.

    Parameters
    ----------
    haematoxylin, eosin
        Unit optical-density vectors (red, green, blue).
    strengths
        Factors on the optical density of haematoxylin and eosin.
    background
        Colour of bare glass, 0 to 255.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    strengths: tuple[float, float]
    background: tuple[float, float, float]


def donor_stain(settings: TissueSettings, *, donor: str, seed: int) -> Stain:
    """Return the stain of a donor: directions, strengths and glass vary as between laboratories."""
    rng = generator("stain", donor, seed)
    vectors = []
    for base in (_HAEMATOXYLIN, _EOSIN):
        moved = np.clip(np.asarray(base) + settings.stain_shift * rng.normal(0, 0.06, 3), 0.02, 1)
        red, green, blue = (moved / np.linalg.norm(moved)).tolist()
        vectors.append((red, green, blue))
    haematoxylin, eosin = np.exp(settings.stain_shift * rng.normal(0, 0.16, 2)).tolist()
    red, green, blue = (244.0 + settings.stain_shift * rng.normal(0, 2.5, 3)).tolist()
    return Stain(vectors[0], vectors[1], (haematoxylin, eosin), (red, green, blue))


def paint(
    settings: TissueSettings, tissue: TissueMap, stain: Stain, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return the slide's level-0 pixels ``(height, width, 3)``, uint8 RGB.

    Parameters
    ----------
    settings
        Size and resolution of the slide.
    tissue
        Hidden state: every visible feature follows it.
    stain
        Colours.
    rng
        Source of everything that is not tissue: positions, texture, noise.
    """
    size = settings.size_px
    fibre_angle, fibres = _fibres(settings, rng)
    lumen, vacuoles = _lumens(tissue, rng), _vacuoles(settings, tissue, rng)
    nuclei = scatter_nuclei(
        settings, tissue, rng, empty=lumen > 0.5, fibre_angle=_on_grid(fibre_angle, tissue)
    )
    haematoxylin = paint_nuclei(nuclei, size, settings.mpp)
    eosin = resize(_eosin(tissue, fibres, rng), size)
    space = resize(np.maximum(resize(lumen, fibres.shape[::-1]), vacuoles), size)
    solid = np.clip(1.0 - 1.3 * space, 0.0, 1.0)
    cover = _cover(tissue, size)
    basophilia = resize(
        0.15 * tissue.fraction(Region.TUMOUR) + 0.08 * tissue.fraction(Region.IMMUNE) + 0.04, size
    )
    haematoxylin *= solid * cover
    haematoxylin += basophilia * solid * cover
    eosin *= (0.04 + 0.96 * solid) * cover
    eosin *= 1.0 - 0.85 * np.minimum(haematoxylin, 1.0)
    return _expose(haematoxylin, eosin, stain, rng)


def _cover(tissue: TissueMap, size: tuple[int, int]) -> Field:
    """Return 1 on tissue and 0 beside it, with a smooth and slightly frayed edge."""
    soft = ndimage.gaussian_filter(tissue.tissue.astype(np.float32), 1.2)
    return np.asarray(np.clip((resize(soft, size) - 0.42) * 6.0, 0.0, 1.0), dtype=np.float32)


def _texture_shape(settings: TissueSettings) -> tuple[int, int]:
    return round(settings.height_um / _TEXTURE_UM), round(settings.width_um / _TEXTURE_UM)


def _on_grid(field: Field, tissue: TissueMap) -> Field:
    height, width = tissue.tissue.shape
    return resize(field, (width, height))


def _fibres(settings: TissueSettings, rng: np.random.Generator) -> tuple[Field, Field]:
    """Return the direction and the density (0 to about 1) of wavy fibres on the texture grid."""
    shape = _texture_shape(settings)
    coarse = tuple(max(8, side // 8) for side in shape)
    bend, turn = (
        resize(smooth_field(rng, (coarse[0], coarse[1]), um / (8 * _TEXTURE_UM)), shape[::-1])
        for um in (85.0, 260.0)
    )
    noise = rng.standard_normal(shape, dtype=np.float32)
    strands = ndimage.gaussian_filter(noise, (1.0, 8.0), mode="wrap")
    bundles = ndimage.gaussian_filter(noise[::-1], (3.0, 18.0), mode="wrap")
    pattern = strands / strands.std() + 0.7 * bundles / bundles.std()
    # the pattern runs along level lines of (across, along): bent and slowly turning
    main = rng.uniform(0.0, np.pi)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    across = y * np.cos(main) - x * np.sin(main) + (38.0 * bend + 110.0 * turn) / _TEXTURE_UM
    along = x * np.cos(main) + y * np.sin(main)
    warped = ndimage.map_coordinates(pattern, (across, along), order=1, mode="grid-wrap")
    slope_y, slope_x = np.gradient(across)
    angle = np.arctan2(-slope_x, slope_y)
    density = 1.0 / (1.0 + np.exp(-0.95 * warped))
    return angle.astype(np.float32), density.astype(np.float32)


def _lumens(tissue: TissueMap, rng: np.random.Generator) -> Field:
    """Return the openings of ducts ``(h, w)`` on the tissue grid, 0 to 1."""
    duct = tissue.fraction(Region.DUCT) > 0.5
    depth = ndimage.distance_transform_edt(duct) * FIELD_UM
    wall = 20.0 + 3.0 * smooth_field(rng, tissue.tissue.shape, 3.0)
    return np.asarray(1.0 / (1.0 + np.exp(-(depth - wall) / 2.5)), dtype=np.float32)


def _vacuoles(settings: TissueSettings, tissue: TissueMap, rng: np.random.Generator) -> Field:
    """Return fat vacuoles on the texture grid, 0 to 1: rounded cells with thin walls."""
    shape = _texture_shape(settings)
    side = 48.0 / _TEXTURE_UM
    rows, cols = int(shape[0] / side) + 2, int(shape[1] / side) + 2
    centres = np.argwhere(np.ones((rows, cols), dtype=bool)).astype(np.float64)
    centres[:, 1] += 0.5 * (centres[:, 0] % 2)
    centres = (centres + rng.uniform(-0.3, 0.3, centres.shape)) * side
    half = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    points = 2.0 * np.argwhere(np.ones(half, dtype=bool))
    near = np.asarray(cKDTree(centres).query(points, k=2)[0])
    wall_um = (near[:, 1] - near[:, 0]).reshape(half) * _TEXTURE_UM
    cells = 1.0 / (1.0 + np.exp(-(wall_um - 4.5) / 1.4))
    fat = resize(tissue.fraction(Region.FAT), shape[::-1])
    shown = 1.0 / (1.0 + np.exp(-(fat - 0.5) * 14.0))
    return np.asarray(resize(cells, shape[::-1]) * shown, dtype=np.float32)


def _eosin(tissue: TissueMap, fibres: Field, rng: np.random.Generator) -> Field:
    """Return eosin optical density on the texture grid."""
    size = (fibres.shape[1], fibres.shape[0])
    fibrosis = tissue.state(State.FIBROSIS)
    stroma = tissue.fraction(Region.STROMA) + 0.5 * tissue.fraction(Region.FAT)
    cells = np.zeros_like(stroma)
    for region, pink in ((Region.TUMOUR, 0.30), (Region.DUCT, 0.34), (Region.IMMUNE, 0.22)):
        cells += pink * tissue.fraction(region)
    grain = rng.standard_normal(fibres.shape, dtype=np.float32)
    grain = 1.0 + 0.22 * ndimage.gaussian_filter(grain, 1.6) / 0.18
    # loose stroma: thin pale strands with gaps; fibrosis: dense, smooth bundles of the same colour
    contrast = resize(1.1 - 0.75 * fibrosis, size)
    level = resize((0.22 + 0.16 * fibrosis) * stroma, size)
    strands = np.clip(1.0 + contrast * (1.8 * fibres - 0.9), 0.05, 2.2)
    clumps = 1.0 + 0.12 * resize(smooth_field(rng, tissue.tissue.shape, 4.0), size)
    return np.asarray((level * strands + resize(cells, size) * np.clip(grain, 0.4, 1.6)) * clumps)


def _expose(
    haematoxylin: Field, eosin: Field, stain: Stain, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Turn optical densities into pixels (Beer-Lambert), with the blur and noise of a scanner."""
    haematoxylin = ndimage.gaussian_filter(haematoxylin, 0.6) * stain.strengths[0]
    eosin = eosin * stain.strengths[1]
    grain = 1.6 * rng.standard_normal(haematoxylin.shape, dtype=np.float32)
    out = np.empty((*haematoxylin.shape, 3), dtype=np.uint8)
    for channel in range(3):
        density = haematoxylin * stain.haematoxylin[channel] + eosin * stain.eosin[channel]
        light = stain.background[channel] * np.power(10.0, -density, dtype=np.float32)
        out[..., channel] = np.clip(light + grain, 0, 255).astype(np.uint8)
    return out
