"""How a reference grows: build time per spot, open time, query latency, memory, reading of counts.

    python benchmarks/growth.py --sizes 10000 100000 1000000 --plot growth.png

For each size a reference of sections of 4,000 spots with 256-d embeddings and 2,000 expressed genes of
20,000 a spot is written through the store, one section a commit, and given indexes and a manifest as a
build does (embedding of images is left out: it is measured elsewhere and linear). Each size runs in a
process of its own, so that peak memory is its own. Loading libraries is timed apart. Printed is one JSON
line a size, and one with the build time of all sizes as a fixed part and a part per spot.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from stretrieve import keys
from stretrieve._files import sha256_file
from stretrieve.config import settings_to_dict
from stretrieve.reference import BuildSettings, Reference
from stretrieve.reference.commit import Made, commit_version
from stretrieve.reference.layout import Layout
from stretrieve.store import SectionRecord, SpotRows, SpotStore
from stretrieve.store.lance import connect

SECTION, DIM, GENES, EXPRESSED = 4000, 256, 20_000, 2000


def template(rng: np.random.Generator) -> sparse.csr_matrix:
    """Return counts of one section; every section holds these rows in another order."""
    blocks = [np.sort(rng.choice(GENES, EXPRESSED, replace=False)) for _ in range(64)]
    indices = np.concatenate([blocks[i % 64] for i in range(SECTION)]).astype(np.int32)
    data = (1 + rng.poisson(1.0, size=len(indices))).astype(np.int32)
    indptr = np.arange(0, len(indices) + 1, EXPRESSED)
    return sparse.csr_matrix((data, indices, indptr), shape=(SECTION, GENES))


def section(
    number: int, counts: sparse.csr_matrix, names: list[str]
) -> tuple[SectionRecord, SpotRows]:
    """Return one section of random embeddings around its own centre."""
    rng = np.random.default_rng(number)
    centre = rng.normal(size=(8, DIM)).astype(np.float32)
    xy = rng.uniform(0, 5000, size=(SECTION, 2))

    def embeddings() -> np.ndarray:
        noise = rng.normal(size=(SECTION, DIM)).astype(np.float32)
        return centre[rng.integers(0, 8, SECTION)] + noise

    record = SectionRecord(
        f"s{number:05d}", f"p{number // 4}", "breast", "human", "visium", "", 0, GENES, (0.5, 0.5),
        "given",
    )  # fmt: skip
    rows = SpotRows(
        [f"{i:05d}" for i in range(SECTION)],
        xy,
        xy * 0.5,
        xy,
        counts[rng.permutation(SECTION)],
        names,
        {keys.IMAGE_EMBEDDING: embeddings(), keys.EXPRESSION_EMBEDDING: embeddings()},
        [rng.bytes(1500) for _ in range(SECTION)],
    )
    return record, rows


class PeakMemory(threading.Thread):
    """Watches the memory of this process that no file stands behind; mapped files can be let go."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0

    def run(self) -> None:
        """Look every 10 ms."""
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.mib = max(self.mib, int(line.split()[1]) / 1024)
            time.sleep(0.01)


def load_libraries() -> dict[str, float]:
    """Import what any build imports and return how long it took."""
    start, cpu = time.perf_counter(), time.process_time()
    for name in ("faiss", "lancedb", "pyarrow.compute", "stretrieve.reference"):
        importlib.import_module(name)
    return {
        "libraries_s": time.perf_counter() - start,
        "libraries_cpu_s": time.process_time() - cpu,
    }


def build(root: Path, n_spots: int, watch: PeakMemory) -> dict[str, float]:
    """Write a reference and return seconds and peak memory, of the tables apart."""
    libraries = load_libraries()
    layout = Layout(root)
    layout.embedder.mkdir(parents=True)
    (layout.embedder / "config.json").write_text("{}")
    names = [f"ENSG{i:011d}" for i in range(GENES)]
    genes = pd.DataFrame(
        {keys.GENE_ID: names, keys.GENE_SYMBOL: names}, index=pd.Index(names, name="gene")
    )
    dims = {keys.IMAGE_EMBEDDING: DIM, keys.EXPRESSION_EMBEDDING: DIM}
    counts = template(np.random.default_rng(0))
    start = time.perf_counter()
    cpu = time.process_time()
    store = SpotStore.create(str(root / keys.LANCE), dims=dims, genes=genes)
    spent = spent_cpu = 0.0
    for number in range(n_spots // SECTION):
        made_at, made_cpu = time.perf_counter(), time.process_time()
        record, rows = section(number, counts, names)
        spent += time.perf_counter() - made_at
        spent_cpu += time.process_time() - made_cpu
        store.append_section(record, rows)
    tables = time.perf_counter() - start - spent
    tables_mib = watch.mib
    start = time.perf_counter()
    entry = {
        "name": "none", "config": {}, "dim": DIM, "gene_names": [],
        "patch_spec": {"views": [{"patch_px": 224, "mpp": 0.5}]},
        "files": {"config.json": sha256_file(layout.embedder / "config.json")},
    }  # fmt: skip
    settings = settings_to_dict(BuildSettings())
    commit_version(layout, store, Made(settings, entry, "auto"), change="built", uri=keys.LANCE)
    commit = time.perf_counter() - start
    cpu = time.process_time() - cpu - spent_cpu
    return {
        **libraries,
        "tables_s": tables,
        "commit_s": commit,
        "build_cpu_s": cpu,
        "tables_peak_mib": tables_mib,
    }


def peak_mib() -> float:
    """Return the peak resident memory of this process so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function: object, repeats: int = 1) -> float:
    """Return the least seconds of a few calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()  # type: ignore[operator]
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def read(root: Path, n_spots: int, _: PeakMemory) -> dict[str, float]:
    """Open, search and read counts; compare the latter with a bare take of the same columns."""
    opening = timed(lambda: Reference.open(root).spot_table.row_ids)
    reference = Reference.open(root)
    load = timed(lambda: reference.searcher("expression"))
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(256, DIM)).astype(np.float32)
    batch = timed(lambda: reference.search(queries, 50), 3)
    single = timed(lambda: reference.search(queries[:1], 50), 5)
    positions = np.sort(rng.choice(n_spots, min(20_000, n_spots // 2), replace=False))
    reference.expression(positions[:10])
    ours = timed(lambda: reference.expression(positions), 3)
    table = connect(str(root / keys.LANCE)).open_table(keys.TABLE_SPOTS)
    row_ids = np.unique(reference.spot_table.row_ids[positions]).tolist()
    columns = [keys.GENE_INDICES, keys.GENE_COUNTS]
    bare = timed(lambda: table.take_row_ids(row_ids).select(columns).to_arrow(), 3)
    return {
        "open_s": opening, "load_index_s": load, "query_ms_single": 1000 * single,
        "query_ms_batched": 1000 * batch / len(queries), "expression_s": ours, "bare_take_s": bare,
        "expression_share_of_bare": bare / ours,
    }  # fmt: skip


def one_size(n_spots: int, folder: Path) -> dict[str, float]:
    """Build in one process and read in another; return all figures."""
    figures: dict[str, float] = {"spots": n_spots}
    for step in ("build", "read"):
        command = [sys.executable, __file__, "--step", step, "--root", str(folder / "REF")]
        done = subprocess.run(
            [*command, "--sizes", str(n_spots)], stdout=subprocess.PIPE, check=True
        )
        found = json.loads(done.stdout)
        figures |= {f"{step}_{k}" if k.startswith("peak") else k: v for k, v in found.items()}
    figures["build_us_per_spot"] = 1e6 * (figures["tables_s"] + figures["commit_s"]) / n_spots
    figures["build_cpu_us_per_spot"] = 1e6 * figures["build_cpu_s"] / n_spots
    figures["disk_gb"] = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e9
    return figures


def fit(lines: list[dict[str, float]]) -> dict[str, float]:
    """Return the processor time of builds as a fixed part and one per spot: least relative errors."""
    spots = np.array([line["spots"] for line in lines])
    seconds = np.array([line["build_cpu_s"] for line in lines])
    design = np.stack([np.ones(len(lines)), spots], axis=1) / seconds[:, None]
    (fixed, per_spot), *_ = np.linalg.lstsq(design, np.ones(len(lines)), rcond=None)
    off = np.abs((fixed + per_spot * spots) / seconds - 1).max()
    libraries = float(np.mean([line["libraries_cpu_s"] for line in lines]))
    return {
        "libraries_cpu_s": libraries, "build_cpu_fixed_s": float(fixed),
        "build_cpu_us_per_further_spot": 1e6 * float(per_spot), "fit_off_by_at_most": float(off),
    }  # fmt: skip


def plot(lines: list[dict[str, float]], path: Path) -> None:
    """Draw the curves against the number of spots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels: dict[str, dict[str, str]] = {
        "build, µs a spot": {"build_cpu_us_per_spot": "CPU", "build_us_per_spot": "wall"},
        "peak memory, MiB": {
            "tables_peak_mib": "build: tables", "build_peak_mib": "build: all",
            "read_peak_mib": "read",
        },
        "open, s": {"open_s": "open", "load_index_s": "load an index"},
        "query, ms": {"query_ms_single": "one at a time", "query_ms_batched": "of a batch of 256"},
        "20,000 spots' counts, s": {"expression_s": "expression()", "bare_take_s": "bare take"},
    }  # fmt: skip
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.6 * len(panels), 3.2), layout="constrained"
    )
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, label in curves.items():
            axis.plot(
                [line["spots"] for line in lines], [line[name] for line in lines], "o-", label=label
            )
        axis.set(xscale="log", xlabel="spots", title=title, ylim=(0, None))
        axis.legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print one JSON line a size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--work", type=Path, default=None, help="folder for the references")
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--step", choices=("build", "read"), default=None)
    parser.add_argument("--root", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.step:
        size = arguments.sizes[0] // SECTION * SECTION
        step = build if arguments.step == "build" else read
        watch = PeakMemory()
        watch.start()
        found = step(arguments.root, size, watch)
        print(json.dumps({**found, "peak_mib": watch.mib, "peak_with_files_mib": peak_mib()}))
        return
    lines = []
    for size in arguments.sizes:
        folder = Path(tempfile.mkdtemp(dir=arguments.work))
        lines.append(one_size(size // SECTION * SECTION, folder))
        print(json.dumps({k: round(v, 4) for k, v in lines[-1].items()}), flush=True)
        shutil.rmtree(folder)
    print(json.dumps({k: round(v, 4) for k, v in fit(lines).items()}))
    if arguments.plot:
        plot(lines, arguments.plot)


if __name__ == "__main__":
    main()
