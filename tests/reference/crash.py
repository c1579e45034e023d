"""Operations that a child process begins and does not live to end."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

from stretrieve._failpoints import CRASH_CODE, VARIABLE

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(  # all that is slow to import and starts no threads
    [
        "stretrieve.reference",
        "stretrieve.testing.indexes",
        "faiss",
        "lance_namespace",
        "pyarrow.dataset",
    ]
)


def operation(name: str, root: Path, inputs: Path) -> None:
    """Run one operation on the reference at ``root``; sections come from a pickle of our own."""
    from stretrieve import reference as api

    from . import tiny
    from .conftest import SETTINGS

    del tiny
    sections, new = pickle.loads(inputs.read_bytes())
    further = api.FurtherSettings("tiny", {"dim": 5, "seed": 3}, embedding_dtype="float16")
    operations = {
        "build": lambda: api.build_reference(sections, root, settings=SETTINGS, resume=True),
        "add": lambda: api.add_sections(root, [new]),
        "remove": lambda: api.remove_sections(root, sections=["B"]),
        "compact": lambda: api.compact_reference(root),
        "rebuild": lambda: api.rebuild_indexes(root),
        "tag": lambda: api.tag_version(root, "mine", move=True),
        "calibrate": lambda: api.set_calibration(root, {"a": 1}),
        "embedder": lambda: api.add_embedder(root, sections, further, label="second"),
        "remove-embedder": lambda: api.remove_embedder(root, "other"),
        "export": lambda: api.export_reference(root, root.parent / "out.zip"),
        "import": lambda: api.import_reference(root.parent / "in.zip", root, resume=True),
    }
    operations[name]()


def _child(name: str, root: Path, inputs: Path, crash_at: int | None) -> None:
    if crash_at is not None:
        os.environ[VARIABLE] = str(crash_at)
    operation(name, root, inputs)


def run_child(name, root, inputs, *, crash_at=None, kill_after_s=None) -> int:
    """Run an operation in a process of its own and return its exit code (−9 when killed)."""
    process = CONTEXT.Process(target=_child, args=(name, root, inputs, crash_at))
    process.start()
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join(120)
    return process.exitcode


def count_points(name, root, inputs) -> int:
    """Run an operation here to its end and return how many crash points it passed."""
    from stretrieve import _failpoints

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "0"
    start = next(_failpoints._reached)
    try:
        operation(name, root, inputs)
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
    return next(_failpoints._reached) - start - 1


def fresh(source: Path | None, target: Path) -> None:
    """Put a copy of a reference in place, or nothing."""
    for path in (target, target.with_name(f".{target.name}.building")):
        shutil.rmtree(path, ignore_errors=True)
    (target.parent / "out.zip").unlink(missing_ok=True)
    if source is not None:
        shutil.copytree(source, target)


__all__ = ["CRASH_CODE", "count_points", "fresh", "operation", "run_child"]
