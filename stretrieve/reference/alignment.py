"""Do the spots of a section lie on its tissue? Measured against the same spots moved a little.

Spots chosen as under tissue fill the tissue. When the spot file belongs to the image, moving all spots
together can only lose tissue; when they gain clearly by moving, the file and the image do not fit. How
well counts follow the staining settles which of several equally good moves to report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from stretrieve.slides.tissue import TissueMask

MIN_ON_TISSUE: Final = 0.85
MIN_GAIN: Final = 0.05
MIN_SHIFT: Final = 1.0
SPOT_UM: Final = 100.0
_REACH: Final = 4.0
_STEP: Final = 0.5
_TIE: Final = 0.01
_MAX_SPOTS: Final = 5000


@dataclass(frozen=True, slots=True)
class Alignment:
    """How spots and tissue fit.

    Parameters
    ----------
    on_tissue
        Mean share of tissue under the spots, as they are.
    best_on_tissue
        The same after the best common move.
    shift
        That move in spot pitches, (x, y).
    shift_px
        The same in level-0 px.
    darkness
        Spearman correlation of staining under the spot with its total counts.
    best_darkness
        The same after the move.
    """

    on_tissue: float
    best_on_tissue: float
    shift: tuple[float, float]
    shift_px: tuple[float, float]
    darkness: float
    best_darkness: float

    @property
    def gain(self) -> float:
        """Share of tissue gained by the best move."""
        return self.best_on_tissue - self.on_tissue

    @property
    def is_shifted(self) -> bool:
        """Whether the spots would fit clearly better somewhere else."""
        return self.gain >= MIN_GAIN and float(np.hypot(*self.shift)) >= MIN_SHIFT

    @property
    def is_off_tissue(self) -> bool:
        """Whether many spots lie beside the tissue."""
        return self.on_tissue < MIN_ON_TISSUE


def measure_alignment(
    xy: npt.NDArray[np.float64],
    library_size: npt.ArrayLike,
    mask: TissueMask,
    thumbnail: npt.NDArray[np.uint8],
) -> Alignment:
    """Compare the spots as they are with the same spots moved by up to four pitches.

    A pitch counts as 100 µm at least, so that small bins are moved far enough. Of very many spots
    an evenly spaced part is looked at.

    Parameters
    ----------
    xy
        ``(n_spots, 2)`` centres in level-0 px.
    library_size
        ``(n_spots,)`` total counts.
    mask
        The tissue.
    thumbnail
        ``(height, width, 3)`` uint8 picture of the whole slide.
    """
    dimensions = np.asarray(mask.dimensions, dtype=np.float64)
    pitch = np.maximum(spot_pitch_px(xy), mask.pixel_size.to_px((SPOT_UM, SPOT_UM)))
    every = -(-len(xy) // _MAX_SPOTS)
    xy, library_size = xy[::every], np.asarray(library_size)[::every]
    steps = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    moves = np.array([(x, y) for y in steps for x in steps])
    spot_px = SPOT_UM / np.array([mask.pixel_size.x, mask.pixel_size.y])
    tissue = _smooth(mask.mask.astype(np.float32), spot_px, dimensions)
    on_tissue = np.array([_at(tissue, xy + m * pitch, dimensions).mean() for m in moves])
    stain = _smooth(255.0 - thumbnail.mean(axis=2), spot_px, dimensions)
    zero = int(np.flatnonzero(~moves.any(axis=1))[0])
    best = zero
    if on_tissue.max() - on_tissue[zero] > _TIE:
        ties = np.flatnonzero(on_tissue >= on_tissue.max() - _TIE)
        follow = [_follows(stain, xy + moves[i] * pitch, library_size, dimensions) for i in ties]
        best = int(ties[int(np.argmax(follow))])
    move = moves[best]
    return Alignment(
        on_tissue=float(on_tissue[zero]),
        best_on_tissue=float(on_tissue[best]),
        shift=(float(move[0]), float(move[1])),
        shift_px=(float(move[0] * pitch[0]), float(move[1] * pitch[1])),
        darkness=_follows(stain, xy, library_size, dimensions),
        best_darkness=_follows(stain, xy + move * pitch, library_size, dimensions),
    )


def spot_pitch_px(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median distance to the nearest other spot in level-0 px, as ``(2,)`` for x and y."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return np.ones(2)
    distance = cKDTree(xy).query(xy, k=2)[0][:, 1]
    return np.full(2, max(float(np.median(distance)), 1.0))


def _smooth(
    picture: npt.NDArray[np.floating], spot_px: npt.NDArray[np.float64], dimensions: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Average a picture of the whole slide over squares as large as a spot."""
    scale = np.array(picture.shape[::-1]) / np.asarray(dimensions)
    width, height = np.maximum(np.round(spot_px * scale), 1).astype(int)
    return np.asarray(
        ndimage.uniform_filter(
            np.asarray(picture, dtype=np.float64), (height, width), mode="nearest"
        )
    )


def _at(
    picture: npt.NDArray[np.float64], xy: npt.NDArray[np.float64], dimensions: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Look a picture of the whole slide up at level-0 px; outside is 0."""
    scale = np.array(picture.shape[::-1]) / np.asarray(dimensions)
    places = np.floor(xy * scale).astype(np.int64)
    inside = np.all((places >= 0) & (places < picture.shape[::-1]), axis=1)
    values = np.zeros(len(xy))
    values[inside] = picture[places[inside, 1], places[inside, 0]]
    return values


def _follows(
    stain: npt.NDArray[np.float64],
    xy: npt.NDArray[np.float64],
    library_size: npt.ArrayLike,
    dimensions: npt.ArrayLike,
) -> float:
    """Return the Spearman correlation of staining and total counts, 0 where either is constant."""
    one = stats.rankdata(_at(stain, xy, dimensions))
    two = stats.rankdata(np.asarray(library_size))
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])
