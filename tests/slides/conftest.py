"""Slides made for the tests, and reader processes that misbehave on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stretrieve.slides import process
from tests.slides.pictures import tissue_picture, write_pyramid

_BOOT = """
import sys; sys.path.append(sys.argv[1])
import os, time
from pathlib import Path
from stretrieve.slides.readers import openslide as readers
Reader = readers.OpenSlideReader
real_read, real_open = Reader.read, Reader.__init__
def read(self, level, xy, size):
    x, y = xy
    {read}
    return real_read(self, level, xy, size)
def opened(self, path):
    {opening}
    real_open(self, path)
Reader.read, Reader.__init__ = read, opened
from stretrieve.slides.worker import main
main(int(sys.argv[2]))
"""


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    """A small pyramidal slide that states 0.5 µm/px."""
    return write_pyramid(tmp_path / "pyramid.tiff", tissue_picture())


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make every reader process started from now on run a statement before it reads or opens."""

    def install(*, read: str = "pass", opening: str = "pass") -> None:
        monkeypatch.setattr(process, "BOOT", _BOOT.format(read=read, opening=opening))

    return install
