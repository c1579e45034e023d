"""A query on a real slide: wall time beside its parts, memory by slide area, many queries, the plan.

    python benchmarks/query_slide.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

DATA holds `her2st/<section>/` (the reference: A1, C2-C5 of Andersson et al. 2021) and `wsi/` with
`generic_tiff/her2st_C3_pyramid.tiff` and `aperio/CMU-1-Small-Region.svs`. Parts, each in processes of
their own (`--parts` chooses):

- `wall`: the query (`frozen`, MobileNetV2, all genes) against decoding alone and the
  network alone on the same patches, in turns, and the network beside a process that only counts;
- `plan`: what `--plan` says against what the query then takes;
- `area`: peak memory (this process and its reader together) on 1, 4 and 16 times the area, tiled from
  the pixels of CMU-1-Small-Region;
- `soak`: memory and open files over many queries in one process.

All processes keep the memory that they free, as the command line does. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _measure import footprint, stretrieve
from her2st import MOBILENET, write_sheet
from slide_throughput import write_pyramid

from stretrieve.cli._memory import keep_freed_memory
from stretrieve.query import QueryEngine, QuerySettings, Question
from stretrieve.query.plan import plan_query
from stretrieve.reference import Reference
from stretrieve.slides import open_slide, read_patches
from stretrieve.slides.types import PatchBatch

C3 = "wsi/generic_tiff/her2st_C3_pyramid.tiff"
CMU = "wsi/aperio/CMU-1-Small-Region.svs"
C3_MPP = 0.687
FAMILY = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
AREAS = {1: 8192, 4: 16_384, 16: 32_768}


@dataclass(frozen=True)
class Place:
    """Where things are."""

    data: Path
    out: Path
    weights: Path

    def reference(self, embedder: str) -> Path:
        """Return the reference of an embedder, building it once."""
        ref = self.out / f"REF-{embedder}"
        if not ref.exists():
            sheet, _ = write_sheet(self.data, self.out)
            backbone = (*MOBILENET, "--patch-px", 224, "--weights", self.weights.resolve())
            stretrieve(
                "build-ref", sheet, "--out", ref, "--embedder", embedder, "--patch-um", 200,
                *(() if embedder == "colour" else backbone),
            )  # fmt: skip
        return ref

    def c3(self, **more: Any) -> Question:
        """Return the question on the real slide."""
        return Question(self.data / C3, mpp=C3_MPP, patient="C", **more)


def engine(place: Place, embedder: str, **settings: Any) -> QueryEngine:
    """Return an engine whose reference is open."""
    return QueryEngine(
        Reference.open(place.reference(embedder)), settings=QuerySettings(**settings)
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def beside_a_busy_core(work: Callable[[], object]) -> None:
    """Do something while another process counts: what a machine's cores take from each other."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as counting:
        try:
            work()
        finally:
            counting.kill()


def wall(place: Place, options: argparse.Namespace) -> None:
    """Query, decoding alone and network alone, in turns."""
    import torch

    torch.set_num_threads(options.threads)
    asked = engine(place, "frozen", workers=options.workers, stride_um=options.stride_um)
    question = place.c3()
    with asked.open(question) as opened:
        xy, spec = opened.job.positions.xy, opened.job.embedder.spec
        network = opened.job.embedder
    slide = open_slide(place.data / C3, pixel_size=question.pixel_size)

    def decoded() -> Iterator[PatchBatch]:
        return read_patches(slide, xy, spec, batch_size=64, workers=options.workers)

    def embedded() -> list[object]:
        return [network.encode_once(batch) for batch in batches]

    parts = (
        lambda: asked.query_to(place.out / "wall.h5ad", question, overwrite=True),
        lambda: sum(map(len, decoded())),
        embedded,
        lambda: beside_a_busy_core(embedded),
    )
    with slide:
        batches = list(decoded())
        rounds = [[seconds(part) for part in parts] for _ in range(options.rounds + 1)]
    rows = rounds[1:]  # the first one warms up
    print(f"patches {len(xy)}, {options.threads} torch threads, {options.workers} readers")
    print("| query | decoding alone | network alone | beside a busy core | query / slower alone |")
    print("|---|---|---|---|---|")
    ratios = [whole / max(read, net) for whole, read, net, _ in rows]
    for row, ratio in zip(rows, ratios, strict=True):
        print("|", " | ".join(f"{taken:.2f} s" for taken in row), f"| {ratio:.3f} |")
    print(f"median ratio {np.median(ratios):.3f}")


def one_query(place: Place, options: argparse.Namespace) -> None:
    """Run a plan or a query in this process alone and print what it took."""
    out = place.out / "plan.h5ad"
    asked = engine(place, options.embedder, stride_um=options.stride_um)
    question = place.c3() if options.slide is None else Question(options.slide, mpp=0.5)
    facts: dict[str, Any] = {}
    if options.kind == "plan":
        facts = plan_query(asked, question).to_dict()
    else:
        start = time.perf_counter()
        written = asked.query_to(out, question, overwrite=True)
        facts = {
            "seconds": time.perf_counter() - start,
            "patches": written.summary["patches"],
            "memory_bytes": 1024 * sum(resource.getrusage(who).ru_maxrss for who in FAMILY),
            "output_bytes": out.stat().st_size,
        }
    print(json.dumps(facts))


def child(place: Place, *more: object) -> dict[str, Any]:
    """Run :func:`one_query` in a process of its own."""
    command = [sys.executable, __file__, place.data, "--weights", place.weights, "--out", place.out]
    done = subprocess.run(
        [*map(str, command), *map(str, more)], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def plan(place: Place, options: argparse.Namespace) -> None:
    """Compare a plan with the query."""
    print("| embedder | what | planned | measured | planned / measured |\n|---|---|---|---|---|")
    for embedder in ("frozen", "colour"):
        place.reference(embedder)
        common = ("--embedder", embedder, "--stride-um", options.stride_um)
        said, took = (child(place, *common, "--kind", kind) for kind in ("plan", "query"))
        for name, value in took.items():
            ratio = said[name] / value
            print(f"| {embedder} | {name} | {said[name]:.4g} | {value:.4g} | {ratio:.3f} |")


def area(place: Place, options: argparse.Namespace) -> None:
    """Peak memory on slides of growing area."""
    place.reference("colour")
    with open_slide(place.data / CMU) as slide:
        base = np.asarray(slide.read_region((0, 0), 0, (2048, 2048)))
    peaks = {}
    print("| area | side | patches | peak MiB | wall time |\n|---|---|---|---|---|")
    for times, side in AREAS.items():
        path = write_pyramid(place.out / f"area{side}.tiff", side, base)
        took = child(place, "--kind", "query", "--embedder", "colour", "--slide", path,
                     "--stride-um", options.area_stride_um)  # fmt: skip
        peaks[times] = took["memory_bytes"] / 2**20
        print(
            f"| {times}x | {side} px | {took['patches']} | {peaks[times]:.0f} |"
            f" {took['seconds']:.0f} s |",
            flush=True,
        )
    print(f"largest / smallest {max(peaks.values()) / min(peaks.values()):.3f}")


def soak(place: Place, options: argparse.Namespace) -> None:
    """Query again and again in one process."""
    asked = engine(place, options.embedder)
    question = Question(place.data / CMU)
    marks = {options.queries // 10, options.queries // 2, options.queries}
    print("| queries | resident MiB | open files | child processes |\n|---|---|---|---|")
    for i in range(1, options.queries + 1):
        asked.query_to(place.out / "soak.h5ad", question, overwrite=True)
        if i in marks:
            mib, files, children = footprint()
            print(f"| {i} | {mib:.1f} | {files} | {children} |", flush=True)


PARTS: dict[str, Callable[[Place, argparse.Namespace], None]] = {
    "wall": wall,
    "plan": plan,
    "area": area,
    "soak": soak,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default="wall,plan,area,soak")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stride-um", type=float, default=200.0)
    parser.add_argument("--area-stride-um", type=float, default=100.0)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--embedder", default="colour", help="of the soak")
    parser.add_argument("--kind", choices=("plan", "query"), help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    place = Place(options.data, options.out, options.weights)
    if options.kind:
        one_query(place, options)
        return
    for name in options.parts.split(","):
        print(f"\n## {name}\n", flush=True)
        PARTS[name](place, options)


if __name__ == "__main__":
    main()
