"""Running an evaluation: planned, audited, parallel, resumable."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from stretrieve import __version__
from stretrieve._files import atomic_path, write_json
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.errors import InputError, OutputExistsError, StretrieveError, explain
from stretrieve.evaluation.audit import check_audit
from stretrieve.evaluation.settings import EvaluationSettings
from stretrieve.evaluation.workbench import FACTS, Task, Workbench, map_genes, write_arrays
from stretrieve.reference.manifest import library_versions

RUN: Final = "run.json"
TRUTH: Final = "truth.npz"
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Plan:
    """What an evaluation would do.

    Parameters
    ----------
    folds
        What is held out in turn, with the numbers of training and test sections.
    lines
        Names and titles, in the order of the table.
    n_tasks, n_done
        Fits in all, and those that an earlier run has finished.
    n_spots
        Spots of the cohort.
    """

    folds: tuple[tuple[str, int, int], ...]
    lines: tuple[tuple[str, str], ...]
    n_tasks: int
    n_done: int
    n_spots: int

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON data."""
        return {
            "folds": [{"held_out": n, "train": a, "test": b} for n, a, b in self.folds],
            "lines": [{"line": name, "title": title} for name, title in self.lines],
            "tasks": self.n_tasks,
            "done": self.n_done,
            "spots": self.n_spots,
        }


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Parameters
    ----------
    out
        Its folder.
    n_tasks
        Fits that the evaluation consists of.
    n_resumed
        Those that were already there.
    failures
        Tasks that failed, with the reason.
    """

    out: Path
    n_tasks: int
    n_resumed: int
    failures: tuple[tuple[Task, str], ...] = ()


def plan(sheet: Path, out: Path, settings: EvaluationSettings) -> Plan:
    """Return what :func:`run` would do; writes nothing.

    Raises
    ------
    InputError
        As :func:`run`.
    """
    bench = Workbench(sheet, out, settings)
    tasks = bench.tasks()
    return Plan(
        folds=tuple((f.name, len(f.train), len(f.test)) for f in bench.folds),
        lines=tuple((line.name, line.title) for line in bench.lines.values()),
        n_tasks=len(tasks),
        n_done=sum(_finished(bench, task) for task in tasks),
        n_spots=sum(s.section.n_spots for s in bench.samples),
    )


def run(
    sheet: Path,
    out: Path,
    *,
    settings: EvaluationSettings | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Evaluate every line in every fold; each finished fit is a folder of its own.

    Parameters
    ----------
    sheet
        Samplesheet with the patient of each section.
    out
        Folder of the evaluation.
    settings
        What is evaluated.
    resume
        Go on with what an earlier run left in ``out``; finished fits with the same settings and
        data are kept.
    progress
        Told of every fit.

    Raises
    ------
    OutputExistsError
        When ``out`` holds something and ``resume`` is false.
    InputError
        When the sheet or a section cannot be used, or there is only one patient.
    LeakError
        When the audit finds something of a test patient in training.
    """
    settings = settings or EvaluationSettings()
    sheet, out = Path(sheet), Path(out)
    if out.exists() and any(out.iterdir()) and not resume:
        raise OutputExistsError(
            explain("output", got=f"{out} holds files", remedy="another folder, or --resume")
        )
    started = time.time()
    bench = Workbench(sheet, out, settings, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    bench.prepare_features()
    findings = bench.audit()
    _describe(bench, findings=[f.to_dict() for f in findings], seconds=None)
    _write_truth(bench)
    check_audit(findings)
    tasks = bench.tasks()
    todo = [task for task in tasks if not _finished(bench, task)]
    failures = _work(bench, sheet, todo, progress)
    spent = round(time.time() - started, 1)
    _describe(bench, findings=[f.to_dict() for f in findings], seconds=spent)
    return Outcome(out, len(tasks), len(tasks) - len(todo), tuple(failures))


def _describe(bench: Workbench, *, findings: list[dict[str, Any]], seconds: float | None) -> None:
    """Write what is needed to understand and repeat the run."""
    sets = [bench.gene_sets(i) for i in range(len(bench.folds))]
    write_json(
        bench.out / RUN,
        {
            "stretrieve": __version__,
            "settings": settings_to_dict(bench.settings),
            "versions": library_versions(),
            "optimistic": bench.settings.optimistic,
            "sections": [
                {"section": s.name, "patient": s.patient, "spots": s.section.n_spots}
                for s in bench.samples
            ],
            "folds": [
                {
                    "held_out": fold.name,
                    "train": len(fold.train),
                    "test": len(fold.test),
                    "map_labels": _labels(bench, map_genes(chosen)),
                    "sets": chosen.to_dict(),
                }
                for fold, chosen in zip(bench.folds, sets, strict=True)
            ],
            "lines": [
                {
                    "line": line.name,
                    "title": line.title,
                    "family": line.family.value,
                    "stochastic": line.stochastic,
                    "sees_truth": line.sees_truth,
                }
                for line in bench.lines.values()
            ],
            "audit": findings,
            "seconds": seconds,
        },
    )


def _labels(bench: Workbench, genes: Sequence[str]) -> list[str]:
    """Return the symbols of genes, or their keys where there is none."""
    symbols = bench.samples[0].section.genes["gene_symbol"]
    return [str(symbols.get(gene, "") or gene) for gene in genes]


def _write_truth(bench: Workbench) -> None:
    """Keep what maps of predictions are shown beside: positions and measured values."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for number, fold in enumerate(bench.folds):
        genes = map_genes(bench.gene_sets(number))
        for i in fold.test:
            sample = bench.samples[i]
            arrays[f"{sample.name}/xy_um"] = sample.section.xy_um.astype(np.float32)
            arrays[f"{sample.name}/truth"] = sample.truth(genes).astype(np.float32)
    with atomic_path(bench.out / TRUTH) as path:
        write_arrays(path, arrays)


def _finished(bench: Workbench, task: Task) -> bool:
    path = bench.place(task) / FACTS
    if not path.is_file():
        return False
    try:
        return bool(json.loads(path.read_text())["key"] == bench.key(task))
    except (ValueError, KeyError, TypeError):
        return False


def _work(
    bench: Workbench, sheet: Path, todo: Sequence[Task], progress: Progress
) -> list[tuple[Task, str]]:
    failures: list[tuple[Task, str]] = []
    results = (
        _here(bench, todo) if bench.settings.workers == 1 else _in_processes(bench, sheet, todo)
    )
    with progress.task("fits", len(todo)) as counter:
        for task, reason in results:
            if reason:
                failures.append((task, reason))
            counter.advance(note=f"{bench.folds[task.fold].name}: {task.line}")
    return failures


def _here(bench: Workbench, todo: Sequence[Task]) -> Iterator[tuple[Task, str]]:
    for task in todo:
        yield task, _attempt(bench, task)


def _attempt(bench: Workbench, task: Task) -> str:
    """Do a task; a line that fails costs its own rows, told at the end, not the whole run."""
    _discard_stale(bench, task)
    try:
        bench.run(task)
    except StretrieveError as error:
        return str(error)
    except (ValueError, RuntimeError, ArithmeticError, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _discard_stale(bench: Workbench, task: Task) -> None:
    import shutil

    place = bench.place(task)
    if place.exists():
        shutil.rmtree(place)


_BENCH: dict[str, Workbench] = {}


def _start(sheet: Path, out: Path, settings: EvaluationSettings) -> None:
    _BENCH["bench"] = Workbench(sheet, out, settings)


def _remote(task: Task) -> tuple[Task, str]:
    return task, _attempt(_BENCH["bench"], task)


def _in_processes(
    bench: Workbench, sheet: Path, todo: Sequence[Task]
) -> Iterator[tuple[Task, str]]:
    workers = bench.settings.workers
    arguments = (sheet, bench.out, bench.settings)
    context = multiprocessing.get_context("spawn")
    with (
        _threads(max(1, (os.cpu_count() or 1) // workers)),
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start, initargs=arguments
        ) as pool,
    ):
        pending = [pool.submit(_remote, task) for task in todo]
        try:
            for done in as_completed(pending):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """Let processes that start within the block use ``n`` threads each."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(n)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def read_run(out: Path) -> dict[str, Any]:
    """Return the description of an evaluation.

    Raises
    ------
    InputError
        When the folder holds none.
    """
    path = Path(out) / RUN
    if not path.is_file():
        raise InputError(explain("evaluation", got=f"no {RUN} in {out}"))
    data: dict[str, Any] = json.loads(path.read_text())
    return data
