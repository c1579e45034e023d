"""From patch centres to features: decoding runs ahead of the network, group by group."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from stretrieve._priority import step_back
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import Embedder, Embeddings
from stretrieve.errors import SlideError, explain
from stretrieve.query.groups import MIN_ROWS, EncodedGroup, Grouping
from stretrieve.query.locate import Positions
from stretrieve.query.look import Looks, looks_of_patches
from stretrieve.query.memory import ThriftyEncoder
from stretrieve.query.settings import QuerySettings
from stretrieve.slides import PatchBatch, Slide, read_patches
from stretrieve.slides.types import PatchStatus


def encode_groups(
    slide: Slide,
    positions: Positions,
    grouping: Grouping,
    numbers: Sequence[int],
    *,
    embedders: Sequence[Embedder],
    settings: QuerySettings,
    thumbnail_px: int | None = None,
    progress: Progress = SILENT,
) -> Iterator[EncodedGroup]:
    """Yield the features of some groups of patches, in order.

    Parameters
    ----------
    slide
        An open slide.
    positions
        Patch centres of the whole slide.
    grouping
        How they are cut into groups.
    numbers
        Ascending numbers of the groups wanted.
    embedders
        The same embedder once for every device; batches take turns.
    settings
        Batch size and decoding processes.
    thumbnail_px
        Size in which patches are looked at (:func:`~stretrieve.query.look.comparable_px`); they are
        not when ``None``.
    progress
        Receiver of progress.

    Raises
    ------
    SlideError
        When the slide cannot be read.
    ResourceError
        When memory does not hold the smallest batch.
    """
    if not numbers:
        return
    rows = np.concatenate([np.arange(len(positions))[grouping.slice(n)] for n in numbers])
    first = None if numbers[0] else MIN_ROWS  # begins early, and resumes with the batches it had
    batches = read_patches(
        slide,
        positions.xy[rows],
        embedders[0].spec,
        batch_size=grouping.batch_rows(settings.batch_size),
        first_batch=first,
        workers=settings.workers,
    )
    gather = _Gatherer(grouping, numbers)
    with (
        progress.task(f"embed {slide.path.name}", len(rows)) as task,
        _Onlooker(thumbnail_px, workers=settings.workers) as onlooker,
    ):
        for batch, features in _encoded(onlooker.watch(batches), embedders):
            yield from gather.add(features, batch.status, onlooker.looks())
            task.advance(len(batch))


class _Onlooker:
    """Looks at patches beside the network, which is slower.

    Parameters
    ----------
    thumbnail_px
        As for :func:`encode_groups`.
    workers
        Threads.
    """

    def __init__(self, thumbnail_px: int | None, *, workers: int) -> None:
        self._thumbnail_px = thumbnail_px
        self._running: deque[Future[Looks]] = deque()
        self._threads = ThreadPoolExecutor(workers, "stretrieve-look", initializer=step_back)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def watch(self, batches: Iterable[PatchBatch]) -> Iterator[PatchBatch]:
        """Pass batches on, and begin to look at each."""
        for batch in batches:
            if self._thumbnail_px is not None:
                patches, side_px = batch.views[0], self._thumbnail_px
                job = self._threads.submit(looks_of_patches, patches, thumbnail_px=side_px)
                self._running.append(job)
            yield batch

    def looks(self) -> Looks | None:
        """Return what the next batch looks like, ``(n_patches, 29)``; ``None`` if nobody looked."""
        return self._running.popleft().result() if self._running else None


def _encoded(
    batches: Iterator[PatchBatch], embedders: Sequence[Embedder]
) -> Iterator[tuple[PatchBatch, Embeddings]]:
    encoders = [ThriftyEncoder(embedder.encode_once) for embedder in embedders]
    if len(encoders) == 1:
        for batch in batches:
            yield batch, encoders[0](batch)
        return
    running: deque[tuple[PatchBatch, Future[Embeddings]]] = deque()
    lanes = [ThreadPoolExecutor(1, thread_name_prefix="stretrieve-device") for _ in encoders]
    try:
        for i, batch in enumerate(batches):
            if len(running) == len(lanes):
                done, features = running.popleft()
                yield done, features.result()
            lane = i % len(lanes)
            running.append((batch, lanes[lane].submit(encoders[lane], batch)))
        while running:
            done, features = running.popleft()
            yield done, features.result()
    finally:
        for pool in lanes:
            pool.shutdown(wait=True, cancel_futures=True)


class _Gatherer:
    """Puts batches together to groups.

    Parameters
    ----------
    grouping
        The groups of the slide; batches divide them.
    numbers
        Groups that come, in order.
    """

    def __init__(self, grouping: Grouping, numbers: Sequence[int]) -> None:
        self._grouping = grouping
        self._numbers = deque(numbers)
        self._features: list[Embeddings] = []
        self._status: list[npt.NDArray[np.uint8]] = []
        self._looks: list[Looks] = []

    def add(
        self, features: Embeddings, status: npt.NDArray[np.uint8], looks: Looks | None
    ) -> Iterator[EncodedGroup]:
        """Take a batch and yield the group that it completes, if it does."""
        self._features.append(features)
        self._status.append(status)
        if looks is not None:
            self._looks.append(looks)
        rows = self._grouping.slice(self._numbers[0])
        if sum(map(len, self._status)) < rows.stop - rows.start:
            return
        everything = np.concatenate(self._status)
        readable = everything != PatchStatus.FAILED
        yield EncodedGroup(
            self._numbers.popleft(),
            np.concatenate(self._features)[readable],
            everything,
            np.concatenate(self._looks)[readable] if self._looks else None,
        )
        self._features, self._status, self._looks = [], [], []


@dataclass(frozen=True)
class EncodedSlide:
    """Embeddings of a slide's readable patches, all in memory.

    Parameters
    ----------
    embeddings
        ``(n_patches, dim)`` in the joint space.
    keep
        ``(n_patches,)`` positions, in the list of centres, of the patches that could be read.
    """

    embeddings: Embeddings
    keep: npt.NDArray[np.int64]


def encode_slide(
    slide: Slide,
    positions: Positions,
    embedder: Embedder,
    *,
    settings: QuerySettings,
    progress: Progress = SILENT,
) -> EncodedSlide:
    """Embed all patches of a slide.

    Raises
    ------
    SlideError
        When more than ``settings.max_failed`` of the patches cannot be read.
    """
    grouping = Grouping.of(len(positions), n_genes=0)
    groups = list(
        encode_groups(
            slide,
            positions,
            grouping,
            range(len(grouping)),
            embedders=[embedder],
            settings=settings,
            progress=progress,
        )
    )
    readable = np.concatenate([group.readable for group in groups])
    keep = np.flatnonzero(readable)
    check_failures(slide, len(readable) - len(keep), len(readable), settings.max_failed)
    features = np.concatenate([group.values for group in groups])
    xy_um = slide.pixel_size.to_um(positions.xy[keep])
    return EncodedSlide(embedder.project_patches(features, xy_um), keep)


def check_failures(slide: Slide, failed: int, total: int, limit: float) -> None:
    """Refuse a slide of which too many patches are unreadable.

    Raises
    ------
    SlideError
        When more than the share ``limit`` of the patches failed.
    """
    if failed > limit * total:
        raise SlideError(
            explain(
                f"slide {slide.path.name}",
                got=f"{failed} of {total} patches unreadable",
                expected=f"at most {limit:.0%}",
                remedy="copy or export the slide again",
            )
        )
