"""Run a command and say how long it took and how much memory it used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass


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
