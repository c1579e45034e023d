"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Hear interrupts in every test, and in all that its fixtures start.

    A shell hands "ignore interrupts" to what it runs in the background, and so on to children; the
    command line ignores them once its outcome is settled.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real tissue, parity arrays and weights; skipped where a clone has none."""
    folder = Path(os.environ.get("STRETRIEVE_TESTDATA", ROOT.parent / "shared"))
    if not (folder / "data" / "MANIFEST.md").is_file():
        message = f"no test data at {folder}; set STRETRIEVE_TESTDATA to run this test"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
