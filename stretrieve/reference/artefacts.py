"""Checks of what a reference is made of against its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from stretrieve import keys
from stretrieve._files import sha256_file
from stretrieve.errors import ChecksumError, explain
from stretrieve.reference.layout import Layout
from stretrieve.reference.manifest import Manifest, section_entry
from stretrieve.store import SectionRecord, SpotStore
from stretrieve.store.checksums import digest_texts


def content_digest(section_digests: Iterable[tuple[str, str]]) -> str:
    """Return the digest over all rows, whatever order, time and files they were written in.

    Parameters
    ----------
    section_digests
        Name and digest of every section.
    """
    return digest_texts(f"{name}\t{digest}" for name, digest in sorted(section_digests))


def records_digest(records: Iterable[SectionRecord]) -> str:
    """Return :func:`content_digest` of the stored section records."""
    return content_digest((record.section, record.digest) for record in records)


def genes_entry(genes: pd.DataFrame) -> dict[str, Any]:
    """Return what the manifest says about the genes table."""
    columns = zip(genes.index, genes[keys.GENE_ID], genes[keys.GENE_SYMBOL], strict=True)
    return {"n": len(genes), "digest": digest_texts("\t".join(row) for row in columns)}


def check_tables(store: SpotStore, manifest: Manifest) -> None:
    """Check the genes and sections tables and the number of spots.

    Raises
    ------
    ChecksumError
        When a table is not what the manifest says.
    """
    if genes_entry(store.genes) != dict(manifest.genes):
        raise _table_error("genes")
    found = [section_entry(record) for record in store.sections()]
    if found != [dict(section) for section in manifest.sections]:
        raise _table_error("sections")
    if store.n_spots != manifest.n_spots:
        raise _table_error("spots", got=f"{store.n_spots} rows", expected=f"{manifest.n_spots}")


def file_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder, by name."""
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def check_embedder(layout: Layout, manifest: Manifest, *, label: str = "") -> None:
    """Check the embedder's files before they are read.

    Parameters
    ----------
    layout
        Where the reference is.
    manifest
        Its version.
    label
        Which of its embedders; its own when empty.

    Raises
    ------
    ChecksumError
        When a file is missing or is not what the manifest says.
    """
    for name, digest in manifest.seen_by(label).embedder["files"].items():
        path = layout.embedder_of(label) / name
        if not path.is_file():
            raise ChecksumError(explain(f"embedder file {name}", got="no such file"))
        if sha256_file(path) != digest:
            raise ChecksumError(
                explain(
                    f"embedder file {name}",
                    got="a file that fails its checksum",
                    remedy="restore it from a copy",
                )
            )


def _table_error(
    name: str, *, got: str = "rows that fail their checksum", expected: str | None = None
) -> ChecksumError:
    return ChecksumError(
        explain(
            f"{name} table of the store",
            got=got,
            expected=expected,
            remedy="run `stretrieve ref verify`, then restore the store from a copy",
        )
    )
