"""Damage section files at random and read them as a build would; only clear errors may come out.

    python benchmarks/fuzz_spots.py --inputs 5000 --jobs 2
    python benchmarks/fuzz_spots.py --inputs 200 --jobs 2 --command

Every input follows from its number and the seed alone (``--first N --inputs 1`` repeats one). Damaged
are h5ad, 10x h5, xenium and zarr files (bytes and structure), count tables, selection tables, Matrix
Market folders, parquet and CSV positions, metadata and samplesheets. Counted are sections read (and then
held against what a section promises), errors of ours (one line each; those where C code crashed in the
library's reading process are listed apart), and four outcomes that must not be: any other exception, a
broken promise, an input that takes longer than ``--hang-s``, and a crash of the process that called the
library. With ``--command`` every input goes through ``stretrieve check`` instead, which must end with 0,
or say one line on stderr and end with 3. Exit code 1 when a count that must be 0 is not.
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from stretrieve.errors import InputError, StretrieveError
from stretrieve.spots import Section, SheetRow, read_section, read_sheet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.spots import layouts

WORDS = (
    b"nan", b"inf", b"-inf", b"-1", b"1e400", b"1e-400", b"0.5", b"", b" ", b"../../x", b"\x00", b"\xff",
    b"99999999999999999999", b"-0", b"0x10", b"1_000", b"'", b'"', b"\t", b"\n", b",", b"\xef\xbb\xbf",
    b"4294967296", b"2147483648", b"None", b"True", "µ".encode(), b"a" * 5000,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31, 2**40, 2**62, np.nan, np.inf, -np.inf, 0.5)
Mutation = Callable[[bytearray, np.random.Generator], None]


def write_cases(folder: Path) -> dict[str, tuple[SheetRow, list[Path]]]:
    """Write one good section of each kind; return its row and the files that may be damaged."""
    section = layouts.toy()
    cases: dict[str, tuple[SheetRow, list[Path]]] = {}

    def add(name: str, counts: str, files: list[str], **fields: object) -> None:
        home = folder / name
        row = SheetRow("s", home / counts, species="human", platform="visium", **fields)  # type: ignore[arg-type]
        cases[name] = (row, [home / file for file in files])

    for name in ("h5ad", "h5", "mtx", "st", "st_gz", "parquet", "zarr", "xenium", "hest", "sheet"):
        (folder / name).mkdir()
    data = layouts.adata(section)
    data.layers["counts"] = data.X.copy()
    data.write_h5ad(folder / "h5ad" / "a.h5ad")
    add("h5ad", "a.h5ad", ["a.h5ad"])
    layouts.write_h5(folder / "h5" / "filtered_feature_bc_matrix.h5", section)
    layouts.write_spatial(folder / "h5" / "spatial", section, generation=1)
    files = [
        "filtered_feature_bc_matrix.h5",
        "spatial/tissue_positions_list.csv",
        "spatial/scalefactors_json.json",
    ]
    add("h5", "", [files[0], *files], format="visium")
    layouts.write_mtx(folder / "mtx" / "filtered_feature_bc_matrix", section, zipped=False)
    layouts.write_spatial(folder / "mtx" / "spatial", section)
    stem = "filtered_feature_bc_matrix/"
    files = [
        stem + "matrix.mtx",
        stem + "barcodes.tsv",
        stem + "features.tsv",
        "spatial/tissue_positions.csv",
    ]
    add("mtx", "", [files[0], *files], format="visium")
    layouts.write_st(folder / "st", *layouts.st_grid())
    add(
        "st",
        "counts.tsv",
        ["counts.tsv", "spots.tsv"],
        spots=folder / "st" / "spots.tsv",
        format="st",
    )
    layouts.write_st(folder / "st_gz", *layouts.st_grid())
    text = (folder / "st_gz" / "counts.tsv").read_bytes()
    (folder / "st_gz" / "counts.tsv.gz").write_bytes(gzip.compress(text, mtime=0))
    add(
        "st_gz",
        "counts.tsv.gz",
        ["counts.tsv.gz"],
        spots=folder / "st_gz" / "spots.tsv",
        format="st",
    )
    layouts.write_h5(folder / "parquet" / "filtered_feature_bc_matrix.h5", section)
    layouts.write_spatial(folder / "parquet" / "spatial", section, generation=3)
    add("parquet", "", ["spatial/tissue_positions.parquet"], format="visium")
    data.write_zarr(folder / "zarr" / "a.zarr")
    inside = [p for p in sorted((folder / "zarr" / "a.zarr").rglob("*")) if p.is_file()]
    add("zarr", "a.zarr", [str(p.relative_to(folder / "zarr")) for p in inside], format="anndata")
    layouts.write_xenium(folder / "xenium")
    files = [
        "cell_feature_matrix.h5",
        "cells.parquet",
        "experiment.xenium",
        "he_imagealignment.csv",
    ]
    add("xenium", "", files, format="xenium")
    layouts.write_hest(folder / "hest")
    add("hest", "st/TENX1.h5ad", ["st/TENX1.h5ad", "metadata/TENX1.json"], format="hest")
    (folder / "sheet" / "counts.tsv").write_text("x")
    lines = ["section,patient,species,image,counts,spots,format,mpp"]
    lines += [f"s{i},p{i},human,,counts.tsv,counts.tsv,st,0.5" for i in range(3)]
    (folder / "sheet" / "sheet.csv").write_text("\n".join(lines))
    add("sheet", "sheet.csv", ["sheet.csv"])
    return cases


def flip(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 64)):
        data[place] ^= 1 << int(rng.integers(8))


def head(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, min(len(data), 4096), rng.integers(1, 16)):
        data[place] = int(rng.integers(256))


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(0, len(data))) :]


def noise(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(0, len(data)))
    size = min(int(rng.integers(1, 2000)), len(data) - start)
    data[start : start + size] = rng.bytes(size)


def repeat(data: bytearray, rng: np.random.Generator) -> None:
    a, b = sorted(int(i) for i in rng.integers(0, len(data), 2))
    data[a:a] = data[a : min(b, a + 5000)]


def replace_word(data: bytearray, rng: np.random.Generator) -> None:
    """Replace what stands between two separators by something unexpected."""
    ends = [i for i, byte in enumerate(data[:20_000]) if byte in b'\t\n, ":{}[]'] or [0]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(ends)))
        start = min(ends[at] + 1, len(data))
        stop = ends[at + 1] if at + 1 < len(ends) else start
        data[start:stop] = WORDS[int(rng.integers(len(WORDS)))]


def swap_lines(data: bytearray, rng: np.random.Generator) -> None:
    lines = bytes(data).split(b"\n")
    i, j = (int(k) for k in rng.integers(0, len(lines), 2))
    lines[i] = lines[j]
    data[:] = b"\n".join(lines)


BYTES: tuple[Mutation, ...] = (flip, head, truncate, noise, repeat)
TEXT: tuple[Mutation, ...] = (replace_word, replace_word, swap_lines, flip, truncate, repeat)


def change_structure(path: Path, rng: np.random.Generator) -> None:
    """Change shapes, types, values, names or attributes of an HDF5 file."""
    with h5py.File(path, "a") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(int(rng.integers(1, 3))):
            name = names[int(rng.integers(len(names)))]
            if name in file:
                change_item(file, name, rng)


def change_item(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    item, choice = file[name], int(rng.integers(7))
    number = NUMBERS[int(rng.integers(len(NUMBERS)))]
    if choice == 0:
        del file[name]
    elif choice == 1:
        item.attrs["shape"] = np.array([number, 4]).astype(np.float64)
    elif choice == 2:
        for key in list(item.attrs):
            item.attrs[key] = "csr_matrix" if rng.integers(2) else number
    elif choice == 3 and isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and item.size:
        values = np.asarray(item[...]).astype(np.float64).ravel()
        values[int(rng.integers(values.size))] = number
        shape = item.shape
        del file[name]
        file[name] = values.reshape(shape)
    elif choice == 4:
        del file[name]
        file[name] = rng.integers(-5, 5, size=tuple(rng.integers(0, 5, int(rng.integers(0, 4)))))
    elif choice == 5:
        del file[name]
        file[name] = np.array([b"\xff\xfe", b"../../x", b""], dtype="S7")
    else:
        del file[name]
        file.create_group(name)


def damage(path: Path, rng: np.random.Generator) -> None:
    if path.suffix in {".h5", ".h5ad"} and rng.random() < 0.5:
        change_structure(path, rng)
        return
    data = bytearray(path.read_bytes())
    if not data:
        data += b"\0"
    binary = path.suffix in {".h5", ".h5ad", ".gz", ".parquet"} or "/c/" in str(path)
    mutations = BYTES if binary else TEXT
    mutations[int(rng.integers(len(mutations)))](data, rng)
    path.write_bytes(data)


def promises(section: Section) -> None:
    """Raise when an accepted section is not what a section promises to be."""
    counts = section.counts
    good = (
        counts.dtype == np.int32,
        counts.data.min(initial=1) > 0,
        counts.has_sorted_indices,
        bool((np.diff(counts.indptr) > 0).all()),
        len(set(section.spot_ids.tolist())) == section.n_spots > 0,
        section.genes.index.is_unique,
        bool(np.isfinite(section.xy).all()),
        bool(np.isfinite(section.pixel_size.mean)),
        not any(".." in str(name).split("/") for name in (*section.spot_ids, *section.genes.index)),
    )
    if not all(good):
        raise AssertionError(f"broken promise {good.index(False)}")


def one(
    number: int,
    seed: int,
    cases: dict[str, tuple[SheetRow, list[Path]]],
    work: Path,
    *,
    command: bool,
) -> str:
    """Damage one file of one case and read it; return how it went."""
    rng = np.random.default_rng((seed, number))
    name = list(cases)[number % len(cases)]
    row, files = cases[name]
    home = files[0]
    while home.name != name:
        home = home.parent
    copy = work / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home, copy)
    victim = copy / files[int(rng.integers(len(files)))].relative_to(home)
    damage(victim, rng)
    spots = copy / row.spots.relative_to(home) if row.spots else None
    moved = SheetRow(**{f: getattr(row, f) for f in ("section", "species", "platform", "format")},
                     counts=copy / row.counts.relative_to(home), spots=spots)  # fmt: skip
    if command:
        outcome = check(number, moved, copy)
        return outcome if outcome[:4].isupper() else f"{name}: {outcome}"
    try:
        if name == "sheet":
            read_sheet(copy / "sheet.csv")
            return f"{name}: read"
        promises(read_section(moved))
    except InputError as error:
        if "intact file" in str(error) and str(error).startswith("reading "):
            return f"{name}: its reading process died"
        return (
            f"{name}: {type(error).__name__}" if "\n" not in str(error) else "TRACEBACK two lines"
        )
    except StretrieveError as error:
        return f"TRACEBACK {type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 (this is what the fuzzer looks for)
        traceback.print_exc()
        return f"TRACEBACK {type(error).__name__}: {str(error)[:200]}"
    return f"{name}: read"


def check(number: int, row: SheetRow, copy: Path) -> str:
    """Check one section through the command; return how it went."""
    sheet = copy / "sheet.csv"
    if not sheet.is_file():
        fields = {
            "section": row.section, "species": row.species, "platform": row.platform,
            "format": row.format, "counts": row.counts, "spots": row.spots or "",
        }  # fmt: skip
        with sheet.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(fields))
            writer.writeheader()
            writer.writerow(fields)
    command = [sys.executable, "-m", "stretrieve", "check", sheet, "--out", copy / "out"]
    command += ["--json"] * (number % 2) + ["--quiet"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    if done.returncode == 0 and not lines:
        return "read"
    if done.returncode == 3 and len(lines) == 1 and lines[0].startswith("error: "):
        return "refused"
    return f"UNCLEAR exit {done.returncode}, stderr {done.stderr}"


def work(first: int, n: int, seed: int, *, command: bool) -> int:
    """Run inputs in this process; one line of JSON before and after each."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    report = os.fdopen(os.dup(1), "w", buffering=1)  # C libraries may write to descriptor 1
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        base, copies = Path(folder, "base"), Path(folder, "copies")
        base.mkdir()
        copies.mkdir()
        cases = write_cases(base)
        for number in range(first, first + n):
            report.write(json.dumps({"start": number}) + "\n")
            outcome = one(number, seed, cases, copies, command=command)
            report.write(json.dumps({"end": number, "outcome": outcome}) + "\n")
    return 0


class Watch:
    """One reading process after the other over a range of inputs, watched for hangs and crashes."""

    def __init__(self, first: int, n: int, options: argparse.Namespace) -> None:
        self.first, self.n, self.options = first, n, options
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[tuple[int, str]] = []

    def run(self) -> None:
        place, end = self.first, self.first + self.n
        while place < end:
            place = self.stretch(place, end)

    def stretch(self, first: int, end: int) -> int:
        """Run until the process ends; return the number to go on with."""
        ends = [
            "--first",
            str(first),
            "--inputs",
            str(end - first),
            "--seed",
            str(self.options.seed),
        ]
        command = [sys.executable, __file__, "--work", *ends]
        command += ["--command"] * self.options.command
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running, since = -1, time.monotonic()
        timer = threading.Timer(0, lambda: None)
        for line in process.stdout or ():
            timer.cancel()
            event = json.loads(line)
            if "start" in event:
                running, since = event["start"], time.monotonic()
                timer = threading.Timer(self.options.hang_s, process.kill)
                timer.start()
                continue
            self.note(event["end"], event["outcome"])
            running = -1
        timer.cancel()
        code = process.wait()
        if running < 0 and code == 0:
            return end
        hung = time.monotonic() - since >= self.options.hang_s
        self.note(max(running, first), "HANG" if hung else f"CRASH exit {code}")
        return max(running, first) + 1

    def note(self, number: int, outcome: str) -> None:
        self.counts[outcome.partition(" ")[0] if outcome[:5].isupper() else outcome] += 1
        if outcome[:4].isupper():
            self.wrong.append((number, outcome))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--hang-s", type=float, default=30.0)
    parser.add_argument("--command", action="store_true", help="through stretrieve check")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.first, options.inputs, options.seed, command=options.command)
    start, jobs = time.monotonic(), min(options.jobs, options.inputs)
    bounds = np.linspace(options.first, options.first + options.inputs, jobs + 1).astype(int)
    watches = [Watch(int(a), int(b - a), options) for a, b in itertools.pairwise(bounds)]
    threads = [threading.Thread(target=watch.run) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = sum((watch.counts for watch in watches), collections.Counter())
    wrong = sorted(item for watch in watches for item in watch.wrong)
    result = {
        "inputs": options.inputs,
        "read": sum(n for name, n in counts.items() if name.endswith(": read")),
        "refused": sum(
            n for name, n in counts.items() if ": " in name and not name.endswith("read")
        ),
        "wrong": len(wrong),
        "seconds": round(time.monotonic() - start),
        "outcomes": dict(sorted(counts.items())),
        "examples": wrong[:20],
    }
    print(json.dumps(result, indent=2))
    return int(bool(wrong) or sum(counts.values()) != options.inputs)


if __name__ == "__main__":
    sys.exit(main())
