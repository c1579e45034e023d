"""Memory of networks: activations come in large pages where the system has them."""

import os
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


@pytest.mark.skipif(
    not HUGE.exists() or "[madvise]" not in HUGE.read_text(), reason="huge pages on request only"
)
def test_activations_come_in_huge_pages_unless_the_user_says_no() -> None:
    assert faults() < faults(THP_MEM_ALLOC_ENABLE="0") / 4
