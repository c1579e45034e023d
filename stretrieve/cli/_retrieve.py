"""What the ``retrieve`` commands share: references, filters, and showing answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stretrieve.cli._options import split_tag

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from stretrieve.query.search import Hits, ReferenceSearch, SectionMatches, SignatureScores
    from stretrieve.store import Filter

MAX_ROWS = 100
SHOWN = (
    "query", "rank", "score", "n_neighbours", "similarity", "null_mean", "p_value", "p_adjusted",
    "null_patients", "coverage", "reference", "spot_uid", "section", "patient", "organ",
)  # fmt: skip


def open_references(refs: Sequence[str]) -> ReferenceSearch:
    """Open the references of ``--ref``, each a folder or ``folder@tag``."""
    from stretrieve.query.search import ReferenceSearch
    from stretrieve.reference import Reference

    places = [split_tag(ref) for ref in refs]
    return ReferenceSearch(*(Reference.open(uri, tag=tag) for uri, tag in places))


def parse_where(texts: Sequence[str]) -> Filter | None:
    """Return the predicate of ``column=a,b`` and ``column!=a`` texts, all of which must hold.

    Raises
    ------
    ConfigError
        When a text has no ``=`` or its column is unknown.
    """
    from stretrieve.errors import ConfigError, explain
    from stretrieve.spots import canonical_species
    from stretrieve.store import IsIn

    where: Filter | None = None
    for text in texts:
        name, equals, values = text.partition("=")
        column = name.strip().removesuffix("!").strip()
        if not equals:
            raise ConfigError(
                explain("--where", got=repr(text), expected="column=value or column!=value")
            )
        wanted = [value.strip() for value in values.split(",")]
        if column == "species":
            wanted = [canonical_species(value) for value in wanted]
        elif column in ("organ", "platform", "disease"):
            wanted = [value.lower() for value in wanted]
        one: Filter = IsIn(column, tuple(wanted))
        one = ~one if name.strip().endswith("!") else one
        where = one if where is None else where & one
    return where


def parse_signature(texts: Sequence[str]) -> dict[str, float]:
    """Return gene to weight of ``KRT7`` (weight 1), ``KRT7=2`` and ``VWF=-1`` texts.

    Raises
    ------
    ConfigError
        When a weight is no number or a gene is given twice.
    """
    from stretrieve.errors import ConfigError, explain

    weights: dict[str, float] = {}
    for text in texts:
        gene, _, weight = text.rpartition("=") if "=" in text else (text, "", "1")
        try:
            value = float(weight)
        except ValueError:
            value = float("nan")
        if value != value or not gene or gene in weights:
            got = f"{text!r}{', a gene twice' if gene in weights else ''}"
            raise ConfigError(explain("signature", got=got, expected="GENE or GENE=WEIGHT"))
        weights[gene] = value
    return weights


def read_vectors(path: Path) -> np.ndarray:
    """Read embeddings ``(n_query, dim)`` from a ``.npy`` file.

    Raises
    ------
    InputError
        When there is no such file or it holds no plain array.
    """
    import numpy as np

    from stretrieve.errors import InputNotFoundError, ShapeError, explain

    if not path.is_file():
        raise InputNotFoundError(explain("vectors", got=f"no file {path}"))
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise ShapeError(
            explain(f"vectors {path.name}", got=error, expected="an array in a .npy file")
        ) from error


@dataclass(frozen=True)
class Wanted:
    """Where an answer goes beside stdout.

    Parameters
    ----------
    out
        Table or AnnData file.
    sheet
        Contact sheet.
    overwrite
        Replace existing files.
    json
        One JSON object on stdout instead of a table.
    """

    out: Path | None
    sheet: Path | None
    overwrite: bool
    json: bool

    def check(self, *, spots: bool = True) -> None:
        """Refuse names that cannot be written, before any work is done."""
        from stretrieve.query.search.output import check_answer_path
        from stretrieve.report.contact_sheet import check_sheet_path

        if self.out is not None:
            check_answer_path(self.out, overwrite=self.overwrite, spots=spots)
        if self.sheet is not None:
            check_sheet_path(self.sheet, overwrite=self.overwrite)


def show_hits(hits: Hits, wanted: Wanted) -> None:
    """Write and print the answers of a search."""
    from stretrieve.query.search.output import write_answer

    table = hits.to_frame(thumbnails=_needs_images(wanted))
    if wanted.out is not None:
        write_answer(wanted.out, table, anndata=hits.to_anndata)
    images = dict(zip(hits.query.names, hits.query.thumbnails, strict=False))
    notes = [*hits.notes, *_sheet(table, wanted, f"{hits.direction}, cosine", images)]
    _print(table, wanted, {"direction": hits.direction}, notes)


def show_signature(scores: SignatureScores, top_k: int, wanted: Wanted) -> None:
    """Write and print the best spots of a signature."""
    from stretrieve.query.search.output import write_answer

    table = scores.to_frame(top_k, thumbnails=_needs_images(wanted))
    if wanted.out is not None:
        write_answer(wanted.out, table, anndata=lambda: scores.to_anndata(top_k))
    symbols = scores.pool.genes["gene_symbol"]
    title = "  ".join(f"{symbols[gene] or gene} {w:+g}" for gene, w in scores.weights.items())
    notes = [*scores.notes, *_sheet(table, wanted, title, {})]
    _print(table, wanted, {"signature": dict(scores.weights)}, notes)


def show_patches(scores: SignatureScores, hits: Hits, top_k: int, wanted: Wanted) -> None:
    """Write and print the patches of a slide whose neighbours score highest."""
    from stretrieve import keys
    from stretrieve.query.search.output import write_answer

    table = scores.of_patches(hits).head(top_k)
    if wanted.out is not None:
        write_answer(wanted.out, table)
    images = dict(zip(hits.query.names, hits.query.thumbnails, strict=False))
    pictured = table.rename(columns={"query": keys.SPOT_UID})
    pictured[keys.THUMBNAIL] = [images.get(name, b"") for name in table["query"]]
    notes = [*scores.notes, *hits.notes, *_sheet(pictured, wanted, "patches by signature", {})]
    _print(table, wanted, {"signature": dict(scores.weights)}, notes)


def show_matches(matches: SectionMatches, pairs: Path | None, wanted: Wanted) -> None:
    """Write and print sections compared with a section."""
    from stretrieve.query.search.output import write_answer

    if wanted.out is not None:
        write_answer(wanted.out, matches.table)
    if pairs is not None:
        write_answer(pairs, matches.pairs)
    _print(matches.table, wanted, {}, list(matches.notes))


def _needs_images(wanted: Wanted) -> bool:
    return wanted.sheet is not None or (wanted.out is not None and wanted.out.suffix == ".parquet")


def _sheet(table: pd.DataFrame, wanted: Wanted, title: str, queries: dict[str, bytes]) -> list[str]:
    if wanted.sheet is None:
        return []
    from stretrieve.report.contact_sheet import answer_strips, write_contact_sheet

    strips = answer_strips(table, queries=queries)
    left = write_contact_sheet(wanted.sheet, strips, title=title, overwrite=wanted.overwrite)
    return [f"{left} rows are not on the contact sheet"] if left else []


def _print(
    table: pd.DataFrame, wanted: Wanted, facts: Mapping[str, Any], notes: Sequence[str]
) -> None:
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.query.search.output import records

    files = {"output": wanted.out, "contact_sheet": wanted.sheet}
    if wanted.json:
        named = {name: str(path) for name, path in files.items() if path is not None}
        emit_json({**named, **facts, "notes": list(notes), "answers": records(table)})
        return
    columns = [name for name in SHOWN if name in table]
    rows = table.head(MAX_ROWS)[columns].itertuples(index=False)
    emit_table([tuple(row) for row in rows], columns=columns)
    if len(table) > MAX_ROWS:
        emit_text(f"{len(table) - MAX_ROWS} more rows: write them with --out")
    for note in notes:
        emit_text(f"note: {note}")
    for path in files.values():
        if path is not None:
            emit_text(f"wrote {path}")
