"""How long a command took, and how much memory processes use."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One finished command: exit code, output, wall seconds, peak MiB of its largest process."""

    code: int
    stdout: str
    seconds: float
    peak_mib: float


def stretrieve(*arguments: object) -> Run:
    """Run the command line in a process of its own; progress goes to this process's stderr."""
    command = [sys.executable, "-m", "stretrieve", *map(str, arguments)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stdout = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return Run(process.returncode, stdout, seconds, usage.ru_maxrss / 1024)


def family_mib() -> float:
    """Proportional resident memory of this process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            parent = int((status.parent / "stat").read_text().rpartition(")")[2].split()[1])
            if os.getpid() in (int(status.parent.name), parent):
                text = status.read_text()
                total += int(text.split("Pss:")[1].split()[0])
        except (OSError, IndexError, ValueError):
            continue
    return total / 1024


@contextlib.contextmanager
def peak_mib() -> Iterator[Callable[[], float]]:
    """Watch :func:`family_mib` during the block; what is given returns the peak."""
    peak = 0.0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, family_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: peak
    finally:
        stop.set()
        thread.join()


def footprint() -> tuple[float, int, int]:
    """Resident MiB, open files and child processes of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    files = len(list(Path("/proc/self/fd").iterdir()))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, len(children)
