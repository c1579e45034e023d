"""The whole slide in one small picture, read block by block."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stretrieve._logging import get_logger
from stretrieve.errors import SlideError, explain
from stretrieve.slides.geometry import choose_level, plan_boxes
from stretrieve.slides.limits import MAX_OVERVIEW_PX, MAX_READ_PX
from stretrieve.slides.pool import ReaderPool

_log = get_logger(__name__)
_BLOCK_PX: Final = 2048
_SMALLEST_PX: Final = 256
_MAX_DEAD: Final = 256
_TOLERATED: Final = 8


class _Block(NamedTuple):
    """Rows and columns of the picture, and how many level pixels one of its pixels takes."""

    top: int
    bottom: int
    left: int
    right: int


def read_overview(pool: ReaderPool, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return the slide at ``size`` (width, height) as ``(height, width, 3)`` RGB.

    A block that cannot be read is read again in quarters; what remains unreadable is white.

    Parameters
    ----------
    pool
        The slide's readers.
    size
        Size of the picture.

    Raises
    ------
    SlideError
        When the picture is too large or too much of the slide cannot be read.
    """
    width, height = size
    if width < 1 or height < 1 or width * height > MAX_READ_PX:
        raise SlideError(
            explain("overview", got=f"{width} x {height} px", expected=f"1 to {MAX_READ_PX} px")
        )
    _check_cost(pool, size)
    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    step = max(1, int(_BLOCK_PX / _level_px(pool, size)))
    todo = deque(
        _Block(top, min(top + step, height), left, min(left + step, width))
        for top in range(0, height, step)
        for left in range(0, width, step)
    )
    n_dead = 0
    n_read = 0
    reason = ""
    while todo:
        block = todo.popleft()
        fault = _read_block(pool, picture, block)
        if fault is None:
            n_read += 1
            continue
        reason = fault
        quarters = [] if pool.header.whole_px else _quarters(block, _level_px(pool, size))
        todo += quarters
        n_dead += not quarters
        if n_dead > _MAX_DEAD or n_dead > max(_TOLERATED, n_read):
            break
    if n_dead:
        _report(pool, n_dead, n_read, reason)
    return picture


def shrink_picture(picture: npt.NDArray[np.uint8], max_px: int) -> npt.NDArray[np.uint8]:
    """Return an RGB picture with no side longer than ``max_px``, by averaging pixels.

    Parameters
    ----------
    picture
        ``(height, width, 3)``.
    max_px
        Longest side wanted; a smaller picture is returned as it is.
    """
    from PIL import Image

    height, width = picture.shape[:2]
    shrink = max(height, width) / max_px
    if shrink <= 1:
        return picture
    size = max(1, round(width / shrink)), max(1, round(height / shrink))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def _check_cost(pool: ReaderPool, size: tuple[int, int]) -> None:
    full = pool.header.levels[0]
    level = choose_level(pool.header.downsamples, min(full[0] / size[0], full[1] / size[1]))
    width, height = pool.header.levels[level]
    if width * height > MAX_OVERVIEW_PX:
        raise SlideError(
            explain(
                f"slide {str(pool.path)!r}",
                got=f"{width} x {height} px to read for an overview",
                expected=f"at most {MAX_OVERVIEW_PX} px",
                remedy="the slide has no coarser level; convert it to a pyramidal TIFF",
            )
        )


def _level_px(pool: ReaderPool, size: tuple[int, int]) -> float:
    """Pixels of the level that is read along one pixel of the picture."""
    full = pool.header.levels[0]
    scales = (full[0] / size[0], full[1] / size[1])
    level = choose_level(pool.header.downsamples, min(scales))
    return max(scales) / pool.header.downsamples[level]


def _read_block(pool: ReaderPool, picture: npt.NDArray[np.uint8], block: _Block) -> str | None:
    height, width = picture.shape[:2]
    full_width, full_height = pool.header.levels[0]
    box = np.array(
        [
            [
                block.left * full_width / width,
                block.top * full_height / height,
                block.right * full_width / width,
                block.bottom * full_height / height,
            ]
        ]
    )
    shape = (block.right - block.left, block.bottom - block.top)
    jobs = plan_boxes(box, shape, pool.header.downsamples)
    out = np.empty((shape[1], shape[0], 3), dtype=np.uint8)
    failed = pool.run(jobs, [out], retries=0)
    if failed:
        return failed[0]
    picture[block.top : block.bottom, block.left : block.right] = out
    return None


def _quarters(block: _Block, level_px: float) -> list[_Block]:
    """Cut a block in four; an empty list when it is small already."""
    rows, columns = block.bottom - block.top, block.right - block.left
    if max(rows, columns) == 1 or max(rows, columns) * level_px <= _SMALLEST_PX:
        return []
    middle, centre = block.top + (rows + 1) // 2, block.left + (columns + 1) // 2
    parts = [
        _Block(top, bottom, left, right)
        for top, bottom in ((block.top, middle), (middle, block.bottom))
        for left, right in ((block.left, centre), (centre, block.right))
    ]
    return [part for part in parts if part.bottom > part.top and part.right > part.left]


def _report(pool: ReaderPool, n_dead: int, n_read: int, reason: str) -> None:
    what = f"slide {str(pool.path)!r}"
    if n_dead > _MAX_DEAD or n_dead > max(_TOLERATED, n_read) or not n_read:
        raise SlideError(explain(what, got=f"pixels that cannot be read ({reason})"))
    _log.warning(
        "%s: %d parts of the overview cannot be read and are white (%s)", what, n_dead, reason
    )
