"""Size of a pixel from the known physical layout of a spot array.

Pixels are ``xy = A · p + t`` with ``p`` the physical position on the array in microns. The array lies
on the slide rigidly (rotated, mirrored), so the rows of ``A`` are ``1/mpp_x`` and ``1/mpp_y`` times
unit vectors, and their lengths give both sizes, also for pixels that are not square. Spots are printed
with errors of about half a per cent of the pitch's scale; sizes closer than 2 % count as one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import MppError, explain
from stretrieve.spots.raw import Lattice
from stretrieve.units import Mpp, MppSource, PixelSize

_MIN_SPOTS: Final = 6
_ST_PITCH_UM: Final = 200.0
_VISIUM_UM: Final = (50.0, 100.0 * np.sqrt(3) / 2)
_PARITY: Final = 0.98
_MAX_RESIDUAL: Final = 0.25
_ROUNDS: Final = 20
_SQUARE: Final = 0.02

_REMEDY: Final = "give mpp in the sheet or with --mpp"


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
        raise MppError(
            explain(
                "mpp from the spot grid",
                got=f"{len(xy)} spots",
                expected="6 or more",
                remedy=_REMEDY,
            )
        )
    unit = _unit_um(array_xy, lattice)
    physical = array_xy * unit
    centred = physical - physical.mean(axis=0)
    if np.linalg.svd(centred, compute_uv=False)[-1] < unit.min():
        raise MppError(
            explain(
                "mpp from the spot grid", got="spots on one line", expected="a grid", remedy=_REMEDY
            )
        )
    matrix, residuals = _robust_affine(physical, xy)
    lengths = np.linalg.norm(matrix, axis=0)
    if not (np.all(np.isfinite(lengths)) and np.all(lengths > 0)):
        raise MppError(
            explain(
                "mpp from the spot grid",
                got="spots in one place",
                expected="a grid",
                remedy=_REMEDY,
            )
        )
    _check_rigid(matrix, residuals, lengths, pitch_um=_pitch_um(unit, lattice))
    return _size(1 / lengths)


def _size(mpp: npt.NDArray[np.float64]) -> PixelSize:
    """Take pixels as square unless the two sizes differ by more than printing errors explain."""
    mean = float(np.sqrt(mpp.prod()))
    if abs(float(mpp[0] / mpp[1]) - 1) < _SQUARE:
        return PixelSize.square(mean, MppSource.GRID)
    return PixelSize(Mpp(float(mpp[0])), Mpp(float(mpp[1])), MppSource.GRID)


def is_interleaved(array_xy: npt.NDArray[np.float64]) -> bool:
    """Say whether spots form the 2k array: column + row of (nearly) all spots has one parity."""
    parity = np.round(array_xy).sum(axis=1).astype(np.int64) % 2
    share = float(parity.mean())
    return max(share, 1 - share) >= _PARITY


def _unit_um(array_xy: npt.NDArray[np.float64], lattice: Lattice) -> npt.NDArray[np.float64]:
    if lattice is Lattice.VISIUM:
        return np.array(_VISIUM_UM)
    if lattice is Lattice.SQUARE_UM:
        return np.ones(2)
    step = _ST_PITCH_UM / 2 if is_interleaved(array_xy) else _ST_PITCH_UM
    return np.array([step, step])


def _pitch_um(unit: npt.NDArray[np.float64], lattice: Lattice) -> float:
    return 100.0 if lattice is Lattice.VISIUM else float(unit.max())


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


def _check_rigid(
    matrix: npt.NDArray[np.float64],
    residuals: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.float64],
    *,
    pitch_um: float,
) -> None:
    skew = abs(float(matrix[:, 0] @ matrix[:, 1])) / float(lengths.prod())
    off = float(np.median(residuals)) / (pitch_um * float(np.sqrt(lengths.prod())))
    if skew > 0.1 or off > _MAX_RESIDUAL:
        raise MppError(
            explain(
                "mpp from the spot grid",
                got=f"spots {off:.2f} pitches off the lattice, axes skewed by {skew:.2f}",
                expected="pixel coordinates that follow the array coordinates",
                remedy=_REMEDY,
            )
        )
