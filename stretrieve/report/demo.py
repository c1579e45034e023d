"""The demo: simulated tissue, a reference of two donors, and a slide of a third one."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anndata as ad
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path, canonical_json, write_json
from stretrieve._progress import SILENT, Progress
from stretrieve.config import settings_to_dict
from stretrieve.errors import OutputExistsError, explain
from stretrieve.query import Centring, QueryEngine, QueryResult, QuerySettings
from stretrieve.query.locate import SpotPositions
from stretrieve.reference import BuildSettings, Reference, build_reference
from stretrieve.report.demo_scores import RETRIEVAL, RETRIEVAL_PUBLISHED, DemoScores, score_demo
from stretrieve.report.maps import write_maps
from stretrieve.simulation import DemoData, TissueSettings, demo_data, write_demo_data
from stretrieve.spots import read_spot_positions
from stretrieve.training import AugmentSettings, TrainSettings

MAPPED_GENES: Final = ("SIM-TUM-001", "SIM-STR-001", "SIM-IMM-001", "SIM-FAT-001", "SIM-HID-001")
"""Genes that are drawn: four with a pattern in the image and one without."""

_MARKER: Final = "demo.json"
_SUMMARY: Final = "summary.json"
_NEXT_STEPS: Final = """\
What to try next
  maps of predicted and true genes:       {out}/maps
  predictions over the whole slide:       {out}/prediction.h5ad (opens in scanpy, squidpy, napari)
  the same query by hand:                 stretrieve query {image} --ref {reference} \\
                                            --patient {patient} --centring both --out again.h5ad
  your own sections:                      stretrieve build-ref SHEET.csv --out REF
                                            (columns as in {sheet})
All of this tissue is simulated: the figures show that the software works, not how well it predicts
real tissue.
"""


def demo_build_settings() -> BuildSettings:
    """Return how the demo's reference is built: BLEEP on a tiny network, trained from scratch.

    Nothing is downloaded, and eight passes over some thousand spots take seconds. Real tissue wants
    the defaults of ``build-ref``: a pretrained tower and larger patches.
    """
    return BuildSettings(
        embedder="bleep",
        embedder_config={
            "encoder": {"backbone": "test_resnet", "weights": "none"},
            "patch_px": 64,
            "side_um": 112.0,
            "dim": 64,
            "backbone_stages": -1,
            "rates": {"heads": 1e-3, "backbone": 1e-3},
        },
        train=TrainSettings(
            epochs=8, batch_size=128, early_stopping=False, augment=AugmentSettings(stain=0.15)
        ),
    )


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo.

    Parameters
    ----------
    tissue
        Size, resolution and noise of the simulated sections.
    build
        How the reference is built.
    query
        How the slide is queried. Offsets are removed, since the third donor is stained otherwise.
    """

    tissue: TissueSettings = field(default_factory=TissueSettings)
    build: BuildSettings = field(default_factory=demo_build_settings)
    query: QuerySettings = field(default_factory=lambda: QuerySettings(centring=Centring.BOTH))


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and found.

    Parameters
    ----------
    folder
        Holds all files.
    prediction
        h5ad with predictions on a grid over the third donor's slide.
    prediction_at_spots
        h5ad with predictions at the measured spots of that slide.
    maps
        PNG maps, predicted and true side by side.
    scores
        Index = method; columns ``hvg`` and ``all`` (mean per-gene Pearson r against the noise-free
        simulated truth), ``measured_hvg`` (against the noisy counts), ``n_genes``.
    summary
        The same and the time of each step in seconds, as plain JSON data.
    next_steps
        What to try next, several lines.
    """

    folder: Path
    prediction: Path
    prediction_at_spots: Path
    maps: tuple[Path, ...]
    scores: pd.DataFrame
    summary: dict[str, Any]
    next_steps: str

    @property
    def title(self) -> str:
        """Title of the table."""
        return "Mean per-gene Pearson r on the third donor's slide (simulated tissue)"

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of :meth:`rows`."""
        return ("method", "50 variable genes", "all genes", "50 variable genes, noisy counts")

    @property
    def text(self) -> str:
        """What follows the table."""
        total = sum(self.summary["seconds"].values())
        return f"{len(self.maps)} maps, done in {total:.0f} s\n\n{self.next_steps}"

    def rows(self) -> list[tuple[str, float, float, float]]:
        """Return one row a method: name and three correlations."""
        return [
            (str(name), float(row["hvg"]), float(row["all"]), float(row["measured_hvg"]))
            for name, row in self.scores.iterrows()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return scores, times and the paths of all files as plain JSON data."""
        return {
            **self.summary,
            "folder": str(self.folder),
            "prediction": str(self.prediction),
            "prediction_at_spots": str(self.prediction_at_spots),
            "maps": [str(path) for path in self.maps],
        }


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    settings: DemoSettings | None = None,
    progress: Progress = SILENT,
) -> DemoResult:
    """Simulate tissue, build a reference of two donors and predict a third donor's slide.

    Nothing is downloaded. An interrupted demo of the same settings goes on where it stopped.

    Parameters
    ----------
    out
        Folder of the demo: new, empty, or that of an interrupted demo.
    seed
        Seed of the simulated cohort.
    overwrite
        Replace an earlier demo in ``out``; other folders are never touched.
    settings
        See :class:`DemoSettings`.
    progress
        Told of every step.

    Raises
    ------
    OutputExistsError
        When ``out`` holds anything else than an interrupted demo of the same settings.
    """
    from threadpoolctl import threadpool_limits

    importlib.import_module("stretrieve.training.loop")  # only loaded libraries can be limited
    settings = settings or DemoSettings()
    _claim(out, {"seed": seed, **settings_to_dict(settings)}, overwrite=overwrite)
    clock = _Clock()
    with threadpool_limits(limits=1):  # threads that wait for each other cost a busy machine most
        data = _data(out / "data", settings.tissue, seed, progress)
        clock.lap("simulate")
        reference = _reference(data, out / "reference", settings, progress)
        clock.lap("build_reference")
        return _predict_and_score(out, data, reference, settings.query, clock, progress)


def _predict_and_score(
    out: Path,
    data: DemoData,
    reference: Reference,
    query: QuerySettings,
    clock: _Clock,
    progress: Progress,
) -> DemoResult:
    engine = QueryEngine(reference, settings=query)
    grid = engine.query(data.query_image, patient=data.query_patient, progress=progress)
    prediction = grid.to_h5ad(out / "prediction.h5ad", overwrite=True)
    clock.lap("query_slide")
    truth = ad.read_h5ad(data.truth)
    at_spots = _query_spots(engine, data, truth, progress)
    spots_file = at_spots.to_h5ad(out / "prediction_at_spots.h5ad", overwrite=True)
    clock.lap("query_spots")
    published = dataclasses.replace(query, centring=Centring.NONE)
    plain = _query_spots(QueryEngine(reference, settings=published), data, truth, progress)
    clock.lap("query_spots_as_published")
    side_um = reference.embedder.spec.primary.side_um
    ways = {RETRIEVAL: at_spots.adata, RETRIEVAL_PUBLISHED: plain.adata}
    scored = score_demo(ways, data, truth, side_um=side_um, progress=progress)
    clock.lap("baselines")
    maps = _maps(at_spots, truth, out / "maps")
    clock.lap("maps")
    summary = _write_scores(out, scored, reference, clock)
    steps = _next_steps(out, data)
    return DemoResult(out, prediction, spots_file, maps, scored.table, summary, steps)


def _write_scores(
    out: Path, scored: DemoScores, reference: Reference, clock: _Clock
) -> dict[str, Any]:
    """Write ``scores.csv`` and, last, ``summary.json``: the mark of a complete demo."""
    with atomic_path(out / "scores.csv") as temporary:
        scored.per_gene.to_csv(temporary, float_format="%.6g")
    spots = reference.spots
    summary = {
        "scores": scored.table.to_dict(orient="index"),
        "genes": scored.genes.to_dict(),
        "seconds": clock.laps,
        "reference": {"spots": len(spots), "patients": int(spots[keys.PATIENT].nunique())},
    }
    write_json(out / _SUMMARY, summary)
    return summary


def _next_steps(out: Path, data: DemoData) -> str:
    return _NEXT_STEPS.format(
        out=out,
        image=data.query_image,
        reference=out / "reference",
        patient=data.query_patient,
        sheet=data.sheet,
    )


class _Clock:
    """Seconds that each step took."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the time since the previous lap."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def _claim(out: Path, facts: dict[str, Any], *, overwrite: bool) -> None:
    """Mark ``out`` as the demo's, or refuse it."""
    marker = out / _MARKER
    if overwrite and marker.is_file():
        shutil.rmtree(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        mine = marker.is_file()
        same = mine and marker.read_text() == canonical_json(facts)
        if not same or (out / _SUMMARY).exists():
            found = "a complete demo" if same else "a demo of other settings"
            raise OutputExistsError(
                explain(
                    f"folder {out}",
                    got=found if mine else "other files",
                    expected="a new or empty folder",
                    remedy="give another one with --out, or replace an earlier demo: --overwrite",
                )
            )
    with atomic_path(marker) as temporary:
        temporary.write_text(canonical_json(facts))


def _data(folder: Path, tissue: TissueSettings, seed: int, progress: Progress) -> DemoData:
    if folder.exists():
        return demo_data(folder)
    return write_demo_data(folder, seed=seed, settings=tissue, progress=progress)


def _reference(
    data: DemoData, folder: Path, settings: DemoSettings, progress: Progress
) -> Reference:
    if folder.exists():
        return Reference.open(folder)
    return build_reference(
        data.sheet, folder, settings=settings.build, resume=True, progress=progress
    )


def _query_spots(
    engine: QueryEngine, data: DemoData, truth: ad.AnnData, progress: Progress
) -> QueryResult:
    names, xy = read_spot_positions(data.query_positions)
    order = pd.Index(names).get_indexer(truth.obs_names)
    spots = SpotPositions(names[order], xy[order])
    return engine.query(
        data.query_image, patient=data.query_patient, spots=spots, progress=progress
    )


def _maps(at_spots: QueryResult, truth: ad.AnnData, folder: Path) -> tuple[Path, ...]:
    names = list(MAPPED_GENES)
    return write_maps(at_spots.adata, names, folder, truth=truth[:, names].X)
