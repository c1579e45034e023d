"""Patches around given centres, decoded ahead of whoever consumes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve._logging import get_logger
from stretrieve._priority import step_back
from stretrieve.errors import ConfigError, SlideError, explain
from stretrieve.slides.base import Slide
from stretrieve.slides.geometry import boxes_of_view, check_centres, outside, plan_boxes
from stretrieve.slides.types import PatchBatch, PatchStatus
from stretrieve.specs import PatchSpec

_log = get_logger(__name__)
_AHEAD: Final = 2
_TOLERATED: Final = 5


def read_patches(
    slide: Slide,
    xy: npt.ArrayLike,
    spec: PatchSpec,
    *,
    batch_size: int = 64,
    first_batch: int | None = None,
    workers: int = 1,
) -> Iterator[PatchBatch]:
    """Yield the patches around centres, in the order given, at the physical size of ``spec``.

    Decoding runs ahead in ``workers`` reader processes by at most ``workers + 2`` batches, so memory
    depends neither on the slide nor on the number of centres. A patch that cannot be read is white and
    marked ``FAILED``; one that reaches over the edge is filled with white and marked ``PADDED``.

    Parameters
    ----------
    slide
        An open slide.
    xy
        ``(n, 2)`` centres in level-0 px.
    spec
        Fields of view around each centre.
    batch_size
        Patches in a batch; the last one may be shorter.
    first_batch
        Patches in the first batch, where the consumer should not wait for a whole one: each further
        batch holds as many as all before it together, up to ``batch_size``.
    workers
        Reader processes. Images that are decoded as a whole are always read by one.

    Yields
    ------
    PatchBatch
        With one array a view, each ``(n_patches, patch_px, patch_px, 3)`` uint8.

    Raises
    ------
    ConfigError
        When ``batch_size``, ``first_batch`` or ``workers`` is below 1.
    ShapeError
        When the centres are not ``(n, 2)`` finite numbers.
    SlideError
        When more patches fail than the slide's limits allow, or all of them.
    """
    first = batch_size if first_batch is None else first_batch
    if min(batch_size, first, workers) < 1:
        got = f"batch_size {batch_size}, first_batch {first}, workers {workers}"
        raise ConfigError(explain("patches", got=got, expected="1 or more"))
    centres = check_centres(xy)
    return _read_ahead(slide, centres, spec, _cut(len(centres), batch_size, first), workers)


def _cut(n_rows: int, batch_size: int, first: int) -> deque[npt.NDArray[np.int64]]:
    """Return the rows of each batch."""
    batches: deque[npt.NDArray[np.int64]] = deque()
    start = 0
    while start < n_rows:
        stop = min(n_rows, start + min(batch_size, max(first, start)))
        batches.append(np.arange(start, stop))
        start = stop
    return batches


def _read_ahead(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    spec: PatchSpec,
    waiting: deque[npt.NDArray[np.int64]],
    workers: int,
) -> Iterator[PatchBatch]:
    tally = _Tally(slide, len(xy))
    running: deque[Future[PatchBatch]] = deque()
    executor = ThreadPoolExecutor(workers, "stretrieve-slide", initializer=step_back)
    try:
        while waiting or running:
            while waiting and len(running) < workers + _AHEAD:
                rows = waiting.popleft()
                running.append(executor.submit(_read_batch, slide, xy, rows, spec, workers))
            batch = running.popleft().result()
            tally.add(batch)
            yield batch
        tally.report()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _read_batch(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    spec: PatchSpec,
    workers: int,
) -> PatchBatch:
    centres = xy[rows]
    status = np.full(len(rows), PatchStatus.OK, dtype=np.uint8)
    jobs, outs = [], []
    views = tuple(
        np.empty((len(rows), view.patch_px, view.patch_px, 3), dtype=np.uint8)
        for view in spec.views
    )
    for view, pixels in zip(spec.views, views, strict=True):
        boxes = boxes_of_view(centres, view, slide.pixel_size)
        status[outside(boxes, slide.dimensions)] = PatchStatus.PADDED
        jobs += plan_boxes(boxes, (view.patch_px, view.patch_px), slide.level_downsamples)
        outs += list(pixels)
    for index, reason in slide.pool.run(jobs, outs, max_processes=workers).items():
        row = index % len(rows)
        status[row] = PatchStatus.FAILED
        for pixels in views:
            pixels[row] = 255
        _log.info("slide %r: patch %d cannot be read (%s)", str(slide.path), rows[row], reason)
    return PatchBatch(
        views=views,
        xy=centres,
        xy_um=slide.pixel_size.to_um(centres),
        indices=np.asarray(rows, dtype=np.int64),
        status=status,
    )


class _Tally:
    """Counts failed patches and gives a slide up that has too many.

    Parameters
    ----------
    slide
        The slide.
    n_patches
        How many patches there will be.
    """

    def __init__(self, slide: Slide, n_patches: int) -> None:
        self._slide = slide
        self._n_patches = n_patches
        self._n_seen = 0
        self._n_failed = 0
        self._allowed = max(_TOLERATED, int(slide.limits.max_failed * n_patches))

    def add(self, batch: PatchBatch) -> None:
        """Count a batch.

        Raises
        ------
        SlideError
            When more patches have failed than the limits allow, or all there are.
        """
        self._n_seen += len(batch)
        self._n_failed += int((batch.status == PatchStatus.FAILED).sum())
        all_failed = self._n_seen == self._n_patches == self._n_failed
        if self._n_failed > self._allowed or all_failed:
            raise SlideError(
                explain(
                    f"slide {str(self._slide.path)!r}",
                    got=f"{self._n_failed} of {self._n_seen} patches that cannot be read",
                    expected=f"at most {self._allowed} of {self._n_patches}",
                )
            )

    def report(self) -> None:
        """Say how many patches failed, when any did."""
        if self._n_failed:
            _log.warning(
                "slide %r: %d of %d patches cannot be read; they are white and marked as failed",
                str(self._slide.path), self._n_failed, self._n_patches,
            )  # fmt: skip
