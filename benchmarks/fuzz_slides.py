"""Damage slide files at random and use them as a query would; nothing but clear errors may come out.

    python benchmarks/fuzz_slides.py --inputs 5000 --jobs 2

Every input follows from its number and the seed alone (``--first N --inputs 1`` repeats one). For each
one the slide is opened, a thumbnail, a tissue mask and patches are read, by the same calls that
``stretrieve query`` makes. Counted are slides read, errors of ours, and three outcomes that must not
be: any other exception, an input that takes longer than ``--hang-s``, and a crash of this process.
Files from ``STRETRIEVE_TESTDATA`` join the written ones where that is set. Exit code 1 when a count
that must be 0 is not.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from stretrieve.errors import MppError, StretrieveError
from stretrieve.slides import Slide, open_slide, read_patches, tissue_mask
from stretrieve.specs import PatchSpec
from stretrieve.units import MppSource, PixelSize

REAL = (
    "wsi/aperio/CMU-1-Small-Region.svs",
    "wsi/aperio/osp_small.svs",
    "wsi/dicom/hd_sm_image.dcm",
    "wsi/dicom/osp_boxes_0.dcm",
    "wsi/generic_tiff/osp_boxes.tiff",
    "wsi/hamamatsu/hamamatsu_test3-DAPI-2-387.ndpi",
    "wsi/not_openslide/OS-1-detail.ome.tif",
    "mob_xfuse_st1k/test/image.jpg",
)
EXTREMES = (
    0,
    1,
    2,
    255,
    65_535,
    65_536,
    1 << 20,
    603_980_032,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
APERIO = "Aperio Image Library v1\n512x384 (128x128)|AppMag = 20|MPP = 0.5"
SPEC = PatchSpec.single(64, side_um=64.0)
PIXEL = PixelSize.square(0.5, MppSource.GIVEN)


def written_seeds(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:384, :512]
    inside = np.hypot((x - 256) / 180, (y - 192) / 140) < 1
    picture = np.where(inside[..., None], (200, 120, 180), (242, 240, 243))
    picture = np.clip(picture + rng.normal(0, 18, picture.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(picture)
    for suffix, description in (("svs", APERIO), ("tiff", "")):
        with tifffile.TiffWriter(folder / f"pyramid.{suffix}") as tiff:
            for level, part in enumerate((picture, picture[::2, ::2], picture[::4, ::4])):
                tiff.write(
                    part, tile=(128, 128), photometric="rgb", compression="zlib", metadata=None,
                    subfiletype=int(level > 0), description=description if not level else None,
                    resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
                )  # fmt: skip
    tifffile.imwrite(
        folder / "pyramid.ome.tif", picture, ome=True, tile=(128, 128), photometric="rgb",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )  # fmt: skip
    image.save(folder / "lzw.tif", compression="tiff_lzw")
    image.save(folder / "plain.png")
    image.save(folder / "plain.jpg", quality=85)
    return sorted(path for path in folder.iterdir() if path.is_file())


def seeds(folder: Path) -> list[Path]:
    paths = written_seeds(folder)
    data = os.environ.get("STRETRIEVE_TESTDATA")
    if data:
        paths += [path for name in REAL if (path := Path(data, "data", name)).is_file()]
    return paths


def flip(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 64)):
        data[place] ^= 1 << int(rng.integers(8))


def damage_header(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, min(len(data), 1024), rng.integers(1, 16)):
        data[place] = int(rng.integers(256))


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(0, len(data))) :]


def noise(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(0, len(data)))
    size = min(int(rng.integers(1, 5000)), len(data) - start)
    data[start : start + size] = rng.bytes(size)


def extreme_tag(data: bytearray, rng: np.random.Generator) -> None:
    """Set the type, count or value of a random tag of a random TIFF directory to an extreme."""
    entries = tag_entries(data)
    if not entries:
        noise(data, rng)
        return
    for _ in range(int(rng.integers(1, 4))):
        entry = entries[int(rng.integers(len(entries)))]
        value = EXTREMES[int(rng.integers(len(EXTREMES)))]
        field = int(rng.integers(4))
        if field == 0:
            data[entry + 2 : entry + 4] = struct.pack("<H", int(rng.integers(0, 20)))
        elif field == 1:
            data[entry + 4 : entry + 8] = struct.pack("<I", value)
        else:
            if value > 65_535:
                data[entry + 2 : entry + 4] = struct.pack("<H", 4)
            data[entry + 8 : entry + 12] = struct.pack("<I", value)


def tag_entries(data: bytearray) -> list[int]:
    """Places of all entries of all directories of a little-endian classic TIFF."""
    entries: list[int] = []
    if bytes(data[:4]) != b"II*\0":
        return entries
    (place,) = struct.unpack_from("<I", data, 4)
    seen: set[int] = set()
    while 0 < place < len(data) - 2 and place not in seen:
        seen.add(place)
        (n,) = struct.unpack_from("<H", data, place)
        end = place + 2 + 12 * n
        if end + 4 > len(data):
            break
        entries += range(place + 2, end, 12)
        (place,) = struct.unpack_from("<I", data, end)
    return entries


MUTATIONS = (flip, damage_header, truncate, noise, extreme_tag, extreme_tag)


def use(path: Path) -> str:
    """Do with a slide what a query does; return how it went."""
    try:
        with open_slide(path) as slide:
            return read(slide)
    except MppError:
        with open_slide(path, pixel_size=PIXEL) as slide:
            return read(slide)


def read(slide: Slide) -> str:
    slide.thumbnail(128)
    tissue_mask(slide)
    xy = np.random.default_rng(0).random((6, 2)) * slide.dimensions
    status = np.concatenate([batch.status for batch in read_patches(slide, xy, SPEC)])
    return "read with failed patches" if (status == 2).any() else "read"


def run(folder: Path, first: int, n: int, seed: int) -> dict[str, object]:
    """Try inputs ``first`` to ``first + n``; return counts, the slowest and what must not be."""
    logging.disable(logging.CRITICAL)
    (folder / "seeds").mkdir()
    sources = seeds(folder / "seeds")
    counts: collections.Counter[str] = collections.Counter()
    slowest, wrong = (0.0, -1), []
    for number in range(first, first + n):
        rng = np.random.default_rng((seed, number))
        source = sources[number % len(sources)]
        data = bytearray(source.read_bytes())
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        mutation(data, rng)
        path = folder / f"{number}{source.name[source.name.index('.') :]}"
        path.write_bytes(data)
        start = time.monotonic()
        try:
            outcome = use(path)
        except StretrieveError as error:
            outcome = type(error).__name__
            if len(str(error).splitlines()) != 1 or str(path) not in str(error):
                wrong.append((number, f"unclear: {error}"))
        except Exception:  # noqa: BLE001 (this is what the fuzzer looks for)
            outcome = "TRACEBACK"
            wrong.append((number, traceback.format_exc()))
        seconds = time.monotonic() - start
        slowest = max(slowest, (seconds, number))
        counts[outcome] += 1
        path.unlink()
    return {"counts": counts, "slowest": slowest, "wrong": wrong}


def spread(options: argparse.Namespace) -> list[dict[str, object]]:
    """Run parts of the inputs in processes of their own, so that a crash is seen and counted."""
    size = min(250, -(-options.inputs // options.jobs))
    parts = [(at, min(size, options.inputs - at)) for at in range(0, options.inputs, size)]
    waiting, running, results = list(parts), [], []
    while waiting or running:
        while waiting and len(running) < options.jobs:
            at, n = waiting.pop(0)
            command = [sys.executable, __file__, "--first", options.first + at, "--inputs", n]
            command += ["--seed", options.seed, "--here"]
            running.append(
                subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
            )
        process = running.pop(0)
        out, _ = process.communicate()
        crashed = {"counts": {"CRASH": 1}, "slowest": (0.0, -1), "wrong": [(-1, str(process.args))]}
        results.append(json.loads(out) if process.returncode == 0 else crashed)
        print(f"{len(results)} of {len(parts)} parts", file=sys.stderr, flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--hang-s", type=float, default=60.0)
    parser.add_argument("--here", action="store_true", help="in this process; print JSON")
    options = parser.parse_args()
    if options.here:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(Path(folder), options.first, options.inputs, options.seed)))
        return 0
    start = time.monotonic()
    results = spread(options)
    counts: collections.Counter[str] = collections.Counter()
    for result in results:
        counts.update(result["counts"])
        for number, what in result["wrong"]:
            print(f"input {number}: {what}")
    slowest = max(tuple(result["slowest"]) for result in results)
    for outcome, n in counts.most_common():
        print(f"{n:6d} {outcome}")
    print(
        f"slowest {slowest[0]:.1f} s (input {slowest[1]}); {time.monotonic() - start:.0f} s in all"
    )
    bad = counts["CRASH"] + counts["TRACEBACK"] + (slowest[0] > options.hang_s)
    unclear = sum(len(result["wrong"]) for result in results)
    print(f"crashes {counts['CRASH']}, tracebacks {counts['TRACEBACK']}, unclear {unclear}")
    return 1 if bad or unclear else 0


if __name__ == "__main__":
    sys.exit(main())
