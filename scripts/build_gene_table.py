"""Build the frozen table of gene names that ``stretrieve.spots.gene_table`` reads.

Inputs are release files, none is downloaded:

- gene lists, newest first for each species: GENCODE GTF (``.gtf``, ``.gtf.gz``) or a CSV without header
  whose first columns are Ensembl id and symbol;
- HGNC ``hgnc_complete_set.txt`` (previous symbols and aliases, human);
- MGI ``MRK_List2.rpt`` (synonyms, mouse).

Example::

    python scripts/build_gene_table.py stretrieve/spots/data/genes.parquet --date 2026-11-21 \
        --genes human "GENCODE 48" human_48.csv.gz --genes human "GENCODE 44" human_44.csv.gz \
        --genes mouse "GENCODE M37" mouse_37.csv.gz --hgnc "HGNC 2021-02-19" hgnc_complete_set.txt
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from stretrieve._files import atomic_path, sha256_file
from stretrieve.spots.gene_table import METADATA_KEY, PREFIXES, NameKind

Names = dict[str, set[str]]
Rows = list[tuple[str, int, str, str]]

_ID = re.compile(r"^(ENS[A-Z]*G\d{11})(?:\.\d+)?$")
_GTF_ID = re.compile(r'gene_id "([^"]+)"')
_GTF_NAME = re.compile(r'gene_name "([^"]+)"')
_NAME = re.compile(r"^[A-Za-z0-9][^\s,;|\"]{0,39}$")
_RENAMED = re.compile(r"^(septin|marchf|mtarc)(\d{1,2})$", re.IGNORECASE)
_FORMER = {"septin": "Sept", "marchf": "March", "mtarc": "Marc"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the frozen table of gene names.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--date", required=True, help="date of the table, YYYY-MM-DD")
    parser.add_argument(
        "--genes", nargs=3, action="append", required=True, metavar=("SPECIES", "RELEASE", "FILE")
    )
    parser.add_argument("--hgnc", nargs=2, metavar=("RELEASE", "FILE"))
    parser.add_argument("--mgi", nargs=2, metavar=("RELEASE", "FILE"))
    given = parser.parse_args(arguments)
    unknown = sorted({species for species, _, _ in given.genes} - set(PREFIXES))
    if unknown:
        parser.error(f"species {unknown[0]!r}; known: {', '.join(PREFIXES)}")
    rows: Rows = []
    for species in PREFIXES:
        lists = [read_genes(Path(f), PREFIXES[species]) for s, _, f in given.genes if s == species]
        if lists:
            rows += species_rows(
                species,
                lists,
                hgnc=Path(given.hgnc[1]) if given.hgnc and species == "human" else None,
                mgi=Path(given.mgi[1]) if given.mgi and species == "mouse" else None,
            )
    write_table(given.out, rows, date=given.date, sources=_sources(given))
    sys.stdout.write(f"{given.out}: {len(rows)} names, {given.out.stat().st_size} bytes\n")
    return 0


def _sources(given: argparse.Namespace) -> list[dict[str, str]]:
    named = [(f"{s} genes", r, f) for s, r, f in given.genes]
    named += [("human names", *given.hgnc)] if given.hgnc else []
    named += [("mouse names", *given.mgi)] if given.mgi else []
    return [
        {"what": what, "release": release, "file": Path(f).name, "sha256": sha256_file(Path(f))}
        for what, release, f in named
    ]


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    opener = gzip.open if zipped else open
    with opener(path, "rt", encoding="utf-8") as stream:
        yield from stream


def read_genes(path: Path, prefix: str) -> dict[str, str]:
    """Return Ensembl id (without version) to symbol, ``""`` where a gene has none."""
    pairs = _gtf_pairs(path) if ".gtf" in path.suffixes else _csv_pairs(path)
    genes: dict[str, str] = {}
    for raw_id, raw_name in pairs:
        match = _ID.match(raw_id)
        if match and match[1].startswith(prefix) and match[1] not in genes:
            name = re.sub(rf"_{prefix}\d+$", "", raw_name)
            genes[match[1]] = "" if _ID.match(name) else name
    return genes


def _csv_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for row in csv.reader(_lines(path)):
        if len(row) >= 2:
            yield row[0], row[1]


def _gtf_pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        cells = line.split("\t")
        if len(cells) < 9 or cells[2] != "gene":
            continue
        gene_id, name = _GTF_ID.search(cells[8]), _GTF_NAME.search(cells[8])
        if gene_id:
            yield gene_id[1], name[1] if name else ""


def species_rows(
    species: str, lists: Sequence[dict[str, str]], *, hgnc: Path | None, mgi: Path | None
) -> Rows:
    """Return (species, kind, name, gene id) for all names of a species.

    ``lists`` are gene lists, newest first; only genes of the newest get names.
    """
    newest = lists[0]
    current: Names = defaultdict(set)
    for gene_id, name in newest.items():
        if name:
            current[name].add(gene_id)
    previous: Names = defaultdict(set)
    alias: Names = defaultdict(set)
    retired: Names = defaultdict(set)
    for older in lists[1:]:
        _add_older(older, newest, current, previous, retired)
    _add_renamed_families(current, previous)
    if hgnc is not None:
        _add_hgnc(hgnc, newest, current, previous, alias)
    if mgi is not None:
        _add_mgi(mgi, current, alias)
    rows: Rows = []
    for kind, names in (
        (NameKind.CURRENT, current),
        (NameKind.PREVIOUS, _without(previous, current)),
        (NameKind.ALIAS, _without(_without(alias, current), previous)),
        (NameKind.RETIRED_ID, {name: ids for name, ids in retired.items() if len(ids) == 1}),
    ):
        rows += [(species, int(kind), name, i) for name, ids in names.items() for i in ids]
    return sorted(rows)


def _without(names: Names, stronger: Names) -> Names:
    return {n: ids for n, ids in names.items() if n not in stronger and _NAME.match(n)}


def _add_older(
    older: dict[str, str], newest: dict[str, str], current: Names, previous: Names, retired: Names
) -> None:
    for gene_id, name in older.items():
        if not name:
            continue
        if gene_id in newest:
            if newest[gene_id] != name:
                previous[name].add(gene_id)
        elif len(current.get(name, ())) == 1:
            retired[gene_id] |= current[name]


def _add_renamed_families(current: Names, previous: Names) -> None:
    """Add the names that spreadsheets took for dates until the families were renamed (2019-2020)."""
    for name, ids in current.items():
        match = _RENAMED.match(name)
        if match:
            stem = _FORMER[match[1].lower()]
            former = stem.upper() if match[1].isupper() else stem
            previous[former + match[2]] |= ids


def _add_hgnc(
    path: Path, newest: dict[str, str], current: Names, previous: Names, alias: Names
) -> None:
    for row in csv.DictReader(_lines(path), delimiter="\t"):
        symbol, gene_id = row["symbol"], row.get("ensembl_gene_id") or ""
        if gene_id not in newest:
            gene_id = next(iter(current[symbol])) if len(current.get(symbol, ())) == 1 else ""
        if not gene_id or row.get("status", "Approved") != "Approved":
            continue
        if gene_id in current.get(symbol, ()):
            current[symbol] = {gene_id}
        elif newest[gene_id]:
            previous[symbol].add(gene_id)
        for name in _split(row.get("prev_symbol")):
            previous[name].add(gene_id)
        for name in _split(row.get("alias_symbol")):
            alias[name].add(gene_id)


def _add_mgi(path: Path, current: Names, alias: Names) -> None:
    for row in csv.DictReader(_lines(path), delimiter="\t"):
        ids = current.get(row["Marker Symbol"], set())
        if len(ids) == 1 and row.get("Marker Type") in {"Gene", "Pseudogene"}:
            for name in _split(row.get("Marker Synonyms (pipe-separated)")):
                alias[name] |= ids


def _split(cell: str | None) -> list[str]:
    return [part.strip() for part in (cell or "").strip('"').split("|") if part.strip()]


def write_table(out: Path, rows: Rows, *, date: str, sources: list[dict[str, str]]) -> None:
    """Write the table with its sources in the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = {"format": 1, "date": date, "names": len(rows), "sources": sources}
    schema = pa.schema(
        [
            ("species", pa.string()),
            ("kind", pa.int8()),
            ("name", pa.string()),
            ("gene", pa.int32()),
        ],
        metadata={METADATA_KEY: json.dumps(info, sort_keys=True).encode()},
    )
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    numbers = [int(gene_id[-11:]) for gene_id in columns[3]]
    table = pa.table([columns[0], columns[1], columns[2], numbers], schema=schema)
    with atomic_path(out) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=["species"],
            column_encoding={
                "kind": "PLAIN",
                "name": "DELTA_BYTE_ARRAY",
                "gene": "DELTA_BINARY_PACKED",
            },
            row_group_size=1 << 20,
        )


if __name__ == "__main__":
    raise SystemExit(main())
