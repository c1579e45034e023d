"""Real tissue, end to end: reference from her2st A1, C2-C5, queries on B4 and on a whole slide.

    python benchmarks/her2st.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

DATA holds `her2st/<section>/` (counts.tsv.gz, image, spot file; Andersson et al. 2021) and, for the
last query, `wsi/aperio/CMU-1-Small-Region.svs` (OpenSlide test data). B4 comes from a patient that no
reference section shares. Genes are chosen on the reference sections; truth is log1p CP10k of raw
counts.

Prints one Markdown table of mean per-gene Pearson correlations beside simple baselines on the same
features, with the share of every step in time and memory, and writes it to FOLDER/result.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import anndata as ad
import numpy as np
from _measure import Run, stretrieve

from stretrieve import Section, read_sheet
from stretrieve.embedders import load_embedder
from stretrieve.embedders.base import Embedder
from stretrieve.embedders.data import collect_patches
from stretrieve.evaluation import (
    BASELINES,
    TrainingData,
    freeze_gene_sets,
    score_prediction,
)
from stretrieve.slides.types import PatchBatch
from stretrieve.spots import log_cp10k, read_section

REFERENCE = {"A1": "A", "C2": "C", "C3": "C", "C4": "C", "C5": "C"}
QUERY = "B4"
QUERY_MPP = 0.688  # 200 µm pitch over 290.8 px, mean of both axes
MOBILENET = (
    "--backbone", "mobilenetv2_100",
    "--set", "embedder_config.encoder.model_kwargs.pad_type='same'",
    "--set", "embedder_config.encoder.mean=[0.5, 0.5, 0.5]",
    "--set", "embedder_config.encoder.std=[0.5, 0.5, 0.5]",
)  # fmt: skip
CHOICES = {
    "as published: BLEEP average": ("--weights", "uniform", "--centring", "none"),
    "as published: BLEEP weighted average": ("--weights", "bleep", "--centring", "none"),
    "sections centred": ("--centring", "section"),
    "sections and slide centred": ("--centring", "both"),
    "sections and slide centred, softmax over 200": (
        "--centring", "both", "--weights", "softmax", "--top-k", "200",
    ),
    "sections and slide centred, image to image": ("--centring", "both", "--modality", "image"),
}  # fmt: skip


def spot_file(folder: Path, section: str) -> Path:
    """A1's image is a smaller copy: its pixels are in spots.csv, not in the published file."""
    return folder / ("spots.csv" if section == "A1" else "spots_selection.tsv")


def write_sheet(data: Path, out: Path) -> tuple[Path, Path]:
    """Write the samplesheets of the reference and of the query section."""
    sheets = {}
    for name, patients in (("reference", REFERENCE), ("query", {QUERY: "B"})):
        sheets[name] = out / f"{name}.csv"
        with sheets[name].open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(
                ["section", "patient", "organ", "species", "image", "counts", "spots", "format"]
            )
            for section, patient in patients.items():
                folder = (data / "her2st" / section).resolve()
                image = next(p for p in folder.glob("image.*"))
                writer.writerow(
                    [section, patient, "breast", "human", image, folder / "counts.tsv.gz",
                     spot_file(folder, section), "st"]
                )  # fmt: skip
    return sheets["reference"], sheets["query"]


def features(embedder: Embedder, section: Section) -> np.ndarray:
    """Backbone features under the spots of a section."""
    patches = collect_patches(section, embedder.spec)
    parts = []
    for start in range(0, section.n_spots, 64):
        rows = slice(start, start + 64)
        xy = section.xy[rows]
        batch = PatchBatch(
            tuple(view[rows] for view in patches.views), xy, section.pixel_size.to_um(xy),
            np.arange(start, start + len(xy)), np.zeros(len(xy), np.uint8),
        )  # fmt: skip
        parts.append(embedder.encode_patches(batch))
    return np.concatenate(parts)


def baselines(
    embedder: Embedder, training: list[Section], test: Section, genes: list[str]
) -> dict[str, np.ndarray]:
    """Predictions of the simple lines, on the backbone features of the reference's embedder."""
    data = TrainingData.build(
        np.concatenate([features(embedder, s) for s in training]),
        np.concatenate([truth(s, genes) for s in training]),
        np.concatenate([[s.meta.section] * s.n_spots for s in training]),
        groups=np.concatenate([[s.meta.patient] * s.n_spots for s in training]),
    )
    inputs = features(embedder, test)
    return {f"baseline: {name}": fit(data).predict(inputs) for name, fit in BASELINES.items()}


def truth(section: Section, genes: list[str]) -> np.ndarray:
    """log1p CP10k of some genes, all genes in the denominator."""
    columns = section.genes.index.get_indexer(genes)
    return log_cp10k(section.counts).toarray()[:, columns]


def query_b4(data: Path, ref: Path, out: Path) -> tuple[dict[str, np.ndarray], Run, list[str]]:
    """Predict at the measured spots of B4 with each way of averaging."""
    folder = data / "her2st" / QUERY
    image = next(folder.glob("image.*"))
    predictions, run, names = {}, None, []
    for i, (label, options) in enumerate(CHOICES.items()):
        path = out / f"b4_spots_{i}.h5ad"
        run = stretrieve(
            "query", image, "--ref", ref, "--out", path, "--mpp", QUERY_MPP, "--patient", "B",
            "--spots", spot_file(folder, QUERY), "--overwrite", *options,
        )  # fmt: skip
        adata = ad.read_h5ad(path)
        predictions[label] = adata
        names = list(adata.obs_names)
    return predictions, run, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedder", default="bleep")
    parser.add_argument("--patch-um", default="200")
    parser.add_argument("--patch-px", default="224")
    parser.add_argument("--set", action="append", default=[], help="further build settings")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    reference_sheet, query_sheet = write_sheet(args.data, args.out)
    backbone = (
        () if args.embedder == "colour" else (*MOBILENET, "--weights", args.weights.resolve())
    )
    ref = args.out / "REF"
    runs = {}
    runs["build-ref (5 sections)"] = stretrieve(
        "build-ref", reference_sheet, "--out", ref, "--embedder", args.embedder,
        "--patch-um", args.patch_um, "--patch-px", args.patch_px, *backbone,
        *(part for item in args.set for part in ("--set", item)),
    )  # fmt: skip
    predicted, runs["query B4 at its 283 spots"], _ = query_b4(args.data, ref, args.out)
    image = next((args.data / "her2st" / QUERY).glob("image.*"))
    runs["query B4 on a grid, all genes"] = stretrieve(
        "query", image, "--ref", ref, "--out", args.out / "b4_grid.h5ad", "--mpp", QUERY_MPP,
        "--patient", "B", "--overwrite",
    )  # fmt: skip
    slide = args.data / "wsi" / "aperio" / "CMU-1-Small-Region.svs"
    runs["query CMU-1-Small-Region.svs, 50 µm grid"] = stretrieve(
        "query", slide, "--ref", ref, "--out", args.out / "cmu1.h5ad", "--stride-um", 50,
        "--overwrite",
    )  # fmt: skip

    training = [read_section(row) for row in read_sheet(reference_sheet)]
    (test,) = (read_section(row) for row in read_sheet(query_sheet))
    hvg = list(freeze_gene_sets(training).hvg50)
    genes = [g for g in hvg if g in set(test.gene_names)]
    expected = truth(test, genes)
    embedder = load_embedder(ref / "embedder")
    rows = {}
    for label, adata in predicted.items():
        order = adata.obs_names.get_indexer(test.spot_ids)
        rows[label] = adata[order, genes].X
    rows |= baselines(embedder, training, test, genes)
    shuffled = np.random.default_rng(0).permutation(len(expected))
    rows["control: spots shuffled"] = rows[next(iter(CHOICES))][shuffled]
    scores = {
        label: score_prediction(values, expected, genes, genes) for label, values in rows.items()
    }
    text = render(args, scores, runs, len(genes))
    (args.out / "result.md").write_text(text)
    (args.out / "result.json").write_text(
        json.dumps({label: float(score.pcc_hvg.mean) for label, score in scores.items()}, indent=2)
    )
    sys.stdout.write(text)


def render(args: argparse.Namespace, scores: dict, runs: dict[str, Run], n_genes: int) -> str:
    """Return the result as Markdown."""
    lines = [
        f"Embedder `{args.embedder}`, patches of {args.patch_um} µm at {args.patch_px} px; B4, a",
        f"patient outside the reference; mean Pearson r over {n_genes} of the HVG50 genes that were",
        "chosen on the reference sections.",
        "",
        "| prediction | HVG50 |",
        "|---|---|",
        *(f"| {label} | {score.pcc_hvg.mean:+.3f} |" for label, score in scores.items()),
        "",
        "| step | wall time | peak memory |",
        "|---|---|---|",
        *(f"| {label} | {r.seconds:.0f} s | {r.peak_mib:.0f} MiB |" for label, r in runs.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
