"""One process's view of an evaluation: sections read once, folds prepared once, one task at a time."""

from __future__ import annotations

import functools
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import __version__
from stretrieve._files import atomic_path, canonical_json, sha256_text, write_json
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.embedders import kept_features
from stretrieve.errors import GenePanelError
from stretrieve.evaluation.audit import (
    Finding,
    ImageTraces,
    Traces,
    audit_fold,
    trace_expression,
    trace_images,
)
from stretrieve.evaluation.cohort import Fold, Sample, make_folds, read_cohort
from stretrieve.evaluation.gene_sets import GeneSets, freeze_gene_sets
from stretrieve.evaluation.inputs import (
    ExpressionInputs,
    ImageInputs,
    Inputs,
    MolecularSpace,
    query_genes,
)
from stretrieve.evaluation.judge import Judge, check_metrics
from stretrieve.evaluation.lines import Family, Fitted, Line, Prediction, Training, choose_lines
from stretrieve.evaluation.settings import EvaluationSettings, Query
from stretrieve.specs import PatchSpec

SCORES: Final = "scores.parquet"
FACTS: Final = "facts.json"
MAPS: Final = "maps.npz"
PARTS: Final = "parts"
CACHE: Final = "cache"

_MAP_GENES: Final = 4
_SHOWS_ONLY: Final = ("cli", "report", "testing")
_IRRELEVANT: Final = (
    "embedders", "seeds", "single_seed", "workers", "engine", "controls", "embedder_config",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One line with one seed in one fold.

    Parameters
    ----------
    fold
        Position among the folds.
    line
        Name of the line.
    seed
        Seed of everything random in it.
    """

    fold: int
    line: str
    seed: int


@dataclass(frozen=True)
class Prepared:
    """A fold with what is learnt before any line: gene sets, query features, the judge."""

    fold: Fold
    training: Training
    tests: tuple[Sample, ...]
    judge: Judge
    blind_genes: tuple[str, ...]


class Workbench:
    """Sections, folds and lines of an evaluation.

    Parameters
    ----------
    sheet
        Samplesheet.
    out
        Folder of the evaluation.
    settings
        What is evaluated.
    progress
        Told of long steps.
    """

    def __init__(
        self,
        sheet: Path,
        out: Path,
        settings: EvaluationSettings,
        *,
        progress: Progress = SILENT,
    ) -> None:
        check_metrics(settings.metrics)
        self.settings = settings
        self.out = out
        self.progress = progress
        self.lines = {line.name: line for line in choose_lines(settings)}
        self.samples = read_cohort(sheet, query=settings.query, progress=progress)
        self.folds = make_folds(self.samples, settings.leave_out)
        self.images = self._images() if settings.query is Query.IMAGE else None
        self._sets: dict[int, GeneSets] = {}
        self._seen: dict[str, ImageTraces] = {}
        self._prepared: tuple[int, Prepared] | None = None
        self._cohort = [_cohort_facts(sample) for sample in self.samples]

    def _images(self) -> ImageInputs:
        return ImageInputs(
            self.settings.backbone,
            self.out / CACHE,
            workers=self.settings.workers,
            progress=self.progress,
        )

    def tasks(self) -> tuple[Task, ...]:
        """Return everything there is to do, fold by fold; lines without chance have one seed."""
        return tuple(
            Task(fold, line.name, seed)
            for fold in range(len(self.folds))
            for line in self.lines.values()
            for seed in self._seeds(line)
        )

    def _seeds(self, line: Line) -> tuple[int, ...]:
        if not line.stochastic:
            return self.settings.seeds[:1]
        return self.settings.seeds_of(line.name, getattr(line, "embedder", line.name))

    def place(self, task: Task) -> Path:
        """Return the folder of a task's result."""
        fold = "".join(c if c.isalnum() or c in "-_" else "_" for c in self.folds[task.fold].name)
        return self.out / PARTS / f"{task.fold:02d}-{fold}" / f"{task.line}-seed{task.seed}"

    def key(self, task: Task) -> str:
        """Return a digest of all that decides a task's result."""
        settings = settings_to_dict(self.settings)
        line = self.lines[task.line]
        own = {
            name: self.settings.embedder_config.get(name)
            for name in (task.line, getattr(line, "embedder", task.line))
        }
        kept = {name: value for name, value in settings.items() if name not in _IRRELEVANT}
        code = [__version__, code_digest()]
        facts = [*code, kept, own, self._cohort, self.folds[task.fold].name, task.line]
        return sha256_text(canonical_json([*facts, task.seed]))

    def prepare_features(self) -> None:
        """Read all patches and compute all backbone features once, before any fold."""
        if self.images is None:
            return
        with self.progress.task("patches and features", len(self.samples)) as task:
            for sample in self.samples:
                with kept_features(self.out / CACHE / "features"):
                    for kind in self.images.kinds:
                        self.images.features(sample, kind)
                task.advance(note=sample.name)

    def gene_sets(self, fold: int) -> GeneSets:
        """Return the gene sets of a fold, frozen on its training sections."""
        if fold not in self._sets:
            training = [self.samples[i].section for i in self.folds[fold].train]
            self._sets[fold] = freeze_gene_sets(
                training, n_genes=self.settings.n_genes, markers=self.settings.markers
            )
        return self._sets[fold]

    def audit(self) -> tuple[Finding, ...]:
        """Look for leaks in every fold."""
        settings = self.settings
        findings: list[Finding] = []
        with self.progress.task("leak audit", len(self.folds)) as task:
            for number, fold in enumerate(self.folds):
                sets = self.gene_sets(number)
                spec = None if self.images is None else self.images.backbone.spec
                traces = self._traces(sets, spec)
                findings += audit_fold(
                    fold,
                    self.samples,
                    traces,
                    sets=sets,
                    n_genes=settings.n_genes,
                    markers=settings.markers,
                    same_patient=settings.optimistic,
                )
                task.advance(note=fold.name)
        return tuple(findings)

    def _traces(self, sets: GeneSets, spec: PatchSpec | None) -> list[Traces]:
        """Return the traces of every section; those of images are made once."""
        made = []
        for sample in self.samples:
            if sample.name not in self._seen:
                self._seen[sample.name] = trace_images(sample, inputs=self.images, spec=spec)
            digests, thumbnails = self._seen[sample.name]
            made.append(Traces(digests, thumbnails, trace_expression(sample, sets)))
        return made

    def prepare(self, number: int) -> Prepared:
        """Return a fold with its gene sets and judge; the last one is kept."""
        if self._prepared is None or self._prepared[0] != number:
            fold = self.folds[number]
            samples = tuple(self.samples[i] for i in fold.train)
            sets = self.gene_sets(number)
            inputs, genes = self._inputs(samples, sets)
            training = Training(samples, sets, inputs, self.settings, self.progress)
            tests = tuple(self.samples[i] for i in fold.test)
            judge = Judge(training, self.settings.metrics)
            self._prepared = (number, Prepared(fold, training, tests, judge, genes))
        return self._prepared[1]

    def _inputs(self, samples: Sequence[Sample], sets: GeneSets) -> tuple[Inputs, tuple[str, ...]]:
        if self.images is not None:
            return self.images, ()
        genes = query_genes(samples, sets.panel)
        return ExpressionInputs(MolecularSpace.fit(samples, genes)), genes

    def run(self, task: Task) -> None:
        """Do one task and write its result, completely or not at all."""
        started = time.monotonic()
        prepared, line = self.prepare(task.fold), self.lines[task.line]
        with kept_features(self.out / CACHE / "features"):
            frames, maps, facts = self._score(prepared, line, task.seed)
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        per_mib = 2**20 if sys.platform == "darwin" else 2**10
        with atomic_path(self.place(task)) as folder:
            folder.mkdir()
            frames.to_parquet(folder / SCORES, index=False)
            write_arrays(folder / MAPS, maps)
            write_json(
                folder / FACTS,
                {
                    "key": self.key(task),
                    "fold": prepared.fold.name,
                    "line": task.line,
                    "seed": task.seed,
                    "seconds": round(time.monotonic() - started, 2),
                    "peak_mib": round(usage / per_mib),
                    "facts": facts,
                },
            )

    def _score(
        self, prepared: Prepared, line: Line, seed: int
    ) -> tuple[pd.DataFrame, dict[str, npt.NDArray[Any]], dict[str, Any]]:
        training = prepared.training
        fitted = line.fit(training, seed=seed)
        frames, maps = [], {}
        for sample in prepared.tests:
            shown = sample if line.sees_truth else sample.blind(prepared.blind_genes)
            prediction = fitted.predict(shown, training.inputs)
            control = line.family is Family.CONTROL
            expression = None if control else _embed_measured(fitted, sample)
            scores = prepared.judge.score(prediction, sample, expression)
            frames.append(scores.assign(section=sample.name, patient=sample.patient))
            maps[sample.name] = self._maps(training.sets, prediction)
        return pd.concat(frames, ignore_index=True), maps, fitted.facts()

    @staticmethod
    def _maps(sets: GeneSets, prediction: Prediction) -> npt.NDArray[np.float32]:
        columns = [sets.panel.index(gene) for gene in map_genes(sets)]
        return prediction.mean[:, columns].astype(np.float32)


def _embed_measured(fitted: Fitted, sample: Sample) -> npt.NDArray[np.float64] | None:
    """Return measured expression in the joint space, ``None`` where too few genes are measured.

    An image query does not need the section's own genes, so its predictions are scored all the same.
    """
    try:
        return fitted.embed_expression(sample)
    except GenePanelError:
        return None


@functools.cache
def code_digest() -> str:
    """Return the digest of this package's code, as far as it decides a score."""
    import stretrieve

    return digest_code(Path(stretrieve.__file__).parent)


def digest_code(package: Path) -> str:
    """Return one digest of all modules of a package but those that only show results."""
    paths = [path.relative_to(package) for path in package.rglob("*.py")]
    kept = sorted(path.as_posix() for path in paths if path.parts[0] not in _SHOWS_ONLY)
    return sha256_text(canonical_json([[name, (package / name).read_text()] for name in kept]))


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as one compressed ``.npz``."""
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **dict(arrays))


def map_genes(sets: GeneSets) -> tuple[str, ...]:
    """Return the genes that maps are kept of: the most variable ones and the first markers."""
    return tuple(dict.fromkeys((*sets.hvg50[:_MAP_GENES], *sets.markers[:_MAP_GENES])))


def _cohort_facts(sample: Sample) -> list[Any]:
    section = sample.section
    total = int(section.library_size.sum())
    image = "" if section.image is None else section.image.name
    labelled = 0 if sample.labels is None else int((sample.labels != "").sum())
    return [sample.name, sample.patient, section.n_spots, section.n_genes, total, image, labelled]
