"""The command line keeps the memory that it frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from stretrieve.cli import app
from stretrieve.cli._memory import keep

FAULTS = """
import resource
import sys
from stretrieve.cli._memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"1") * (200 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str) -> int:
    """Return the page faults of filling 200 MiB again in a process of its own."""
    command = [sys.executable, "-c", FAULTS, what]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def glibc() -> tuple[int, ...]:
    name, version = platform.libc_ver()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else ()


@pytest.mark.skipif(glibc() < (2, 35), reason="only glibc can be told, of large blocks since 2.35")
def test_freed_memory_is_used_again() -> None:
    assert faults("keep") < faults("give back") / 10


@pytest.mark.parametrize(
    ("largest", "told"),
    [
        (1 << 40, [(-3, 1 << 30), (-1, 1 << 30)]),
        (32 << 20, [(-3, 32 << 20), (-1, 1 << 30)]),
        (0, []),
    ],
)
def test_trimming_is_left_alone_where_blocks_are(largest: int, told: list[tuple[int, int]]) -> None:
    accepted = []

    def mallopt(what: int, value: int) -> int:
        if what == -3 and value > largest:
            return 0
        accepted.append((what, value))
        return 1

    keep(mallopt)
    assert accepted == told


def test_every_command_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(app, "keep_freed_memory", lambda: told.append(True))
    monkeypatch.setattr(sys, "argv", ["stretrieve", "--version"])
    with pytest.raises(SystemExit):
        app.main()
    assert told
