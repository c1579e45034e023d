"""A bounded part of ``benchmarks/fuzz_spots.py``: damaged section files never do worse than an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_damaged_sections_give_one_line_errors() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/fuzz_spots.py",
            "--inputs",
            "200",
            "--jobs",
            "1",
            "--seed",
            "11",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    result = json.loads(done.stdout)
    assert result["examples"] == [], done.stderr[-2000:]
    assert done.returncode == 0
    assert result["read"] + result["refused"] == 200
    assert result["read"] >= 10
    assert result["refused"] >= 50
