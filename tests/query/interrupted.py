"""A query in a child process that does not live to end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

from stretrieve._failpoints import VARIABLE

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["stretrieve.query", "stretrieve.embedders.colour", "faiss"])


def ask(root, out, question, settings, output, group_rows, crash_at=None) -> None:
    """Run one query into a file, in groups of ``group_rows``."""
    if crash_at is not None:
        os.environ[VARIABLE] = str(crash_at)
    from stretrieve.query import QueryEngine, groups
    from stretrieve.reference import Reference

    groups.MAX_ROWS = group_rows
    engine = QueryEngine(Reference.open(root), settings=settings)
    engine.query_to(out, question, output=output)


def run_child(*arguments, kill_when=None) -> int:
    """Run :func:`ask` in a process of its own; kill it once ``kill_when`` exists."""
    process = CONTEXT.Process(target=ask, args=arguments)
    process.start()
    if kill_when is not None:
        limit = time.monotonic() + 60
        while not any(kill_when()) and process.is_alive() and time.monotonic() < limit:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    process.join(120)
    return process.exitcode


def part_files(out: Path):
    """Return the finished row groups beside an output."""
    return (out.with_name(f".{out.name}.querying") / "rows").glob("[0-9]*.npz")
