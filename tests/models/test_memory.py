"""Memory of networks: activations come in large pages where the system has them."""

import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource
import stretrieve.models.encoders
import torch
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = count()
tensor = torch.ones(64, 1 << 20)
print(count() - before)
"""


def faults(**environment: str) -> int:
    """Return the page faults of filling 256 MiB in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


def are_granted() -> bool:
    """Return whether memory comes in large pages where they are asked for, and only there."""
    if not HUGE.exists() or "[madvise]" not in HUGE.read_text():
        return False
    n_bytes, usage = 64 << 20, resource.RUSAGE_SELF
    with mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_HUGEPAGE)
        before = resource.getrusage(usage).ru_minflt
        for start in range(0, n_bytes, mmap.PAGESIZE):
            area[start] = 1
        return resource.getrusage(usage).ru_minflt - before < n_bytes // mmap.PAGESIZE // 4


@pytest.mark.skipif(not are_granted(), reason="no large pages on request")
def test_activations_come_in_huge_pages_unless_the_user_says_no() -> None:
    assert faults() < faults(THP_MEM_ALLOC_ENABLE="0") / 4
