"""Nuclei: where they are, what they look like, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve.simulation._random import Field
from stretrieve.simulation.settings import TissueSettings
from stretrieve.simulation.tissue import FIELD_UM, REGIONS, Region, State, TissueMap

_CELL_UM = 6.2
_N_ANGLES = 12
_N_RADII = 16
_MIN_RADIUS_UM = 1.6
_MAX_RADIUS_UM = 7.0


@dataclass(frozen=True, slots=True)
class _Look:
    """How nuclei of a region look: density per mm², radius in µm, elongation, haematoxylin OD."""

    density: float
    radius_um: float
    elongation: float
    darkness: float


# Tumour and immune tissue hold nearly the same haematoxylin per area in different portions, so that
# mean colour alone cannot tell them apart.
_LOOKS = {
    Region.TUMOUR: _Look(6800.0, 4.1, 1.15, 0.66),
    Region.DUCT: _Look(9500.0, 3.4, 1.35, 0.72),
    Region.STROMA: _Look(1500.0, 2.6, 3.2, 0.85),
    Region.FAT: _Look(260.0, 2.4, 2.2, 0.80),
    Region.IMMUNE: _Look(15500.0, 2.5, 1.0, 1.0),
}


@dataclass(frozen=True)
class Nuclei:
    """All nuclei of a section.

    Parameters
    ----------
    xy_um
        ``(n, 2)`` centres in microns.
    radius_um
        ``(n,)`` radius of the circle of equal area.
    elongation
        ``(n,)`` long axis over short axis.
    angle
        ``(n,)`` direction of the long axis in radians.
    darkness
        ``(n,)`` haematoxylin optical density.
    """

    xy_um: npt.NDArray[np.float64]
    radius_um: npt.NDArray[np.float64]
    elongation: npt.NDArray[np.float64]
    angle: npt.NDArray[np.float64]
    darkness: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.xy_um)


def scatter_nuclei(
    settings: TissueSettings,
    tissue: TissueMap,
    rng: np.random.Generator,
    *,
    empty: npt.NDArray[np.bool_],
    fibre_angle: Field,
) -> Nuclei:
    """Place nuclei on a jittered lattice, as densely as each region asks.

    Parameters
    ----------
    settings
        Size of the slide.
    tissue
        Hidden state of the section.
    rng
        Source of randomness.
    empty
        ``(h, w)`` mask on the tissue grid of places without cells (lumens, fat vacuoles).
    fibre_angle
        ``(h, w)`` direction of the fibres in radians; spindle nuclei follow it.
    """
    xy_um = _lattice(settings, rng)
    rows, cols = _lookup(xy_um, tissue.tissue.shape)
    density = np.asarray([_LOOKS[region].density for region in REGIONS])
    rate = tissue.fractions[:, rows, cols].T * density * (_CELL_UM**2 * 1e-6)
    rate[empty[rows, cols]] = 0.0
    cumulative = np.cumsum(rate, axis=1)
    draw = rng.random(len(xy_um))
    keep = draw < cumulative[:, -1]
    kind = (draw[keep, None] > cumulative[keep]).sum(axis=1)
    rows, cols = rows[keep], cols[keep]
    grade = tissue.state(State.GRADE)[rows, cols]
    return _shape(xy_um[keep], kind, grade, fibre_angle[rows, cols], rng)


def _lattice(settings: TissueSettings, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    x = np.arange(_CELL_UM / 2, settings.width_um, _CELL_UM)
    y = np.arange(_CELL_UM / 2, settings.height_um, _CELL_UM)
    xy = np.stack(np.meshgrid(x, y), axis=-1)
    xy[1::2, :, 0] += _CELL_UM / 2
    flat = xy.reshape(-1, 2) + rng.uniform(-0.42, 0.42, (xy.size // 2, 2)) * _CELL_UM
    return np.asarray(np.clip(flat, 0.0, (settings.width_um - 1e-3, settings.height_um - 1e-3)))


def _lookup(
    xy_um: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    cols, rows = (xy_um / FIELD_UM).astype(np.int64).T
    return np.minimum(rows, shape[0] - 1), np.minimum(cols, shape[1] - 1)


def _shape(
    xy_um: npt.NDArray[np.float64],
    kind: npt.NDArray[np.int64],
    grade: Field,
    fibre: Field,
    rng: np.random.Generator,
) -> Nuclei:
    n = len(xy_um)
    looks = [_LOOKS[region] for region in REGIONS]
    radius, elongation, darkness = (
        np.asarray([getattr(look, name) for look in looks])[kind]
        for name in ("radius_um", "elongation", "darkness")
    )
    tumour = kind == REGIONS.index(Region.TUMOUR)
    spread = np.where(tumour, 0.10 + 0.14 * grade, 0.10)
    # larger nuclei are paler: the mean colour of a tumour says little about its grade
    swelling = np.where(tumour, 0.86 + 0.42 * grade, 1.0)
    radius = radius * swelling * np.exp(spread * rng.standard_normal(n))
    darkness = darkness / np.where(tumour, swelling**1.6, 1.0)
    darkness = darkness * np.exp(0.12 * rng.standard_normal(n))
    spindle = np.isin(kind, [REGIONS.index(Region.STROMA), REGIONS.index(Region.FAT)])
    angle = np.where(spindle, fibre + 0.25 * rng.standard_normal(n), rng.uniform(0.0, np.pi, n))
    return Nuclei(xy_um, radius, elongation * rng.uniform(0.9, 1.15, n), angle, darkness)


def paint_nuclei(nuclei: Nuclei, size_px: tuple[int, int], mpp: float) -> Field:
    """Return haematoxylin optical density ``(height, width)`` of all nuclei.

    Parameters
    ----------
    nuclei
        What to paint.
    size_px
        Width and height of the slide in level-0 px.
    mpp
        Microns per level-0 pixel.
    """
    width, height = size_px
    reach = int(np.ceil(_MAX_RADIUS_UM * 2.0 / mpp)) + 2
    canvas = np.zeros((height + 2 * reach, width + 2 * reach), dtype=np.float32)
    stamps: dict[tuple[int, int, int], Field] = {}
    for key, x, y, dark in _placements(nuclei, mpp):
        stamp = stamps.get(key)
        if stamp is None:
            stamp = stamps[key] = _stamp(key, mpp)
        half = stamp.shape[0] // 2
        top, left = y + reach - half, x + reach - half
        window = canvas[top : top + stamp.shape[0], left : left + stamp.shape[1]]
        np.maximum(window, stamp * dark, out=window)
    return canvas[reach:-reach, reach:-reach]


def _placements(
    nuclei: Nuclei, mpp: float
) -> list[tuple[tuple[int, int, int], int, int, np.float32]]:
    low, high = np.log(_MIN_RADIUS_UM), np.log(_MAX_RADIUS_UM)
    radius = np.log(np.clip(nuclei.radius_um, _MIN_RADIUS_UM, _MAX_RADIUS_UM))
    size = np.rint((radius - low) / (high - low) * (_N_RADII - 1)).astype(int).tolist()
    stretch = np.clip(np.rint(nuclei.elongation * 4), 4, 15).astype(int).tolist()
    turn = (np.rint(nuclei.angle / np.pi * _N_ANGLES).astype(int) % _N_ANGLES).tolist()
    x, y = (nuclei.xy_um / mpp).astype(int).T.tolist()
    dark = nuclei.darkness.astype(np.float32)
    return list(zip(zip(size, stretch, turn, strict=True), x, y, dark, strict=True))


def _stamp(key: tuple[int, int, int], mpp: float) -> Field:
    """Return one nucleus ``(side, side)`` with a rim and two clumps of chromatin, peak about 1."""
    size, stretch, turn = key
    low, high = np.log(_MIN_RADIUS_UM), np.log(_MAX_RADIUS_UM)
    radius = np.exp(low + (high - low) * size / (_N_RADII - 1)) / mpp
    ratio = np.sqrt(stretch / 4.0)
    angle = turn / _N_ANGLES * np.pi
    half = int(np.ceil(radius * ratio)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    along = (x * np.cos(angle) + y * np.sin(angle)) / (radius * ratio)
    across = (-x * np.sin(angle) + y * np.cos(angle)) / (radius / ratio)
    distance = np.hypot(along, across)
    edge = max(0.7 / radius, 0.12)
    body = 1.0 / (1.0 + np.exp((distance - 1.0) / (edge / 2)))
    rim = np.exp(-(((distance - 0.85) / 0.22) ** 2))
    clumps = sum(
        np.exp(-((along - cx) ** 2 + (across - cy) ** 2) / 0.06)
        for cx, cy in ((0.35, 0.2), (-0.4, -0.1), (0.0, -0.4))
    )
    return np.asarray(body * (0.66 + 0.26 * rim + 0.22 * clumps), dtype=np.float32)
