"""Every line on real tissue, leave one patient out: `stretrieve evaluate` on three cohorts.

    python benchmarks/evaluation.py COHORT DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

COHORT is one of

- `her2st`: sections A1, B4, C2-C5 of Andersson et al. (2021) with images, three patients;
- `mob`: three sections of mouse olfactory bulb (Stahl et al. 2016 and a 2k array), two mice;
- `her2st-counts`: the counts of 29 sections, patients A-F, with expression queries.

DATA holds `her2st/<section>/`, `mob_st1k/`, `mob_st2k/` and `her2st_counts/`. The samplesheet is
written to FOLDER.csv, everything else goes to FOLDER. Options that are not listed here are handed to
`stretrieve evaluate`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from _measure import stretrieve

COLUMNS = (
    "section", "patient", "organ", "species", "image", "counts", "spots", "format", "mpp", "labels",
)  # fmt: skip
HER2ST = {"A1": "A", "B4": "B", "C2": "C", "C3": "C", "C4": "C", "C5": "C"}
MARKERS = "ERBB2,GNAS,FASN,ACTA2,COL1A1,CD3E,MS4A1,KRT19"


def her2st(data: Path) -> list[dict[str, str]]:
    """Three patients with images; A1 is a smaller copy whose pixels are in spots.csv."""
    rows = []
    for section, patient in HER2ST.items():
        folder = data / "her2st" / section
        labels = data / "her2st_counts" / "labels" / f"{section}_labeled_coordinates.tsv"
        rows.append({
            "section": section, "patient": patient, "organ": "breast", "species": "human",
            "image": str(next(folder.glob("image.*"))), "counts": str(folder / "counts.tsv.gz"),
            "spots": str(folder / ("spots.csv" if section == "A1" else "spots_selection.tsv")),
            "format": "st", "labels": str(labels) if labels.is_file() else "",
        })  # fmt: skip
    return rows


def mob(data: Path) -> list[dict[str, str]]:
    """One section of one mouse, two of another."""
    rep1, folders = data / "mob_st1k" / "Rep1", data / "mob_st2k"
    shared = {"organ": "brain", "species": "mouse", "format": "st"}
    rows = [{
        "section": "Rep1", "patient": "stahl", "image": str(next(rep1.glob("image.*"))),
        "counts": str(rep1 / "counts.tsv.gz"), "spots": str(rep1 / "spots.csv"), **shared,
    }]  # fmt: skip
    rows += [{
        "section": name, "patient": "st2k", "image": str(next((folders / name).glob("image.*"))),
        "counts": str(folders / name / "counts.tsv"), "mpp": mpp,
        "spots": str(folders / name / "spots.csv"), **shared,
    } for name, mpp in (("MOB1", "4.6268x4.1568"), ("MOB2", "4.626x4.1566"))]  # fmt: skip
    return rows


def her2st_counts(data: Path) -> list[dict[str, str]]:
    """29 sections without images; one of each patient has a pathologist's labels."""
    folder, rows = data / "her2st_counts", []
    for counts in sorted((folder / "counts").glob("*.tsv.gz")):
        section = counts.name.partition(".")[0]
        labels = folder / "labels" / f"{section}_labeled_coordinates.tsv"
        rows.append({
            "section": section, "patient": section[0], "organ": "breast", "species": "human",
            "counts": str(counts), "spots": str(folder / "spots" / f"{section}_selection.tsv"),
            "format": "st", "labels": str(labels) if labels.is_file() else "",
        })  # fmt: skip
    return rows


COHORTS = {"her2st": her2st, "mob": mob, "her2st-counts": her2st_counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", choices=COHORTS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, help="MobileNetV2 weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet-only", action="store_true", help="write the samplesheet and stop")
    args, further = parser.parse_known_args()
    sheet = args.out.with_name(args.out.name + ".csv")
    sheet.parent.mkdir(parents=True, exist_ok=True)
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(COHORTS[args.cohort](args.data.resolve()))
    if args.sheet_only:
        return
    options = ["--query", "expression"] if args.cohort == "her2st-counts" else []
    if not options and args.weights:
        options = [
            "--backbone", "mobilenetv2_100", "--weights", str(args.weights.resolve()),
            "--set", "backbone.encoder.model_kwargs.pad_type='same'",
            "--set", "backbone.encoder.mean=[0.5, 0.5, 0.5]",
            "--set", "backbone.encoder.std=[0.5, 0.5, 0.5]",
        ]  # fmt: skip
    if args.cohort.startswith("her2st"):
        options += ["--markers", MARKERS]
    run = stretrieve("evaluate", sheet, "--out", args.out, *options, *further)
    sys.stdout.write(f"{run.seconds:.0f} s, peak {run.peak_mib:.0f} MiB\n")


if __name__ == "__main__":
    main()
