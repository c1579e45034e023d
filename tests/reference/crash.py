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
    if name == "build":
        api.build_reference(sections, root, settings=SETTINGS, resume=True)
    elif name == "add":
        api.add_sections(root, [new])
    elif name == "remove":
        api.remove_sections(root, sections=["B"])
    elif name == "compact":
        api.compact_reference(root)
    elif name == "rebuild":
        api.rebuild_indexes(root)
    elif name == "tag":
        api.tag_version(root, "mine", move=True)
    elif name == "calibrate":
        api.set_calibration(root, {"a": 1})
    elif name == "export":
        api.export_reference(root, root.parent / "out.zip")
    elif name == "import":
        api.import_reference(root.parent / "in.zip", root, resume=True)


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
