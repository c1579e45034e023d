"""Damage slide files at random and use them as a query would; nothing but clear errors may come out.

    python benchmarks/fuzz_slides.py --inputs 5000 --jobs 2
    python benchmarks/fuzz_slides.py --inputs 200 --jobs 2 --command

Every input follows from its number and the seed alone (``--first N --inputs 1`` repeats one). For each
one the slide is opened, a thumbnail, a tissue mask and patches are read, by the same calls that
``stretrieve query`` makes. Counted are slides read, errors of ours, and four outcomes that must not
be: any other exception, an error that is not one line with the name of the file, an input that takes
longer than ``--hang-s`` (it is ended there), and a crash of the process that called the library.
Time in which this whole program was paused does not count. With ``--command`` every input goes through
``stretrieve query`` instead, which must write its output and end with 0, or write nothing, say one line
on stderr and end with 3.
Files from ``STRETRIEVE_TESTDATA`` join the written ones where that is set. Exit code 1 when a count
that must be 0 is not.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import itertools
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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
HUNG = 77
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


def one(path: Path) -> str:
    """Use a slide; return how it went, what must not be in capitals."""
    try:
        return use(path)
    except StretrieveError as error:
        clear = len(str(error).splitlines()) == 1 and str(path) in str(error)
        return type(error).__name__ if clear else f"UNCLEAR {error}"
    except Exception:  # noqa: BLE001 (this is what the fuzzer looks for)
        return f"TRACEBACK {traceback.format_exc()}"


def ask(path: Path, ref: Path, *, mpp: bool) -> str:
    """Query a slide through the command; return how it went."""
    out = path.parent / "out" / "result.h5ad"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    command = [sys.executable, "-m", "stretrieve", "query", path, "--ref", ref, "--out", out]
    command += ["--mpp", 0.5] if mpp else []
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    lines, left = done.stderr.splitlines(), [found.name for found in out.parent.iterdir()]
    if done.returncode == 0 and left == [out.name]:
        return "answered"
    if done.returncode == 3 and len(lines) == 1 and lines[0].startswith("error: ") and not left:
        return "refused"
    return f"UNCLEAR exit {done.returncode}, files {left}, stderr {done.stderr}"


class Clock(threading.Thread):
    """Seconds for one input, without pauses of the whole process; ends the process after too many."""

    tick_s = 0.25

    def __init__(self, hang_s: float) -> None:
        super().__init__(daemon=True)
        self.hang_s, self.paused, self.since = hang_s, 0.0, time.monotonic()

    def run(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(self.tick_s)
            now = time.monotonic()
            if now - last > 4 * self.tick_s:
                self.paused += now - last - self.tick_s
            last = now
            if self.seconds() > self.hang_s:
                faulthandler.dump_traceback()
                os._exit(HUNG)

    def start_again(self) -> None:
        self.since, self.paused = time.monotonic(), 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.since - self.paused


def work(folder: Path, options: argparse.Namespace) -> None:
    """Try inputs in this process; one line of JSON after each."""
    logging.disable(logging.CRITICAL)
    (folder / "seeds").mkdir()
    sources = seeds(folder / "seeds")
    clock = Clock(options.hang_s)
    clock.start()
    for number in range(options.first, options.first + options.inputs):
        rng = np.random.default_rng((options.seed, number))
        source = sources[number % len(sources)]
        data = bytearray(source.read_bytes())
        MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)
        path = folder / f"{number}{source.name[source.name.index('.') :]}"
        path.write_bytes(data)
        clock.start_again()
        outcome = one(path) if options.ref is None else ask(path, options.ref, mpp=number % 2 > 0)
        seconds = round(clock.seconds(), 2)
        path.unlink()
        print(json.dumps({"number": number, "outcome": outcome, "seconds": seconds}), flush=True)


class Watch:
    """One process after the other over a range of inputs, so that crashes and hangs are seen."""

    def __init__(self, first: int, n: int, options: argparse.Namespace) -> None:
        self.first, self.end, self.options = first, first + n, options
        self.counts: collections.Counter[str] = collections.Counter()
        self.slowest = (0.0, -1)

    def run(self) -> None:
        place = self.first
        while place < self.end:
            place = self.stretch(place)

    def stretch(self, place: int) -> int:
        """Run until the process ends; return the number to go on with."""
        command = [sys.executable, __file__, "--work", "--first", place]
        command += ["--inputs", min(250, self.end - place)]
        command += ["--seed", self.options.seed, "--hang-s", self.options.hang_s]
        command += ["--ref", self.options.ref] if self.options.ref else []
        stop = min(place + 250, self.end)
        with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                event = json.loads(line)
                self.note(event["number"], event["outcome"], event["seconds"])
                place = event["number"] + 1
        if place < stop:
            code = process.returncode
            self.note(place, "HANG" if code == HUNG else f"CRASH exit {code}", 0.0)
            return place + 1
        return place

    def note(self, number: int, outcome: str, seconds: float) -> None:
        self.slowest = max(self.slowest, (seconds, number))
        if outcome[:4].isupper():
            print(f"input {number}: {outcome}", flush=True)
            outcome = outcome.split(maxsplit=1)[0]
        self.counts[outcome] += 1


def build_reference(folder: Path) -> Path:
    """Build a small reference from simulated tissue."""
    from stretrieve import BuildSettings
    from stretrieve import build_reference as build
    from tests.tissue import write_cohort

    write_cohort(folder / "cohort")
    settings = BuildSettings(embedder="colour", embedder_config={"patch_px": 32, "side_um": 60.0})
    build(folder / "cohort" / "sheet.csv", folder / "REF", settings=settings)
    return folder / "REF"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--hang-s", type=float, default=120.0)
    parser.add_argument("--command", action="store_true", help="through stretrieve query")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ref", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        with tempfile.TemporaryDirectory() as folder:
            work(Path(folder), options)
        return 0
    if not options.command:
        return watch(options)
    with tempfile.TemporaryDirectory() as folder:
        options.ref = build_reference(Path(folder))
        return watch(options)


def watch(options: argparse.Namespace) -> int:
    """Run all inputs and print what came of them; return the exit code."""
    start, jobs = time.monotonic(), min(options.jobs, options.inputs)
    bounds = np.linspace(options.first, options.first + options.inputs, jobs + 1).astype(int)
    watches = [Watch(int(a), int(b - a), options) for a, b in itertools.pairwise(bounds)]
    threads = [threading.Thread(target=watch.run) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = sum((watch.counts for watch in watches), collections.Counter())
    for outcome, n in counts.most_common():
        print(f"{n:6d} {outcome}")
    seconds, number = max(watch.slowest for watch in watches)
    print(f"slowest {seconds:.1f} s (input {number}); {time.monotonic() - start:.0f} s in all")
    wrong = {name: counts[name] for name in ("CRASH", "HANG", "TRACEBACK", "UNCLEAR")}
    print(", ".join(f"{name.lower()} {n}" for name, n in wrong.items()))
    return int(any(wrong.values()) or counts.total() != options.inputs)


if __name__ == "__main__":
    sys.exit(main())
