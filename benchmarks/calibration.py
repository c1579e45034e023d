"""Do the intervals of a calibrated reference cover patients that it has never seen?

    python benchmarks/calibration.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

DATA holds `her2st/<section>/` (sections A1, B4, C2-C5 of three patients) and `her2st_counts/` (counts
of 29 sections of six patients) of Andersson et al. 2021.

Two experiments, each leaving one patient out altogether; genes, embedder, settings and widths come from
the others:

1. image queries: three patients, so that two are left to calibrate on (a reference refuses that; here
   it is allowed, since there is no more real tissue), embedder fitted again without each patient;
2. expression queries: six patients; the "image" of a spot is the leading components of a random half of
   its genes, and the other half is imputed. Not what a slide gives, but enough patients.

Prints, for each held-out patient, the share of measured values inside the 80 and 90 % intervals, with
and without calibration, and writes FOLDER/calibration.md and .json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from stretrieve import Section, read_sheet
from stretrieve.config import settings_to_dict
from stretrieve.embedders import create_embedder
from stretrieve.embedders.base import SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.metrics.correlation import mean_over_genes, pearson_per_gene
from stretrieve.metrics.uncertainty import interval_coverage, interval_width
from stretrieve.query import (
    ArrayPool,
    Calibration,
    Prediction,
    Predictor,
    RetrievalSettings,
    calibrate,
)
from stretrieve.query.choose import HeldOut, variable_genes
from stretrieve.reference.build import gene_union
from stretrieve.reference.embed import embed_images
from stretrieve.spots import log_cp10k, read_section

SECTIONS = {"A1": "A", "B4": "B", "C2": "C", "C3": "C", "C4": "C", "C5": "C"}
MAX_GENES = 6000
GAUSS = {80: 1.2816, 90: 1.6449}
Rows = list[dict[str, object]]


def sections_on_disk(data: Path, out: Path) -> list[Section]:
    """Read the six sections with images."""
    lines = ["section,patient,organ,species,image,counts,spots,format"]
    for name, patient in SECTIONS.items():
        folder = (data / "her2st" / name).resolve()
        image = next(folder.glob("image.*"))
        spots = folder / ("spots.csv" if name == "A1" else "spots_selection.tsv")
        counts = folder / "counts.tsv.gz"
        lines.append(f"{name},{patient},breast,human,{image},{counts},{spots},st")
    sheet = out / "sections.csv"
    sheet.write_text("\n".join(lines) + "\n")
    return [read_section(row) for row in read_sheet(sheet)]


def common_genes(sections: Sequence) -> list[str]:
    """Genes that every section measured, so that coverage is over the same ones."""
    shared = set(gene_union(sections).index)
    for section in sections:
        shared &= set(section.gene_names)
    return sorted(shared)


def log_values(section: Section, genes: Sequence[str]) -> sparse.csr_matrix:
    """log1p CP10k of some genes, all genes in the denominator."""
    return log_cp10k(section.counts)[:, section.genes.index.get_indexer(genes)]


def image_pool(
    config: Mapping, name: str, fit_on: Sequence[SectionPatches], pool_of: Sequence[SectionPatches],
    genes: Sequence[str],
) -> ArrayPool:  # fmt: skip
    """Sections in the space of an embedder that was fitted on some of them."""
    embedder = create_embedder(name, config)
    embedder.fit(list(fit_on))
    sections = [one.section for one in pool_of]
    vectors = {
        "image": [embed_images(embedder, one, batch_size=64) for one in pool_of],
        "expression": [
            embedder.embed_expression(s.counts, s.gene_names, s.xy_um) for s in sections
        ],
    }
    return ArrayPool.build(
        {modality: np.concatenate(parts) for modality, parts in vectors.items()},
        sparse.vstack([log_values(s, genes) for s in sections]),
        genes,
        sections=[s.meta.section for s in sections for _ in range(s.n_spots)],
        patients=[s.meta.patient for s in sections for _ in range(s.n_spots)],
    )


def kept(out: Path) -> dict[str, dict[str, object]]:
    """Rows of this or an interrupted run, by label."""
    path = out / "rows.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {row["held out"]: row for row in map(json.loads, lines)}


def image_queries(data: Path, out: Path, name: str, config: Mapping) -> None:
    """Experiment 1."""
    sections = sections_on_disk(data, out)
    spec = create_embedder(name, config).spec
    patches = [collect_patches(s, spec, cache=out / "patches") for s in sections]
    genes = common_genes(sections)
    for left_out in "ABC":
        label = f"{name}, patient {left_out}"
        if label in kept(out):
            continue
        known = [p for p in patches if p.section.meta.patient != left_out]

        def pool_without(patient: str, known: Sequence = known) -> ArrayPool:
            fit_on = [p for p in known if p.section.meta.patient != patient]
            return image_pool(config, name, fit_on, known, genes)

        whole = image_pool(config, name, known, patches, genes)
        judge(out, label, left_out, whole, pool_without)


def expression_queries(data: Path, out: Path, *, n: int, seed: int = 0) -> None:
    """Experiment 2."""
    tables = {}
    for patient in "ABCDEF":
        names = sorted(p.name for p in (data / "her2st_counts" / "counts").glob(f"{patient}*"))
        for name in [n for n in names if n != "A2.tsv.gz"][:n]:
            path = data / "her2st_counts" / "counts" / name
            tables[name[:2]] = pd.read_csv(path, sep="\t", index_col=0)
    genes = sorted(set.intersection(*(set(table.columns) for table in tables.values())))
    total = sum(tables[name][genes].sum() for name in tables).sort_values(ascending=False)
    genes = sorted(total.index[:MAX_GENES])
    logs = {}
    for name, table in tables.items():
        counts = table.to_numpy()
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        logs[name] = pd.DataFrame(np.log1p(1e4 * counts / total), columns=table.columns)[genes]
    order = np.random.default_rng(seed).permutation(len(genes))
    seen, hidden = order[: len(genes) // 2], order[len(genes) // 2 :]
    values = np.concatenate([log.to_numpy(np.float32) for log in logs.values()])
    sections = np.repeat(list(logs), [len(log) for log in logs.values()])
    patients = np.array([name[0] for name in sections])
    targets = [genes[g] for g in hidden]

    def pool(rows: np.ndarray, fit_on: np.ndarray) -> ArrayPool:
        inputs = values[:, seen]
        mean = inputs[fit_on].mean(axis=0)
        scatter = (inputs[fit_on] - mean).T @ (inputs[fit_on] - mean)
        axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :50]
        codes = (inputs[rows] - mean) @ axes
        return ArrayPool.build(
            {"image": codes, "expression": codes}, values[rows][:, hidden], targets,
            sections=list(sections[rows]), patients=list(patients[rows]),
        )  # fmt: skip

    everything = np.ones(len(values), dtype=bool)
    for left_out in "ABCDEF":
        label, known = f"expression, patient {left_out}", patients != left_out
        if label in kept(out):
            continue

        def pool_without(patient: str, known: np.ndarray = known) -> ArrayPool:
            return pool(known, known & (patients != patient))

        judge(out, label, left_out, pool(everything, known), pool_without)


def judge(
    out: Path, label: str, left_out: str, whole: ArrayPool, pool_without: Callable[[str], ArrayPool]
) -> None:
    """Calibrate on all patients but one, look at that one, and keep the row.

    Parameters
    ----------
    out
        Where rows are kept.
    label
        Name of the row.
    left_out
        The patient that nobody has seen.
    whole
        All spots, in the space of an embedder fitted on the other patients.
    pool_without
        Patient to the other patients' and its own spots, in the space of an embedder that has not
        seen the patient.
    """
    start = time.monotonic()
    donors = whole.spots["patient"].to_numpy()
    folds = []
    for patient in sorted(set(donors) - {left_out}):
        pool = pool_without(patient)
        own = (pool.spots["patient"] == patient).to_numpy()
        folds.append(HeldOut(patient, pool, np.flatnonzero(own), ~own))
    calibration = calibrate(folds, refitted=True)
    known = donors != left_out
    hvg = variable_genes(ArrayPool.of(whole, np.flatnonzero(known)))
    columns = whole.genes.index.get_indexer(hvg)
    row: dict[str, object] = {
        "held out": label,
        "patients": len(folds),
        "expected PCC": calibration.facts["nested_pcc_mean"],
        "inflation 80/90": list(calibration.facts["inflation"].values()),
        "settings": changes(calibration.settings),
    }
    results = {
        way: [predict(whole, own, settings, known, calibration) for own in split(whole, ~known)]
        for way, settings in {"": calibration.settings, "default ": RetrievalSettings()}.items()
    }
    for way, parts in results.items():
        pcc = [
            mean_over_genes(pearson_per_gene(p.mean[:, columns], truth[:, columns])).mean
            for truth, p in parts
        ]
        row[f"{way}PCC"] = float(np.mean(pcc))
    for level in (80, 90):
        for name, genes in (("all", slice(None)), ("HVG200", columns)):
            inside, plain, width = [], [], []
            for truth, p in results[""]:
                low, high = p.intervals[level].lower[:, genes], p.intervals[level].upper[:, genes]
                inside.append(interval_coverage(truth[:, genes], low, high))
                width.append(interval_width(low, high))
                half = GAUSS[level] * p.spread[:, genes]
                mean = p.mean[:, genes]
                plain.append(interval_coverage(truth[:, genes], mean - half, mean + half))
            row[f"{level} {name}"] = float(np.nanmean(inside))
            row[f"{level} {name} spread only"] = float(np.nanmean(plain))
            row[f"{level} {name} width"] = float(np.nanmean(width))
    row["seconds"] = round(time.monotonic() - start, 1)
    with (out / "rows.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def split(pool: ArrayPool, rows: np.ndarray) -> list[np.ndarray]:
    """Positions of each section among some spots."""
    sections = pool.spots["section"].to_numpy()
    return [np.flatnonzero(rows & (sections == name)) for name in sorted(set(sections[rows]))]


def predict(
    pool: ArrayPool,
    own: np.ndarray,
    settings: RetrievalSettings,
    known: np.ndarray,
    calibration: Calibration,
) -> tuple[np.ndarray, Prediction]:
    """Truth and prediction of one section."""
    predictor = Predictor(pool, settings, allowed=known, calibration=calibration, score_ood=False)
    return pool.log_expression(own).toarray(), predictor.predict(pool.embeddings("image", own))


def changes(settings: RetrievalSettings) -> str:
    """What differs from the defaults."""
    default = settings_to_dict(RetrievalSettings())
    said = {k: v for k, v in settings_to_dict(settings).items() if v != default[k]}
    return ", ".join(f"{k}={v}" for k, v in said.items()) or "defaults"


def render(rows: Rows) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| held out | patients left | 80 %: all / HVG200 | spread only | 90 %: all / HVG200 |"
        " spread only | width 90, HVG200 | PCC HVG200 (expected; default settings) | chosen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [
            r["held out"], r["patients"],
            *(
                text
                for level in (80, 90)
                for text in (
                    f"{r[f'{level} all']:.1%} / {r[f'{level} HVG200']:.1%}",
                    f"{r[f'{level} all spread only']:.1%} / {r[f'{level} HVG200 spread only']:.1%}",
                )
            ),
            f"{r['90 HVG200 width']:.2f}",
            f"{r['PCC']:.3f} ({r['expected PCC']:.3f}; {r['default PCC']:.3f})",
            r["settings"],
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiments", default="expression,colour,frozen")
    parser.add_argument("--per-patient", type=int, default=2, help="sections, expression queries")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    mobilenet = {
        "encoder": {
            "backbone": "mobilenetv2_100", "weights": str(args.weights.resolve()),
            "model_kwargs": {"pad_type": "same"}, "mean": [0.5] * 3, "std": [0.5] * 3,
        },
        "side_um": 200.0,
    }  # fmt: skip
    runs = {
        "expression": lambda: expression_queries(args.data, args.out, n=args.per_patient),
        "colour": lambda: image_queries(args.data, args.out, "colour", {"side_um": 200.0}),
        "frozen": lambda: image_queries(args.data, args.out, "frozen", mobilenet),
    }
    for name in args.experiments.split(","):
        runs[name]()
    text = render(list(kept(args.out).values()))
    (args.out / "calibration.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
