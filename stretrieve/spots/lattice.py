"""Size of a pixel from the known physical layout of a spot array.

Pixels are ``xy = A · p + t`` with ``p`` the physical position on the array in microns. The array lies
on the slide rigidly (rotated, mirrored), so the rows of ``A`` are ``1/mpp_x`` and ``1/mpp_y`` times
unit vectors, and their lengths give both sizes, also for pixels that are not square. Spots are printed
with errors of about half a per cent of the pitch's scale; sizes closer than 2 % count as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import MppError, explain
from stretrieve.units import Mpp, MppSource, PixelSize

_MIN_SPOTS: Final = 6
_PARITY: Final = 0.98
_MAX_RESIDUAL: Final = 0.25
_MAX_SKEW: Final = 0.1
_ROUNDS: Final = 20
_SQUARE: Final = 0.02
_MAX_RATIO: Final = 1.25

_REMEDY: Final = "give mpp in the sheet or with --mpp"


@dataclass(frozen=True, slots=True)
class Lattice:
    """Physical layout of a spot array.

    Parameters
    ----------
    unit_um
        Microns per step of the array coordinates, (column, row).
    pitch_um
        Distance of neighbouring spots.
    """

    unit_um: tuple[float, float]
    pitch_um: float


ST_1K: Final = Lattice((200.0, 200.0), 200.0)
ST_2K: Final = Lattice((100.0, 100.0), 141.4)
VISIUM: Final = Lattice((50.0, 100.0 * 3**0.5 / 2), 100.0)


def square_lattice(bin_um: float) -> Lattice:
    """Return the layout of bins of ``bin_um`` microns side (Visium HD)."""
    return Lattice((bin_um, bin_um), bin_um)


def st_lattice(array_xy: npt.NDArray[np.float64]) -> Lattice:
    """Tell the 1k from the interleaved 2k array of Spatial Transcriptomics.

    Parameters
    ----------
    array_xy
        ``(n_spots, 2)`` positions on the array.
    """
    return ST_2K if is_interleaved(array_xy) else ST_1K


def is_interleaved(array_xy: npt.NDArray[np.float64]) -> bool:
    """Say whether column + row of (nearly) all spots has one parity, as on the 2k array."""
    parity = np.round(array_xy).sum(axis=1) % 2
    share = float(parity.mean()) if len(parity) else 0.5
    return max(share, 1 - share) >= _PARITY


def pixel_size_from_lattice(
    xy: npt.NDArray[np.float64], array_xy: npt.NDArray[np.float64], lattice: Lattice
) -> PixelSize:
    """Return the size of a level-0 pixel by a robust fit of pixels against array coordinates.

    Parameters
    ----------
    xy
        ``(n_spots, 2)`` spot centres in level-0 px.
    array_xy
        ``(n_spots, 2)`` positions on the array, (column, row).
    lattice
        Physical layout of the array.

    Raises
    ------
    MppError
        When there are too few spots, they lie on one line, or they do not form the lattice.
    """
    if len(xy) < _MIN_SPOTS:
        raise _no_mpp(f"{len(xy)} spots", f"{_MIN_SPOTS} or more")
    physical = array_xy * lattice.unit_um
    spread = np.linalg.svd(physical - physical.mean(axis=0), compute_uv=False)
    if spread[-1] < min(lattice.unit_um):
        raise _no_mpp("spots on one line", "a grid")
    try:
        matrix, residuals = _robust_affine(physical, xy)
    except np.linalg.LinAlgError as error:
        raise _no_mpp(str(error), "a grid") from error
    lengths = np.linalg.norm(matrix, axis=0)
    if not (np.all(np.isfinite(lengths)) and np.all(lengths > 1e-9)):
        raise _no_mpp("spots in one place", "a grid")
    skew = abs(float(matrix[:, 0] @ matrix[:, 1])) / float(lengths.prod())
    off = float(np.median(residuals)) / (lattice.pitch_um * float(np.sqrt(lengths.prod())))
    ratio = float(lengths.max() / lengths.min())
    if skew > _MAX_SKEW or off > _MAX_RESIDUAL or ratio > _MAX_RATIO:
        raise _no_mpp(
            f"spots {off:.2f} pitches off the lattice, axes skewed by {skew:.2f}, scales {ratio:.2f}:1",
            "pixel coordinates that follow the array coordinates",
        )
    return _size(1 / lengths)


def _no_mpp(got: str, expected: str) -> MppError:
    return MppError(explain("mpp from the spot grid", got=got, expected=expected, remedy=_REMEDY))


def _size(mpp: npt.NDArray[np.float64]) -> PixelSize:
    """Take pixels as square unless the two sizes differ by more than printing errors explain."""
    mean = float(np.sqrt(mpp.prod()))
    if abs(float(mpp[0] / mpp[1]) - 1) < _SQUARE:
        return PixelSize.square(mean, MppSource.GRID)
    return PixelSize(Mpp(float(mpp[0])), Mpp(float(mpp[1])), MppSource.GRID)


def _robust_affine(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Fit ``target = source · M + t`` with Tukey weights; return M (2, 2) and residuals (n,) in px."""
    design = np.column_stack([source - source.mean(axis=0), np.ones(len(source))])
    weights = np.ones(len(source))
    solution = np.zeros((3, 2))
    residuals = np.zeros(len(source))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)[:, None]
        solution = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        residuals = np.linalg.norm(target - design @ solution, axis=1)
        scale = 1.4826 * float(np.median(residuals))
        if scale < 1e-9:
            break
        reach = np.clip(residuals / (4.685 * scale), 0, 1)
        updated = (1 - reach**2) ** 2
        if np.allclose(updated, weights, atol=1e-6):
            break
        weights = updated
    return solution[:2], residuals
