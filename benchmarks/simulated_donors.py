"""Many donors of simulated tissue: differences between lines that three real patients cannot show.

    python benchmarks/simulated_donors.py --donors 12 --out FOLDER

Writes one section a donor (donors differ in stain, mix of tissues and expression offsets) and a
samplesheet to FOLDER, then calls `stretrieve evaluate` on it with colour statistics as features.
Options that are not listed here are handed on. Results on simulated tissue say that a difference
between methods can be shown, not how well they predict real tissue.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from _measure import stretrieve

from stretrieve.simulation import TissueSettings, simulate_section, write_section

COLUMNS = ("section", "patient", "organ", "species", "image", "counts", "format")


def write_donors(folder: Path, *, donors: int, side_um: float, seed: int) -> Path:
    """Write one section a donor; what is there already is kept."""
    settings = TissueSettings(width_um=side_um, height_um=side_um)
    rows = []
    for i in range(donors):
        name, place = f"sim{i:02d}", folder / f"sim{i:02d}"
        if not place.exists():
            section = simulate_section(name, donor=f"donor{i:02d}", seed=seed, settings=settings)
            write_section(section, place)
        rows.append({
            "section": name, "patient": f"donor{i:02d}", "organ": "simulated",
            "species": "simulated", "image": f"{name}/slide.tiff", "counts": f"{name}/outs",
            "format": "visium",
        })  # fmt: skip
    sheet = folder / "sheet.csv"
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--donors", type=int, default=12)
    parser.add_argument("--side-um", type=float, default=2000.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheet-only", action="store_true", help="write the donors and stop")
    args, further = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sheet = write_donors(args.out, donors=args.donors, side_um=args.side_um, seed=args.seed)
    if args.sheet_only:
        return
    run = stretrieve("evaluate", sheet, "--out", args.out / "out", *further)
    sys.stdout.write(f"{run.seconds:.0f} s, peak {run.peak_mib:.0f} MiB\n")


if __name__ == "__main__":
    main()
