"""Tiny legacy ST sections on disk: H&E-like blobs whose colour follows two gene programmes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

PITCH_PX = 40
GRID = 8
SIDE_PX = PITCH_PX * (GRID + 1)
GENES = [f"SIM-A{i}" for i in range(20)] + [f"SIM-B{i}" for i in range(20)]
COLUMNS = ["section", "patient", "organ", "species", "image", "counts", "spots", "format", "mpp"]


def write_section(folder: Path, *, seed: int) -> dict[str, str]:
    """Write image.png, counts.tsv and spots.tsv of an 8 x 8 array (200 µm pitch, 5 µm per px)."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    ys, xs = np.mgrid[0:SIDE_PX, 0:SIDE_PX] / SIDE_PX
    angle = rng.uniform(0, 2 * np.pi)
    programme = 1 / (1 + np.exp(-8 * (np.cos(angle) * (xs - 0.5) + np.sin(angle) * (ys - 0.5))))
    purple, pink = np.array([110, 60, 150]), np.array([225, 150, 190])
    pixels = programme[..., None] * purple + (1 - programme[..., None]) * pink
    pixels = pixels + rng.normal(0, 12, size=pixels.shape)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / "image.png")
    array = [(x, y) for x in range(1, GRID + 1) for y in range(1, GRID + 1)]
    with (folder / "counts.tsv").open("w", newline="") as stream:
        counts = csv.writer(stream, delimiter="\t")
        counts.writerow(["", *GENES])
        for x, y in array:
            p = programme[y * PITCH_PX, x * PITCH_PX]
            mean = np.r_[np.full(20, 1 + 9 * p), np.full(20, 1 + 9 * (1 - p))]
            counts.writerow([f"{x}x{y}", *rng.poisson(mean)])
    with (folder / "spots.tsv").open("w", newline="") as stream:
        spots = csv.writer(stream, delimiter="\t")
        spots.writerow(["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"])
        spots.writerows([x, y, x, y, x * PITCH_PX, y * PITCH_PX, 1] for x, y in array)
    return {name: f"{folder.name}/{file}" for name, file in (
        ("image", "image.png"), ("counts", "counts.tsv"), ("spots", "spots.tsv"),
    )}  # fmt: skip


def write_sheet(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a samplesheet with the usual columns."""
    with path.open("w", newline="") as stream:
        sheet = csv.DictWriter(stream, COLUMNS)
        sheet.writeheader()
        sheet.writerows(rows)
    return path


def write_cohort(folder: Path, patients: str = "AAB") -> Path:
    """Write one section for each letter and a samplesheet; return the sheet."""
    rows = []
    for i, patient in enumerate(patients):
        files = write_section(folder / f"s{i}", seed=i)
        rows.append({
            "section": f"s{i}", "patient": patient, "organ": "breast", "species": "homo sapiens",
            "format": "st", "mpp": "", **files,
        })  # fmt: skip
    return write_sheet(folder / "sheet.csv", rows)
