"""The data of the demo: four small simulated sections of three donors, as files."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import OutputExistsError, explain
from stretrieve.simulation.section import SimulatedSection, simulate_section
from stretrieve.simulation.settings import TissueSettings
from stretrieve.simulation.write import write_section

REFERENCE_SECTIONS = (("donor1_a", "donor1"), ("donor1_b", "donor1"), ("donor2_a", "donor2"))
QUERY_SECTION = ("donor3_a", "donor3")
_THREADS = 2
_SHEET = "reference.csv"
_TRUTH = "truth.h5ad"
_README = """Simulated tissue, made by `stretrieve demo`. Pictures, counts and gene names are invented.

reference.csv   samplesheet of the three reference sections (donor1 twice, donor2)
*/slide.tiff    H&E-like tiled pyramids; */outs/ holds counts and spots as Space Ranger writes them
donor3_a/       the query: a donor that the reference has never seen
truth.h5ad      donor3_a: X = noise-free log1p CP10k, layers["counts"] = simulated counts
"""


@dataclass(frozen=True, slots=True)
class DemoData:
    """Where the demo's files are.

    Parameters
    ----------
    folder
        Holds everything else.
    sheet
        Samplesheet of the reference sections, two donors.
    query_image
        Slide of the third donor.
    query_positions
        Its spots in the layout of Space Ranger.
    query_patient
        Name of the third donor.
    truth
        h5ad of the third donor's spots: ``X`` = noise-free log1p CP10k, ``layers["counts"]`` =
        simulated counts, ``obs["region"]``, ``var["group"]``.
    """

    folder: Path
    sheet: Path
    query_image: Path
    query_positions: Path
    query_patient: str
    truth: Path


def write_demo_data(
    folder: Path,
    *,
    seed: int = 0,
    settings: TissueSettings | None = None,
    progress: Progress = SILENT,
) -> DemoData:
    """Simulate and write the demo's sections; the folder appears complete or not at all.

    Parameters
    ----------
    folder
        New folder.
    seed
        Seed of the cohort.
    settings
        Size, resolution and noise of each section.
    progress
        Receiver of progress, one unit a section.

    Raises
    ------
    OutputExistsError
        When ``folder`` is already there.
    """
    if folder.exists():
        raise OutputExistsError(
            explain(f"folder {folder}", got="an existing path", remedy="give another folder")
        )
    sections = (*REFERENCE_SECTIONS, QUERY_SECTION)
    with (
        atomic_path(folder) as temporary,
        progress.task("simulate sections", len(sections)) as task,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        temporary.mkdir()
        write = partial(_write, folder=temporary, seed=seed, settings=settings)
        for name in pool.map(write, sections):
            task.advance(note=name)
        _write_sheet(temporary / _SHEET)
        (temporary / "README.txt").write_text(_README)
    return demo_data(folder)


def demo_data(folder: Path) -> DemoData:
    """Return the paths inside a folder that :func:`write_demo_data` has written."""
    name, donor = QUERY_SECTION
    return DemoData(
        folder=folder,
        sheet=folder / _SHEET,
        query_image=folder / name / "slide.tiff",
        query_positions=folder / name / "outs" / "spatial" / "tissue_positions.csv",
        query_patient=donor,
        truth=folder / _TRUTH,
    )


def _write(
    named: tuple[str, str], *, folder: Path, seed: int, settings: TissueSettings | None
) -> str:
    """Simulate and write one section; return its name."""
    name, donor = named
    section = simulate_section(name, donor=donor, seed=seed, settings=settings)
    write_section(section, folder / name)
    if named == QUERY_SECTION:
        _write_truth(section, folder / _TRUTH)
    return name


def _write_sheet(path: Path) -> None:
    columns = ("section", "patient", "organ", "species", "platform", "image", "counts", "format")
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for name, donor in REFERENCE_SECTIONS:
            image, outs = f"{name}/slide.tiff", f"{name}/outs"
            writer.writerow((name, donor, "simulated", "simulated", "visium", image, outs, "auto"))


def _write_truth(simulated: SimulatedSection, path: Path) -> None:
    import anndata

    section = simulated.section
    obs = pd.DataFrame(
        {
            keys.SECTION: section.meta.section,
            keys.PATIENT: section.meta.patient,
            keys.LIBRARY_SIZE: section.library_size,
            "region": simulated.region,
        },
        index=pd.Index([str(spot) for spot in section.spot_ids]),
    )
    var = section.genes.assign(group=simulated.gene_group)
    data = anndata.AnnData(
        X=np.asarray(simulated.truth, dtype=np.float32),
        obs=obs,
        var=var,
        layers={"counts": section.counts},
        obsm={keys.SPATIAL: section.xy},
        uns={keys.UNS: {"simulated": True}},
    )
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary, compression="gzip")
