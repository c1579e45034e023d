"""Row groups: the parts in which a slide is predicted, written and, after an interruption, resumed.

Group boundaries depend on the number of patches and genes alone, so that batch size, threads and
interruptions change no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.embedders.base import Embeddings
from stretrieve.models.look import Looks
from stretrieve.slides.types import PatchStatus

MAX_ROWS: Final = 512
MIN_ROWS: Final = 16
_SMALL_ROWS: Final = 64
_GROUPS: Final = 4
"""Least number of groups of all but small slides: all but the last are predicted while others are
embedded."""
_MATRIX_BYTES: Final = 32 << 20
_BYTES_PER_VALUE: Final = 4


class RowStatus(StrEnum):
    """What a row of the output is worth."""

    OK = "ok"
    PADDED = "padded"
    """Part of the field of view lies outside the image and was filled with white."""
    OOD = "ood"
    """Unlike anything in the reference."""
    FAILED = "failed"
    """The pixels could not be read; the row holds no prediction."""


def power_of_two(number: int) -> int:
    """Return the largest power of two that is not above ``number`` (1 or more)."""
    return 1 << (number.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class Grouping:
    """How the rows of a slide are cut into groups.

    Parameters
    ----------
    n_rows
        Patches.
    rows
        Rows of every group but the last: a power of two.
    """

    n_rows: int
    rows: int

    @classmethod
    def of(cls, n_rows: int, n_genes: int) -> Grouping:
        """Choose groups whose matrices stay below a fixed size, and some of them."""
        fits = max(MIN_ROWS, _MATRIX_BYTES // (_BYTES_PER_VALUE * max(n_genes, 1)))
        some = max(_SMALL_ROWS, n_rows // _GROUPS)
        return cls(n_rows, min(MAX_ROWS, power_of_two(fits), power_of_two(some)))

    def __len__(self) -> int:
        return (self.n_rows + self.rows - 1) // self.rows

    def slice(self, number: int) -> slice:
        """Return the rows of a group."""
        return slice(number * self.rows, min((number + 1) * self.rows, self.n_rows))

    def batch_rows(self, batch_size: int) -> int:
        """Return the batch size in use: a power of two that divides a group, 16 or more."""
        return min(self.rows, max(MIN_ROWS, power_of_two(batch_size)))


@dataclass(frozen=True)
class EncodedGroup:
    """What a network made of the patches of one group.

    Parameters
    ----------
    number
        Which group.
    values
        ``(n_readable, width)`` features, or embeddings once projected.
    status
        ``(n_rows,)`` values of :class:`~stretrieve.slides.types.PatchStatus`; rows that failed have
        no values.
    looks
        ``(n_readable, 29)`` what the patches look like, where the reference can be compared by it.
    """

    number: int
    values: Embeddings
    status: npt.NDArray[np.uint8]
    looks: Looks | None = None

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """``(n_rows,)`` which patches have values."""
        return np.asarray(self.status != PatchStatus.FAILED)


@dataclass(frozen=True)
class RowGroup:
    """Predictions for one group; rows that failed hold NaN and no neighbours.

    Parameters
    ----------
    number
        Which group.
    matrices
        ``X`` and the layers by name, each ``(n_rows, n_genes)`` float32.
    columns
        ``obs`` columns by name, each ``(n_rows,)``.
    embeddings
        ``(n_rows, dim)`` float32.
    neighbours
        ``(n_rows, top_k)`` positions in the reference, −1 for none.
    weights
        ``(n_rows, top_k)``.
    smoothed
        ``(n_rows, dim)`` embeddings that a regression read, where they differ.
    """

    number: int
    matrices: dict[str, npt.NDArray[np.float32]]
    columns: dict[str, npt.NDArray[np.float64] | npt.NDArray[np.str_]]
    embeddings: Embeddings
    neighbours: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    smoothed: Embeddings | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What the output keeps of each row beside columns and matrices, by name."""
        arrays: dict[str, npt.NDArray[Any]] = {
            keys.JOINT: self.embeddings,
            keys.NEIGHBOURS: self.neighbours,
            keys.WEIGHTS: self.weights,
        }
        if self.smoothed is not None:
            arrays[keys.SMOOTHED] = self.smoothed
        return arrays
