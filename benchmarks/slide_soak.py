"""Open, read and close slides again and again; memory and open files must stay as they are.

    python benchmarks/slide_soak.py --slides 200

Each round opens a slide, reads an overview and patches with two reader processes, and closes it.
Printed are the resident memory of this process, its open files and its child processes after a tenth
of the rounds and after the last one. Exit code 1 when memory grew by more than 10 % or files or
processes by any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from _measure import footprint

from stretrieve.slides import open_slide, patch_grid, read_patches, tissue_mask
from stretrieve.specs import PatchSpec


def write_slide(path: Path) -> Path:
    rng = np.random.default_rng(0)
    picture = rng.integers(120, 220, (1536, 2048, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(3):
            tiff.write(
                picture[:: 1 << level, :: 1 << level],
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(level > 0),
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def use(path: Path) -> None:
    spec = PatchSpec.single(96, side_um=100.0)
    with open_slide(path) as slide:
        slide.thumbnail(256)
        grid = patch_grid(slide, spec, mask=tissue_mask(slide), min_tissue=0)
        for _ in read_patches(slide, grid.xy, spec, batch_size=16, workers=2):
            pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--slide", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or write_slide(Path(folder) / "slide.tiff")
        marks = []
        early = max(1, options.slides // 10)
        for i in range(1, options.slides + 1):
            use(path)
            if i in (early, options.slides):
                marks.append(footprint())
                mib, files, children = marks[-1]
                print(
                    f"after {i:4d}: {mib:.1f} MiB, {files} files, {children} processes", flush=True
                )
    (first, last) = marks[0], marks[-1]
    return int(last[0] > 1.1 * first[0] or last[1:] != first[1:])


if __name__ == "__main__":
    sys.exit(main())
