"""Patches per second against bare OpenSlide with as many workers, and peak memory by slide area.

    python benchmarks/slide_throughput.py                       # a written slide
    python benchmarks/slide_throughput.py --slide slide.svs     # one of yours

Both sides read the same patches, in turns, from processes that are already running; the bare reader
keeps its pixels in its own processes, ours brings them to the process that asked. The ratio is the
median over the rounds; the bounds of its middle half stand behind it. Peak memory is that
of the asking process and of all its reader processes together, over the tissue mask and patches from
the whole slide.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import tifffile
from _measure import peak_mib
from PIL import Image
from scipy import ndimage

from stretrieve.slides import Slide, open_slide, read_patches, tissue_mask
from stretrieve.specs import PatchSpec, PatchView
from stretrieve.units import MppSource, PixelSize

PATCH_PX = 224
TILE = 256
_open: dict[str, openslide.OpenSlide] = {}


def texture(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = ndimage.gaussian_filter(rng.random((side, side)), 6, mode="wrap")
    coarse = (coarse - coarse.min()) / np.ptp(coarse)
    colours = np.array([(236, 200, 222), (96, 60, 140)], dtype=float)
    picture = colours[0] + coarse[..., None] * (colours[1] - colours[0])
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def jpeg_tiles(base: np.ndarray, side: int) -> Iterator[bytes]:
    n = base.shape[0] // TILE
    encoded: dict[tuple[int, int], bytes] = {}
    for row in range(-(-side // TILE)):
        for column in range(-(-side // TILE)):
            place = row % n, column % n
            if place not in encoded:
                part = base[place[0] * TILE :, place[1] * TILE :][:TILE, :TILE]
                stream = io.BytesIO()
                Image.fromarray(part).save(stream, "JPEG", quality=85, subsampling=0)
                encoded[place] = stream.getvalue()
            yield encoded[place]


def write_pyramid(path: Path, side: int, base: np.ndarray, *, mpp: float = 0.5) -> Path:
    """Write a square pyramidal slide that repeats a picture of 2048 px, four levels of halves."""
    codecs = tifffile.tifffile.imagecodecs
    if not hasattr(codecs, "jpeg_encode"):
        codecs.jpeg_encode = (
            codecs.zlib_encode
        )  # asked for, never called: the tiles are JPEG already
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(4):
            size = side >> level
            shrunk = Image.fromarray(base).reduce(1 << level)
            tiff.write(
                jpeg_tiles(np.asarray(shrunk), size),
                shape=(size, size, 3),
                dtype="uint8",
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(1, 1),
                compression="jpeg",
                subfiletype=int(level > 0),
                resolution=(1e4 / mpp, 1e4 / mpp) if not level else None,
                resolutionunit="CENTIMETER" if not level else None,
                metadata=None,
            )
    return path


def write_slide(path: Path, side: int) -> Path:
    return write_pyramid(path, side, texture(2048))


def centres(slide: Slide, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    half = PATCH_PX
    corner = rng.integers(0, np.array(slide.dimensions) - 2 * half, (n, 2))
    return corner + half


def bare_open(path: str) -> None:
    _open["slide"] = openslide.OpenSlide(path)
    _open["slide"].read_region((0, 0), 0, (PATCH_PX, PATCH_PX))


def bare_read(corners: np.ndarray) -> int:
    total = 0
    handle = _open["slide"]
    for x, y in corners.tolist():
        region = handle.read_region((x, y), 0, (PATCH_PX, PATCH_PX))
        total += np.asarray(region.convert("RGB")).nbytes
    return total


def rate_bare(pool: multiprocessing.pool.Pool, xy: np.ndarray) -> float:
    parts = [xy[i : i + 64] - PATCH_PX // 2 for i in range(0, len(xy), 64)]
    start = time.perf_counter()
    pool.map(bare_read, parts, chunksize=1)
    return len(xy) / (time.perf_counter() - start)


def rate_ours(slide: Slide, xy: np.ndarray, spec: PatchSpec, workers: int) -> float:
    start = time.perf_counter()
    for batch in read_patches(slide, xy, spec, workers=workers):
        if batch.status.any():
            raise SystemExit("a patch failed")
    return len(xy) / (time.perf_counter() - start)


def throughput(path: Path, workers: int, *, n: int, rounds: int) -> np.ndarray:
    """Patches/s of each round: bare, ours at the slide's own resolution, ours resampled."""
    rates = []
    with (
        open_slide(path, pixel_size=PixelSize.square(0.5, MppSource.GIVEN)) as slide,
        multiprocessing.get_context("spawn").Pool(workers, bare_open, (str(path),)) as pool,
    ):
        same = PatchSpec((PatchView(PATCH_PX, 0.5),))
        coarser = PatchSpec((PatchView(PATCH_PX, 0.6),))
        rate_ours(slide, centres(slide, 128 * workers, 99), same, workers)
        rate_bare(pool, centres(slide, 128 * workers, 99))
        for seed in range(rounds):
            xy = centres(slide, n, seed)
            bare, ours = rate_bare(pool, xy), rate_ours(slide, xy, same, workers)
            rates.append((bare, ours, rate_ours(slide, xy, coarser, workers)))
    return np.array(rates)


def peak_of_slide(path: Path, n: int) -> float:
    """Peak memory above the start while ``n`` patches from all over the slide are read."""
    with peak_mib() as peak, open_slide(path) as slide:
        tissue_mask(slide)
        spec = PatchSpec((PatchView(PATCH_PX, 0.5), PatchView(PATCH_PX, 2.0)))
        for _ in read_patches(slide, centres(slide, n, 0), spec, workers=2):
            pass
    return peak()


def memory(path: str, n: int) -> None:
    """Print the peak for one slide; in a process of its own, so that no earlier slide counts."""
    peak_of_slide(Path(path), 128)
    print(f"{peak_of_slide(Path(path), n):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--patches", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory(options.memory_of, options.patches)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or write_slide(Path(folder) / "slide.tiff", 16_384)
        print("workers  bare/s  ours/s  ratio (middle half)  resampled/s")
        for n in options.workers:
            rates = throughput(path, n, n=options.patches, rounds=options.rounds)
            bare, ours, resampled = np.median(rates, axis=0)
            low, middle, high = np.percentile(rates[:, 1] / rates[:, 0], [25, 50, 75])
            row = f"{n:7d} {bare:7.0f} {ours:7.0f} {middle:6.2f} ({low:.2f}-{high:.2f})"
            row += f" {resampled:17.0f}"
            print(row, flush=True)
        print("area  peak MiB")
        peaks = []
        for times, side in ((1, 8192), (4, 16_384), (16, 32_768)):
            written = write_slide(Path(folder) / f"{side}.tiff", side)
            command = [sys.executable, __file__, "--memory-of", written, "--patches"]
            done = subprocess.run(
                [*command, str(options.patches)], capture_output=True, text=True, check=True
            )
            peaks.append(float(done.stdout))
            print(f"{times:3d}x {peaks[-1]:9.1f}", flush=True)
        print(f"largest / smallest {max(peaks) / min(peaks):.3f}")


if __name__ == "__main__":
    main()
