"""Outputs that fail while they are written."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from stretrieve.errors import ResourceError
from stretrieve.query.parts import Form, PackedGroup
from stretrieve.query.write import OutputFormat, open_output
from stretrieve.reference.resources import typed_os_errors

FORM = Form(n_rows=64, n_genes=1 << 16, group_rows=64)


def incompressible() -> PackedGroup:
    size = FORM.chunk[0] * FORM.chunk[1] * 4
    chunk = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    return PackedGroup(0, {"X": [chunk] * (FORM.n_genes // FORM.chunk[1])}, {}, {}, {})


@pytest.fixture
def small_disk():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_the_first_error_comes_out_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.h5ad"
    close = h5py.File.close

    def flush_and_fail(file: h5py.File) -> None:
        close(file)
        raise RuntimeError("Can't decrement id ref count (unable to extend file properly)")

    monkeypatch.setattr(h5py.File, "close", flush_and_fail)
    with (
        pytest.raises(OSError, match=r".") as caught,
        open_output(out, FORM, output_format=OutputFormat.H5AD) as writer,
    ):
        writer.put(incompressible())
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_is_known_by_the_words_of_hdf5(words: str) -> None:
    with pytest.raises(ResourceError, match="full disk"), typed_os_errors("query"):
        raise RuntimeError(f"unable to extend file properly (errno = 1, error message = '{words}')")
