"""What a query would take: a pilot of some patches through the whole path, writing nothing."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from stretrieve import keys
from stretrieve._progress import SilentProgress
from stretrieve.query.engine import OpenQuery, QueryEngine
from stretrieve.query.groups import MIN_ROWS, EncodedGroup, Grouping, RowGroup
from stretrieve.query.locate import Positions
from stretrieve.query.output import HIRES_PX, LOWRES_PX
from stretrieve.query.parts import COMPRESSION_LEVEL, Form, PackedGroup, pack
from stretrieve.query.question import Question
from stretrieve.query.stream import MemoryShelf, run
from stretrieve.query.written import OutputSettings

_PILOT_GROUPS: Final = 8
_PILOT_TURNS: Final = 4
"""So many groups, and so many to each process or device, that patches decoded while the first were
embedded are used up in the middle."""
_PILOT_ROWS: Final = MIN_ROWS
_COPY_BYTES_PER_S: Final = 200e6
_BYTES_PER_GENE: Final = 120
_BYTES_PER_ROW: Final = 110
_FILE_BYTES: Final = 60_000
_IN_MEMORY_PER_ROW: Final = 600


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """What a query would do and take.

    Parameters
    ----------
    slide
        Name of the slide.
    patches, genes
        Shape of the output.
    batch_size
        Patches embedded at a time, as it will be used.
    seconds
        Wall time, the reference being open.
    memory_bytes
        Peak of this process and its reader processes.
    output_bytes
        Size of the output.
    work_bytes
        Further disk space while it runs.
    """

    slide: str
    patches: int
    genes: int
    batch_size: int
    seconds: float
    memory_bytes: int
    output_bytes: int
    work_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class _Clock(SilentProgress):
    """Notes when how much was done; of a run, of its first step, which is to embed."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._done: list[int] = []

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[_Clock]:
        """Yield what notes a step."""
        del label, total
        yield _Clock() if self._times else self

    def advance(self, n: int = 1, *, note: str = "") -> None:
        """Note ``n`` more."""
        del note
        self._times.append(time.perf_counter())
        self._done.append(n)

    def pace(self, lanes: int) -> float:
        """Return the seconds that one more took in the later half.

        Parameters
        ----------
        lanes
            How many come at about the same time: whole turns of so many are timed.
        """
        n = len(self._times) // 2 // lanes * lanes
        return (self._times[-1] - self._times[-1 - n]) / sum(self._done[-n:]) if n else 0.0


class _PackingShelf(MemoryShelf):
    """Packs groups as a file would hold them, notes when, and forgets their values.

    Parameters
    ----------
    form
        Shape and storage of the pilot.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.packed: list[PackedGroup] = []
        self.clock = _Clock()

    def put(self, group: RowGroup) -> None:
        """Pack a group."""
        self.packed.append(pack(group, self.form))
        self.clock.advance(len(self.packed[-1]))


def plan_query(
    engine: QueryEngine, question: Question, *, output: OutputSettings | None = None
) -> QueryPlan:
    """Predict patches, time, memory and bytes of a query, and write nothing.

    Patches are counted exactly. A pilot of up to 128 of them, from all over the slide, or 64 for each
    decoding process or device if there are more than two, goes through the same path and is timed and
    weighed; it takes as long as so many patches do.

    Parameters
    ----------
    engine
        The engine that would answer.
    question
        The slide and what is known about it.
    output
        Format and storage of the output.

    Raises
    ------
    SlideError, MppError, TissueError, GenePanelError, InputError
        As the query itself would.
    """
    output = output or OutputSettings()
    begun = time.perf_counter()
    with engine.open(question) as opened:
        width, height = opened.job.slide.dimensions
        shelf, embedding = _pilot(opened, sparse=output.sparse)
        seconds = time.perf_counter() - begun
    n, tried = len(opened.job.positions), sum(map(len, shelf.packed))
    paces = [clock.pace(_lanes(opened)) for clock in (embedding, shelf.clock)]
    seconds += (n - tried) * (max(paces) if opened.job.in_one_pass else sum(paces))
    per_row = sum(map(_packed_bytes, shelf.packed)) / tried
    n_genes = len(opened.job.genes)
    images = sum(_thumbnail_bytes(width, height, side) for side in (HIRES_PX, LOWRES_PX))
    table = n * (per_row + _BYTES_PER_ROW) + n_genes * _BYTES_PER_GENE + _FILE_BYTES
    uids = len(opened.facts.reference.spots[keys.SPOT_UID]) * 24
    work = sum(map(_part_bytes, shelf.packed))
    work += sum(_encoded_bytes(shelf.take_encoded(number)) for number in shelf.encoded())
    return QueryPlan(
        slide=question.slide.name,
        patches=n,
        genes=n_genes,
        batch_size=opened.job.grouping.batch_rows(engine.settings.batch_size),
        seconds=seconds + table / _COPY_BYTES_PER_S,
        memory_bytes=_memory(opened, per_row),
        output_bytes=int(table + images + uids),
        work_bytes=int(n * work / tried),
    )


def _lanes(opened: OpenQuery) -> int:
    """Return how many batches are decoded, or embedded, side by side."""
    return max(opened.job.settings.workers, len(opened.job.embedders))


def _pilot(opened: OpenQuery, *, sparse: bool) -> tuple[_PackingShelf, _Clock]:
    """Predict some patches; return what came of it, and how embedding went."""
    job = opened.job
    rows = min(_PILOT_ROWS, job.grouping.rows)
    groups = max(_PILOT_GROUPS, _PILOT_TURNS * _lanes(opened))
    n = min(len(job.positions), groups * rows)
    chosen = np.unique(np.linspace(0, len(job.positions) - 1, n).astype(np.int64))
    whole = job.positions
    part = Positions(whole.names[chosen], whole.xy[chosen], whole.tissue_fraction[chosen])
    grouping = Grouping(len(chosen), rows)
    shelf = _PackingShelf(Form.of(grouping, len(job.genes), is_sparse=sparse))
    settings = replace(job.settings, batch_size=min(job.settings.batch_size, rows))
    pilot, clock = replace(job, positions=part, grouping=grouping, settings=settings), _Clock()
    run(pilot, shelf, meanwhile=opened.facts.pictures.read, progress=clock)
    return shelf, clock


def _packed_bytes(group: PackedGroup) -> int:
    total = sum(chunk.nbytes for chunks in group.chunks.values() for chunk in chunks)
    for rows in group.rows.values():
        total += sum(_zipped(part) for part in (rows.data, rows.indices)) + rows.indptr.nbytes * 2
    for name, values in group.arrays.items():
        local = values.astype(np.int32) if name == keys.NEIGHBOURS else values
        total += _zipped(local)
    return total


def _part_bytes(group: PackedGroup) -> int:
    total = sum(chunk.nbytes for chunks in group.chunks.values() for chunk in chunks)
    total += sum(r.data.nbytes + r.indices.nbytes for r in group.rows.values())
    total += sum(values.nbytes for values in group.arrays.values())
    return int(total + sum(values.nbytes for values in group.columns.values()))


def _encoded_bytes(group: EncodedGroup) -> int:
    looks = () if group.looks is None else (group.looks,)
    return sum(part.nbytes for part in (group.values, group.status, *looks))


def _zipped(values: np.ndarray) -> int:
    return len(zlib.compress(np.ascontiguousarray(values).tobytes(), COMPRESSION_LEVEL))


def _thumbnail_bytes(width: int, height: int, longest: int) -> int:
    shrink = max(1.0, max(width, height) / longest)
    return round(width / shrink) * round(height / shrink) * 3


def _memory(opened: OpenQuery, packed_per_row: float) -> int:
    """Return the peak so far, and what full groups and the whole slide add to the pilot's."""
    job = opened.job
    rows = min(job.grouping.rows, len(job.positions))
    more_rows = max(0, rows - _PILOT_ROWS)
    matrices = 3 * 4 * len(job.genes) + packed_per_row
    views = sum(3 * view.patch_px**2 for view in job.embedder.spec.views)
    batch = job.grouping.batch_rows(job.settings.batch_size)
    ahead = (job.settings.workers + 2) * max(0, batch - _PILOT_ROWS) * views
    own = _peak(resource.RUSAGE_SELF) + job.settings.workers * _peak(resource.RUSAGE_CHILDREN)
    return int(own + more_rows * matrices + ahead + len(job.positions) * _IN_MEMORY_PER_ROW)


def _peak(who: int) -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss * unit
