"""One slide through the engine: decode, embed, search and impute overlap, group by group."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from stretrieve._priority import step_back
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import Embedder
from stretrieve.query.encode import encode_groups
from stretrieve.query.finder import Finder
from stretrieve.query.groups import EncodedGroup, Grouping, RowGroup
from stretrieve.query.locate import Positions
from stretrieve.query.predictor import Found, Predictor
from stretrieve.query.rows import predict_group
from stretrieve.query.settings import QuerySettings
from stretrieve.slides import Slide

_AHEAD: Final = 2


class Shelf(Protocol):
    """Where what is finished is put: memory, or files that outlive the process."""

    def finished(self) -> set[int]:
        """Return the numbers of the groups that are predicted already."""

    def put(self, group: RowGroup) -> None:
        """Keep the predictions of a group."""

    def encoded(self) -> set[int]:
        """Return the numbers of the groups that are encoded already."""

    def put_encoded(self, group: EncodedGroup) -> None:
        """Keep what the network made of a group."""

    def take_encoded(self, number: int) -> EncodedGroup:
        """Return what :meth:`put_encoded` kept."""


@dataclass(frozen=True)
class Job:
    """A slide and everything that decides its predictions.

    Parameters
    ----------
    slide
        An open slide.
    positions
        Patch centres.
    grouping
        How they are cut into groups.
    predictor
        Of the reference.
    genes
        Gene keys to impute.
    embedders
        The reference's embedder, once for every device.
    settings
        Batch size and decoding processes.
    thumbnail_px
        Size in which patches are compared with the reference's thumbnails; ``None`` if they cannot be.
    """

    slide: Slide
    positions: Positions
    grouping: Grouping
    predictor: Predictor
    genes: Sequence[str]
    embedders: Sequence[Embedder]
    settings: QuerySettings
    thumbnail_px: int | None = None

    @property
    def embedder(self) -> Embedder:
        """The embedder on the first device."""
        return self.embedders[0]

    @property
    def in_one_pass(self) -> bool:
        """Whether a patch can be predicted before the whole slide has been seen."""
        return self.embedder.is_row_wise and not self.predictor.needs_slide

    def xy_um(self, group: EncodedGroup) -> npt.NDArray[np.float64]:
        """Return the centres ``(n_readable, 2)`` of a group's readable patches in µm."""
        xy = self.positions.xy[self.grouping.slice(group.number)][group.readable]
        return self.slide.pixel_size.to_um(xy)

    def projected(self, group: EncodedGroup) -> EncodedGroup:
        """Return the group with embeddings in place of features."""
        if not len(group.values):
            return replace(group, values=np.empty((0, self.embedder.dim), np.float32))
        values = self.embedder.project_patches(group.values, self.xy_um(group))
        return replace(group, values=values)

    def missing(self, there: set[int]) -> list[int]:
        """Return the numbers of groups that are not there yet."""
        return [number for number in range(len(self.grouping)) if number not in there]


def run(
    job: Job,
    shelf: Shelf,
    *,
    meanwhile: Callable[[], object] = lambda: None,
    progress: Progress = SILENT,
) -> None:
    """Predict every group of a slide that the shelf does not hold yet.

    Where nothing depends on the slide as a whole, a group is searched, imputed and put away while the
    next ones are decoded and embedded. Otherwise embeddings come first and predictions second.

    Parameters
    ----------
    job
        What is predicted.
    shelf
        Holds what is finished.
    meanwhile
        What else to do in the thread that predicts, after the first group.
    progress
        Told of embedded and predicted patches.

    Raises
    ------
    SlideError
        When the slide cannot be read.
    ResourceError
        When memory or disk is exhausted.
    """
    todo = job.missing(shelf.finished())
    with ThreadPoolExecutor(1, "stretrieve-predict", initializer=step_back) as executor:
        if todo and job.thumbnail_px is not None:  # while the network is at the first group
            executor.submit(job.predictor.retriever.learn_looks)
        try:
            _run(job, todo, shelf, executor, meanwhile, progress)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _run(
    job: Job,
    todo: list[int],
    shelf: Shelf,
    executor: Executor,
    meanwhile: Callable[[], object],
    progress: Progress,
) -> None:
    if job.in_one_pass:
        groups = map(job.projected, _encode(job, todo, progress))

        def find(group: EncodedGroup) -> Found:
            return job.predictor.find(group.values, looks=group.looks)

        _finish(job, groups, shelf, find, executor, meanwhile)
        return
    for group in _encode(job, job.missing(shelf.encoded()), progress):
        kept = job.projected(group) if job.embedder.is_row_wise else group
        shelf.put_encoded(kept)
    embeddings = _embeddings(job, shelf)
    shift = job.predictor.prepare(_mean(map(embeddings, range(len(job.grouping)))))
    finder = Finder(job.predictor, embeddings, job.xy_um, len(job.grouping), shift)
    with progress.task("predict", len(todo)) as task:
        groups = map(embeddings, todo)
        done = partial(task.advance, 1)
        _finish(job, groups, shelf, finder.find, executor, meanwhile, done)


def _encode(job: Job, numbers: list[int], progress: Progress) -> Iterator[EncodedGroup]:
    return encode_groups(
        job.slide,
        job.positions,
        job.grouping,
        numbers,
        embedders=job.embedders,
        settings=job.settings,
        thumbnail_px=job.thumbnail_px,
        progress=progress,
    )


def _finish(
    job: Job,
    groups: Iterator[EncodedGroup],
    shelf: Shelf,
    find: Callable[[EncodedGroup], Found],
    executor: Executor,
    meanwhile: Callable[[], object],
    done: Callable[[], None] = lambda: None,
) -> None:
    """Predict groups in the executor's one thread while the next are made; at most two wait."""

    def finish(group: EncodedGroup) -> None:
        shelf.put(predict_group(job.predictor, group, find(group), job.genes))
        done()

    running: deque[Future[object]] = deque()
    for place, group in enumerate(groups):
        while len(running) >= _AHEAD:
            running.popleft().result()
        running.append(executor.submit(finish, group))
        if place == 0:
            running.append(executor.submit(meanwhile))
    while running:
        running.popleft().result()


def _embeddings(job: Job, shelf: Shelf) -> Callable[[int], EncodedGroup]:
    """Return how to get the embeddings of a group, all groups being encoded."""
    if job.embedder.is_row_wise:
        return shelf.take_encoded
    groups = [shelf.take_encoded(number) for number in range(len(job.grouping))]
    features = np.concatenate([group.values for group in groups])
    everything = job.embedder.project_patches(
        features, np.concatenate([job.xy_um(group) for group in groups])
    )
    ends = np.cumsum([len(group.values) for group in groups])
    parts = np.split(everything, ends[:-1])
    return lambda number: replace(groups[number], values=parts[number])


def _mean(groups: Iterator[EncodedGroup]) -> npt.NDArray[np.float64]:
    total: npt.NDArray[np.float64] | float = 0.0
    count = 0
    for group in groups:
        total = total + group.values.sum(axis=0, dtype=np.float64)
        count += len(group.values)
    return np.asarray(total / max(count, 1))


class MemoryShelf:
    """Keeps everything in memory, for results that become one AnnData object."""

    def __init__(self) -> None:
        self.groups: dict[int, RowGroup] = {}
        self._encoded: dict[int, EncodedGroup] = {}

    def finished(self) -> set[int]:
        """Return the numbers of the groups that are predicted already."""
        return set(self.groups)

    def put(self, group: RowGroup) -> None:
        """Keep the predictions of a group."""
        self.groups[group.number] = group

    def encoded(self) -> set[int]:
        """Return the numbers of the groups that are encoded already."""
        return set(self._encoded)

    def put_encoded(self, group: EncodedGroup) -> None:
        """Keep what the network made of a group."""
        self._encoded[group.number] = group

    def take_encoded(self, number: int) -> EncodedGroup:
        """Return what :meth:`put_encoded` kept."""
        return self._encoded[number]

    def stored(self) -> Iterator[RowGroup]:
        """Yield all groups in order."""
        for number in sorted(self.groups):
            yield self.groups[number]
