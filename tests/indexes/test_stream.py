"""Index files that are written, and searched, without holding their vectors in memory."""

import multiprocessing
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stretrieve.indexes import ExactIndex, Metric, build_index, load_recipe, make_index, read_index
from stretrieve.indexes import stream as module
from stretrieve.testing.indexes import clustered_vectors, queries_near

MIB = 1 << 20
OUT_OF_MEMORY = 6


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize(("name", "n_lists"), [("flat", 0), ("ivf_flat_mmap", 16)])
def test_the_bytes_are_those_that_faiss_writes(tmp_path, monkeypatch, name, n_lists, metric):
    monkeypatch.setattr(module, "_GROUP_BYTES", 10_000)
    vectors = clustered_vectors()
    recipe = replace(load_recipe(name), n_lists=n_lists)
    _, streamed = make_index(tmp_path / "a.faiss", vectors, recipe, metric=metric)
    whole = build_index(vectors, recipe, metric=metric).save(tmp_path / "b.faiss")
    assert streamed == whole


def test_most_lists_may_be_empty(tmp_path):
    vectors = np.repeat(np.eye(4, dtype=np.float32), 200, axis=0)
    recipe = replace(load_recipe("ivf_flat_mmap"), n_lists=16)
    _, streamed = make_index(tmp_path / "a.faiss", vectors, recipe, metric=Metric.EUCLIDEAN)
    whole = build_index(vectors, recipe, metric=Metric.EUCLIDEAN).save(tmp_path / "b.faiss")
    assert streamed == whole


def _data_bytes():
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


def _limited(folder, name, mapped):
    """Build and search an index in two fifths of the memory that its vectors take."""
    recipe = replace(load_recipe(name), n_lists=32 if name != "flat" else 0, nprobe=32)
    small = clustered_vectors(n=20_000, dim=64)
    build_index(small, recipe, metric=Metric.COSINE).search(small[:50], 5)
    vectors = np.load(folder / "v.npy", mmap_mode="r")
    queries = queries_near(np.array(vectors[:1000]))
    limit = _data_bytes() + 60 * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        if mapped:
            index, _ = make_index(folder / "i.faiss", vectors, recipe, metric=Metric.COSINE)
        else:
            index = build_index(vectors, recipe, metric=Metric.COSINE)
        np.save(folder / "found.npy", index.search(queries, 5).indices)
    except (MemoryError, RuntimeError) as error:
        raise SystemExit(OUT_OF_MEMORY) from error


@pytest.mark.parametrize("name", ["flat", "ivf_flat_mmap"])
def test_it_fits_in_less_memory_than_the_vectors_take(tmp_path, name, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    vectors = np.random.default_rng(0).normal(size=(600_000, 64)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    context = multiprocessing.get_context("spawn")
    codes = []
    for mapped in (True, False):
        process = context.Process(target=_limited, args=(tmp_path, name, mapped))
        process.start()
        process.join(100)
        codes.append(process.exitcode)
    assert codes == [0, OUT_OF_MEMORY]
    truth = ExactIndex(vectors, metric=Metric.COSINE).search(queries_near(vectors[:1000]), 5)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), truth.indices)


def test_a_mapped_file_is_read_as_it_was_written(tmp_path):
    vectors = clustered_vectors()
    recipe = load_recipe("flat")
    _, sha256 = make_index(tmp_path / "a.faiss", vectors, recipe, metric=Metric.COSINE)
    again = read_index(tmp_path / "a.faiss", vectors, recipe, metric=Metric.COSINE, sha256=sha256)
    truth = ExactIndex(vectors, metric=Metric.COSINE).search(queries_near(vectors), 9)
    np.testing.assert_array_equal(again.search(queries_near(vectors), 9).indices, truth.indices)
