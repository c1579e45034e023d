"""Queries whose answer goes to disk: begun, resumed, finished, found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stretrieve import keys
from stretrieve._files import canonical_json, sha256_text
from stretrieve._progress import SILENT, Progress
from stretrieve.config import take_choices
from stretrieve.errors import OutputExistsError, explain
from stretrieve.query.encode import check_failures
from stretrieve.query.export import write_spatialdata
from stretrieve.query.groups import RowStatus
from stretrieve.query.output import (
    Facts,
    Frame,
    gene_table,
    make_frame,
    spatial_facts,
    used_spots,
)
from stretrieve.query.parts import Form
from stretrieve.query.result import summarise
from stretrieve.query.stream import Job, run
from stretrieve.query.workfolder import WorkFolder, discard_work, open_work, work_path
from stretrieve.query.write import OutputFormat, open_output


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """How predictions are stored.

    Parameters
    ----------
    format
        ``h5ad``, ``zarr`` or ``spatialdata``.
    sparse
        Store ``X`` and ``spread`` by their non-zero values.
    """

    format: OutputFormat = OutputFormat.H5AD
    sparse: bool = False

    def __post_init__(self) -> None:
        take_choices(self)

    def digest(self, query: str) -> str:
        """Return the digest of a query stored in this way."""
        return sha256_text(canonical_json([query, self.format.value, self.sparse]))


@dataclass(frozen=True)
class WrittenQuery:
    """An answer on disk.

    Parameters
    ----------
    path
        The file or folder.
    summary
        Key facts, as :meth:`~stretrieve.query.result.QueryResult.summary`.
    was_there
        Whether an earlier run had finished it.
    """

    path: Path
    summary: dict[str, Any]
    was_there: bool = False


def write_query(
    out: Path, job: Job, facts: Facts, output: OutputSettings, *, progress: Progress = SILENT
) -> WrittenQuery:
    """Predict what is missing and put the output together meanwhile, then give it its name.

    Raises
    ------
    SlideError
        When too many patches cannot be read.
    BusyError
        When another process writes the same output.
    ResourceError
        When memory or disk is exhausted.
    """
    form = Form.of(job.grouping, len(job.genes), is_sparse=output.sparse)
    is_spatial = output.format is OutputFormat.SPATIALDATA
    with open_work(out, digest=facts.digest, form=form) as work:
        table = work.table if is_spatial else work.output
        kind = OutputFormat.H5AD if is_spatial else output.format
        with open_output(table, form, output_format=kind) as writer:
            work.on_put = writer.put

            def describe() -> None:
                writer.describe(gene_table(facts), {keys.SPATIAL: spatial_facts(facts)})

            run(job, work, meanwhile=describe, progress=progress)
            frame = _frame(job, facts, work)
            writer.finish(frame, work.groups)
        if is_spatial:
            write_spatialdata(table, work.output)
        work.name_output(out)
    return WrittenQuery(out, summarise(frame.obs, frame.uns[keys.UNS], form.n_genes))


def _frame(job: Job, facts: Facts, work: WorkFolder) -> Frame:
    """Return the tables of the output, unless too many patches failed."""
    columns = _columns(work)
    failed = int((columns[keys.STATUS] == RowStatus.FAILED.value).sum())
    check_failures(job.slide, failed, len(job.positions), job.settings.max_failed)
    used = used_spots(g.arrays[keys.NEIGHBOURS] for g in work.groups(matrices=False))
    return make_frame(facts, columns, used)


def _columns(work: WorkFolder) -> dict[str, np.ndarray]:
    parts = [group.columns for group in work.groups(matrices=False)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def finished(out: Path, digest: str, *, overwrite: bool, skip: bool) -> WrittenQuery | None:
    """Return the answer that is at ``out`` already, or ``None`` when the way is free.

    An answer whose run was interrupted after it got its name counts as that run's.

    Parameters
    ----------
    out
        The output.
    digest
        Of the query and its storage.
    overwrite
        Replace whatever is there.
    skip
        Take an answer to the same question for this one.

    Raises
    ------
    OutputExistsError
        When something else is there.
    """
    if not out.exists():
        return None
    if skip or work_path(out).is_dir():
        found = _read(out)
        if found is not None and found[1].get("query_digest") == digest:
            discard_work(out)
            return WrittenQuery(out, summarise(*found), was_there=True)
    if overwrite:
        return None
    raise OutputExistsError(
        explain("output", got=f"{out} exists", remedy="choose another name or --overwrite")
    )


def _read(out: Path) -> tuple[pd.DataFrame, dict[str, Any], int] | None:
    """Read the tables of an output; ``None`` when it is not one of ours."""
    try:
        if out.is_dir():
            import zarr

            root: Any = zarr.open_group(out, mode="r")
            return _tables(root["tables/predictions"] if "tables" in root else root)
        import h5py

        with h5py.File(out, "r") as root:
            return _tables(root)
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return None


def _tables(root: Any) -> tuple[pd.DataFrame, dict[str, Any], int]:
    import anndata as ad

    obs = ad.io.read_elem(root["obs"])
    uns = {
        name: ad.io.read_elem(root["uns"][keys.UNS][name])
        for name in ("slide", "patches", "warnings", "query_digest")
    }
    return obs, uns, len(ad.io.read_elem(root["var"]))
