"""Check every section and every slide of the test data; the pictures are for a person to look at.

    python benchmarks/look.py --out look          # test data under STRETRIEVE_TESTDATA

Writes a samplesheet of all sections and runs ``stretrieve check`` on it, then ``stretrieve tissue`` on
all slides and section images. Exit code 1 when a section or slide that can be used is refused, one that
cannot is taken, or a section is accused of misalignment other than her2st A2, which is misaligned.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

LOWRES = "spatial/tissue_lowres_image.png"
HER2ST = ("A1", "A2", "B4", "C2", "C3", "C4", "C5")
OTHERS = {
    "mob_st1k": ("mob_st1k/Rep1", "counts.tsv.gz", "spots.csv", "image.jpg"),
    "mob_2k_1": ("mob_st2k/MOB1", "counts.tsv", "alignment_table.tsv", "image.jpg"),
    "mob_2k_2": ("mob_st2k/MOB2", "counts.tsv", "alignment_table.tsv", "image.jpg"),
    "mob_xfuse": ("mob_xfuse_st1k/test", "counts.tsv", "spots.tsv", "image.jpg"),
    "placenta": ("mouse_placenta_visium_cytassist/Placenta_S3/outs", ".", "", LOWRES),
    "seurat": ("loader_fixtures/seurat_visium", ".", "", LOWRES),
    "visiumio_1": ("loader_fixtures/visiumio/10xVisium/section1/outs", ".", "", LOWRES),
    "visiumio_2": ("loader_fixtures/visiumio/10xVisium/section2/outs", ".", "", LOWRES),
}
UNUSABLE = {
    "cpie": ("human_cpie_st1k/section1", "counts.tsv", "spot_data.tsv", "image.jpg"),
    "seurat_hd": ("loader_fixtures/seurat_visium_hd", ".", "", ""),
    "visiumio_hd": ("loader_fixtures/visiumio/binned_outputs/square_002um", ".", "", ""),
}
MISALIGNED = {"A2"}
NO_MPP = ("generic_tiff/osp_boxes.tiff", "not_openslide/kidney-48-5.tif")
REFUSED = ("invalid/", "not_openslide/pathml_small_dicom.dcm", *NO_MPP)


def write_sheet(data: Path, path: Path) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("section", "patient", "species", "image", "counts", "spots"))
        for name in HER2ST:
            home = data / "her2st" / name
            image = next(home.glob("image.*"))
            files = (image, home / "counts.tsv.gz", home / "spots.csv")
            writer.writerow((name, name[0], "human", *files))
        for name, (home, *files) in (OTHERS | UNUSABLE).items():
            species = "human" if name == "cpie" else "mouse"
            counts, spots, image = (data / home / file if file else "" for file in files)
            writer.writerow((name, name, species, image, counts, spots))
    return path


def run(*arguments: object) -> dict:
    """Run a command of ours; return what it found."""
    command = [sys.executable, "-m", "stretrieve", *map(str, arguments), "--quiet", "--json"]
    print(f"\nstretrieve {arguments[0]}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def sections(data: Path, out: Path) -> list[str]:
    report = run("check", write_sheet(data, out / "sheet.csv"), "--out", out / "sections")
    faults = []
    for found in report["sections"]:
        name, fit = found["section"], found["alignment"]
        on_tissue = f"{fit['on_tissue']:.0%} on tissue" if fit else "no image"
        warned = "; ".join(found["warnings"])
        print(f"{name:12} {found['n_spots']:5} spots {on_tissue:14} {warned}{found['error']}")
        shifted = "spots do not fit" in warned
        if shifted != (name in MISALIGNED) or bool(found["error"]) != (name in UNUSABLE):
            faults.append(name)
    return faults


def slides(data: Path, out: Path) -> list[str]:
    paths = sorted(path for path in (data / "wsi").glob("*/*") if path.is_file())
    paths.append(data / "mouse_colon_visium/d14_image_only/slide_pyramid.tiff")
    faults = []
    for found in run("tissue", *paths, "--out", out / "slides")["slides"]:
        name = os.path.relpath(found["path"], data / "wsi")
        print(f"{name:44} {found['tissue_fraction']:5.0%} tissue {found['error']}")
        if bool(found["error"]) != name.startswith(REFUSED):
            faults.append(name)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("look"))
    parser.add_argument("--data", type=Path, default=os.environ.get("STRETRIEVE_TESTDATA"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("no test data: give --data or set STRETRIEVE_TESTDATA")
    options.out.mkdir(parents=True, exist_ok=True)
    data = (Path(options.data) / "data").resolve()
    faults = sections(data, options.out) + slides(data, options.out)
    print(f"\nnot as expected: {', '.join(faults) or 'none'}; pictures: {options.out}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
