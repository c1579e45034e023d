"""Work that steps back yields; the rest of the process, and what comes after it, does not."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stretrieve._priority import step_back
from stretrieve.slides import open_slide
from tests.slides.pictures import tissue_picture, write_pyramid

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")


def niceness(who: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, who)


def test_a_thread_steps_back_alone() -> None:
    before = niceness()
    with ThreadPoolExecutor(1, initializer=step_back) as behind, ThreadPoolExecutor(1) as beside:
        assert behind.submit(niceness).result() == max(10, before)
        assert beside.submit(niceness).result() == before
    assert niceness() == before


def test_readers_step_back(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "slide.tiff", tissue_picture())
    with open_slide(path) as slide:
        assert [niceness(reader.pid) for reader in slide.pool._idle] == [max(10, niceness())]
