"""Several writers lose nothing and repeat nothing; readers keep their version."""

import hashlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from stretrieve.reference import Reference, add_sections, verify_reference

from .crash import CONTEXT, run_child
from .tiny import make_section


def _add(root, path, wait_s):
    from stretrieve.errors import BusyError
    from stretrieve.reference import add_sections

    from . import conftest

    del conftest
    try:
        add_sections(root, pickle.loads(path.read_bytes()), wait_s=wait_s)
    except BusyError:
        raise SystemExit(3) from None


def start_writers(ref, tmp_path, sections, *, wait_s):
    processes = []
    for i, section in enumerate(sections):
        path = tmp_path / f"{i}.pickle"
        path.write_bytes(pickle.dumps([section]))
        processes.append(CONTEXT.Process(target=_add, args=(ref, path, wait_s)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def small_sections(tmp_path, n):
    made = make_section(tmp_path / "im", "x", n=3)
    return [replace(made, meta=replace(made.meta, section=f"w{i}")) for i in range(n)]


def test_eight_writers_wait_for_each_other(ref, tmp_path):
    codes = start_writers(ref, tmp_path, small_sections(tmp_path, 8), wait_s=100)
    assert codes == [0] * 8
    reference = Reference.open(ref)
    assert reference.manifest.version == 9
    assert reference.spots.spot_uid.is_unique
    assert len(reference.spots) == 66 + 8 * 9
    assert verify_reference(ref).ok


def test_a_writer_that_does_not_wait_changes_nothing(ref, tmp_path):
    codes = start_writers(ref, tmp_path, small_sections(tmp_path, 3), wait_s=0)
    assert set(codes) <= {0, 3}
    assert codes.count(0) >= 1
    assert Reference.open(ref).manifest.version == 1 + codes.count(0)
    assert len(Reference.open(ref).spots) == 66 + 9 * codes.count(0)


@pytest.mark.parametrize("least", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_readers_keep_their_version_while_writers_work(ref, tmp_path, new_section, least):
    inputs = tmp_path / "inputs"
    inputs.write_bytes(pickle.dumps(([], new_section)))
    reader = Reference.open(ref)
    queries = np.random.default_rng(0).normal(size=(4, 12))
    digests, done = set(), threading.Event()
    counted = [0]

    def read():
        while not done.is_set() or counted[0] < least:
            found = reader.search(queries, 5, modality="image")
            counts = reader.expression(np.unique(found.indices)[:3])
            digest = hashlib.sha256(found.indices.tobytes() + found.scores.tobytes())
            digest.update(counts.toarray().tobytes())
            digests.add(digest.hexdigest())
            counted[0] += 1

    thread = threading.Thread(target=read)
    thread.start()
    codes = [run_child(name, ref, inputs) for name in ("add", "remove", "compact")]
    done.set()
    thread.join()
    assert codes == [0, 0, 0]
    assert len(digests) == 1
    assert counted[0] >= least
    assert Reference.open(ref).manifest.version == 4
    assert verify_reference(ref).ok


def test_readers_that_open_during_writes_see_whole_versions(ref, tmp_path, new_section):
    inputs = tmp_path / "inputs"
    inputs.write_bytes(pickle.dumps(([], new_section)))
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            reference = Reference.open(ref)
            n = len(reference.spots)
            assert reference.manifest.n_spots == n == len(reference.embeddings("image"))
            reference.expression(np.arange(0, n, 20))
            seen.add((reference.manifest.version, n))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        codes = [run_child(name, ref, inputs) for name in ("add", "remove", "compact", "compact")]
        done.set()
        for future in readers:
            future.result()
    assert codes == [0] * 4
    assert seen <= {(1, 66), (2, 91), (3, 66), (4, 66), (5, 66)}


@pytest.mark.slow
def test_a_hundred_additions_and_removals(ref, tmp_path):
    digest = Reference.open(ref).manifest.content_digest
    for section in small_sections(tmp_path, 50):
        add_sections(ref, [section])
        Reference.open(ref).remove(sections=[section.meta.section])
    reference = Reference.open(ref)
    assert (reference.manifest.version, reference.manifest.content_digest) == (101, digest)
    assert verify_reference(ref).ok
