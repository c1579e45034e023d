"""Retrieval in all four directions on real tissue: do the spots found share genes with the query?

    python benchmarks/retrieval.py DATA --out FOLDER [--embedder colour] [-- build-ref options]

DATA holds `her2st/<section>/` (Andersson et al. 2021) of A1, B4 and C2-C5. Each of the three patients is
left out once: embedder and reference come from the other two, and every spot of the left-out sections
asks, by its patch and by its expression. A direction's figure is the mean over HVG50 (chosen on the
reference's sections) of Pearson's r, over the spots of a section, between measured log1p CP10k and the
mean of the top 50 found. Expression queries have seen the genes that are scored: their figures say how
well the space keeps expression, not how well anything is predicted. `random` draws 50 spots instead.

The last table matches whole sections within one reference of all six, own section left out: C2-C5 are
neighbours of one tumour, so each of them should find the other three first.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from _measure import stretrieve

from stretrieve import Reference, ReferenceSearch, read_sheet
from stretrieve.evaluation import freeze_gene_sets
from stretrieve.metrics import mean_over_genes, pearson_per_gene
from stretrieve.query import SpotPositions
from stretrieve.query.search import Hits, SpotQuery
from stretrieve.query.search.spotdata import log_expression
from stretrieve.spots import Section, log_cp10k, read_section

SECTIONS = {"A1": "A", "B4": "B", "C2": "C", "C3": "C", "C4": "C", "C5": "C"}
TOP_K = 50
COLUMNS = ("section", "patient", "organ", "species", "image", "counts", "spots", "format")


def write_sheet(data: Path, path: Path, names: list[str]) -> Path:
    """Write a samplesheet of some sections; A1's image is a smaller copy with its own positions."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for name in names:
            folder = (data / "her2st" / name).resolve()
            spots = folder / ("spots.csv" if name == "A1" else "spots_selection.tsv")
            image = next(folder.glob("image.*"))
            counts = folder / "counts.tsv.gz"
            writer.writerow([name, SECTIONS[name], "breast", "human", image, counts, spots, "st"])
    return path


def build(data: Path, out: Path, name: str, sections: list[str], options: list[str]) -> Reference:
    """Build a reference of some sections, or open the one that an earlier run has built."""
    folder = out / name
    if not folder.is_dir():
        sheet = write_sheet(data, out / f"{name}.csv", sections)
        stretrieve("build-ref", sheet, "--out", folder, "--quiet", *options)
    return Reference.open(folder)


def queries(search: ReferenceSearch, section: Section) -> dict[str, SpotQuery]:
    """Return a section's spots as image and as expression queries, in one order."""
    at = SpotPositions(section.spot_ids, section.xy)
    patches = search.patches(
        section.image, mpp=section.pixel_size, spots=at, patient=section.meta.patient
    )
    return {"image": patches, "expression": search.section(section)}


def agreement(hits: Hits, section: Section, genes: list[str]) -> float:
    """Return the mean r over genes between the queries' expression and the mean of what they found."""
    reference = hits.pool.references[0]
    rows = [list(section.spot_ids).index(name) for name in hits.query.names]
    truth = log_cp10k(section.counts).toarray()[rows]
    columns = [section.gene_names.index(gene) for gene in genes]
    used, inverse = np.unique(hits.positions, return_inverse=True)
    values, _ = log_expression(reference, used, genes)
    means = values[inverse.reshape(hits.positions.shape)].mean(axis=1)
    return mean_over_genes(pearson_per_gene(means, truth[:, columns])).mean


def directions(search: ReferenceSearch, section: Section, genes: list[str]) -> dict[str, float]:
    """Return the figure of every direction, and of random spots."""
    scores = {}
    for query in queries(search, section).values():
        for target in ("expression", "image"):
            hits = search.search(query, target=target, top_k=TOP_K)
            scores[hits.direction] = agreement(hits, section, genes)
    n = len(search.pool.references[0].spot_table)
    drawn = np.random.default_rng(0).integers(0, n, hits.positions.shape)
    random = Hits(hits.pool, hits.query, hits.target, np.zeros_like(drawn), drawn, hits.scores)
    return {**scores, "random": agreement(random, section, genes)}


def patients_left_out(data: Path, out: Path, options: list[str]) -> list[str]:
    """Return the lines of the table of directions."""
    sections = {row.section: read_section(row) for row in read_sheet(
        write_sheet(data, out / "all.csv", list(SECTIONS)))}  # fmt: skip
    lines = []
    for patient in sorted(set(SECTIONS.values())):
        kept = [name for name, owner in SECTIONS.items() if owner != patient]
        search = ReferenceSearch(build(data, out, f"without-{patient}", kept, options))
        chosen = freeze_gene_sets([sections[name] for name in kept]).hvg50
        for name in (name for name, owner in SECTIONS.items() if owner == patient):
            genes = [gene for gene in chosen if gene in set(sections[name].gene_names)]
            found = directions(search, sections[name], genes)
            if not lines:
                lines += [
                    f"| left out | genes | {' | '.join(found)} |",
                    "|---|---|" + "---|" * len(found),
                ]
            figures = " | ".join(f"{value:+.3f}" for value in found.values())
            lines.append(f"| {name} (patient {patient}) | {len(genes)} | {figures} |")
    return lines


def whole_sections(data: Path, out: Path, options: list[str]) -> list[str]:
    """Return the lines of the table of sections matched within one reference."""
    search = ReferenceSearch(build(data, out, "six", list(SECTIONS), options))
    lines = ["| section | by | others, most similar first (mean cosine) |", "|---|---|---|"]
    for name in SECTIONS:
        for side in ("image", "expression"):
            query = search.stored_section(name, modality=side)
            table = search.match(query, exclude="section").table
            order = ", ".join(
                f"{s} {v:.2f}" for s, v in zip(table["section"], table["similarity"], strict=True)
            )
            lines.append(f"| {name} | {side} | {order} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedder", default="colour")
    parser.add_argument("options", nargs="*", help="further options of build-ref, after --")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = ["--embedder", arguments.embedder, *arguments.options]
    lines = [
        "## Patient left out, all directions", "",
        *patients_left_out(arguments.data, arguments.out, options), "",
        "## Whole sections", "",
        *whole_sections(arguments.data, arguments.out, options),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    (arguments.out / "result.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
