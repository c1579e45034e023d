"""The reading process: what crosses it is unchanged, and its death is an error, not the end."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stretrieve.errors import InputNotFoundError, MissingDependencyError, SectionError
from stretrieve.spots import SheetRow, read_section, reading
from stretrieve.spots.lattice import VISIUM
from stretrieve.spots.raw import JoinPolicy, RawSection
from stretrieve.spots.readers.xenium import READER as XENIUM
from stretrieve.spots.reading import _Service, read_names_apart, read_parts, read_table_apart
from stretrieve.spots.reading_child import answer
from stretrieve.spots.row import parse_mpp
from stretrieve.spots.transport import load_section, row_from_dict, row_to_dict, save_section

from .layouts import IDS, SYMBOLS, adata, toy, write_h5, write_spatial, write_xenium


@pytest.fixture
def path(tmp_path: Path) -> Path:
    adata(toy()).write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch):
    """A reading process of this test's own."""
    own = _Service()
    monkeypatch.setattr(reading, "_SERVICE", own)
    yield own
    own.close()


def same(one: RawSection, two: RawSection) -> None:
    assert (one.matrix.values != two.matrix.values).nnz == 0
    assert one.matrix.values.dtype == two.matrix.values.dtype
    for name in ("spot_ids", "gene_ids", "gene_symbols"):
        assert getattr(one.matrix, name) == getattr(two.matrix, name)
    for name in ("xy", "array_xy", "under_tissue"):
        np.testing.assert_array_equal(getattr(one.spots, name), getattr(two.spots, name))
    assert (one.spots.spot_ids, one.spots.aliases) == (two.spots.spot_ids, two.spots.aliases)
    for name in ("join", "lattice", "pixel_size", "image", "repairs", "known"):
        assert getattr(one, name) == getattr(two, name)


def test_parts_of_a_section_cross_unchanged(tmp_path: Path) -> None:
    write_xenium(tmp_path)
    raw = XENIUM.read(SheetRow("s", tmp_path, format="xenium"))
    (tmp_path / "t").mkdir()
    save_section(raw, tmp_path / "t")
    same(load_section(tmp_path / "t"), raw)
    same(read_parts("xenium", SheetRow("s", tmp_path)), raw)


def test_a_section_with_every_part_crosses_unchanged(tmp_path: Path) -> None:
    from dataclasses import replace

    write_xenium(tmp_path)
    raw = XENIUM.read(SheetRow("s", tmp_path, format="xenium"))
    spots = replace(raw.spots, aliases=([f"a{i}" for i in range(len(raw.spots))],))
    full = replace(
        raw,
        spots=spots,
        lattice=VISIUM,
        join=JoinPolicy.TOLERANT,
        image=tmp_path / "i.tif",
        repairs=("x",),
    )
    (tmp_path / "t").mkdir()
    save_section(full, tmp_path / "t")
    same(load_section(tmp_path / "t"), full)


def test_rows_cross_unchanged(tmp_path: Path) -> None:
    row = SheetRow(
        "µ", tmp_path / "a", "p", image=tmp_path / "i", mpp=parse_mpp("0.5x0.6"), format="x@8"
    )
    assert row_from_dict(row_to_dict(row)) == row


def test_positions_and_names_are_read_apart(tmp_path: Path, path: Path) -> None:
    write_spatial(tmp_path, toy(), generation=3)
    table = read_table_apart(tmp_path / "tissue_positions.parquet")
    np.testing.assert_allclose(table.xy, toy().xy)
    assert read_names_apart(path) == (IDS, SYMBOLS)


def test_errors_come_back_as_their_own_class(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no file"):
        read_parts("anndata", SheetRow("s", tmp_path / "none.h5ad"))
    with pytest.raises(SectionError, match="outs folder"):
        read_parts("visium", SheetRow("s", tmp_path))


def test_faults_of_ours_are_not_hidden_as_bad_input(tmp_path: Path) -> None:
    reply = answer({"what": "section", "format": "visium", "row": {}, "folder": str(tmp_path)})
    assert "KeyError" in reply["bug"]
    error = reading._error_of(reply)
    assert type(error) is RuntimeError
    missing = reading._error_of({"missing": ["spatialdata", "spatial"]})
    assert isinstance(missing, MissingDependencyError)
    assert "stretrieve[spatial]" in str(missing)


def test_a_crash_in_the_middle_costs_that_file_only(
    path: Path, service: _Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = SheetRow("s", path, platform="visium", species="human")
    boot = reading._BOOT
    monkeypatch.setattr(reading, "_BOOT", "import os, sys; sys.stdin.readline(); os.abort()")
    with pytest.raises(SectionError, match=r"reading a\.h5ad: got it crashed \(SIGABRT\)"):
        read_section(row)
    monkeypatch.setattr(
        reading, "_BOOT", "import sys; sys.stdin.readline(); sys.exit('out of luck')"
    )
    with pytest.raises(SectionError, match="it ended with code 1 out of luck"):
        read_section(row)
    monkeypatch.setattr(reading, "_BOOT", boot)
    assert read_section(row).n_spots == toy().under.sum()


def test_a_process_that_was_killed_between_calls_is_replaced(path: Path, service: _Service) -> None:
    row = SheetRow("s", path, platform="visium")
    read_section(row)
    assert service._process is not None
    os.kill(service._process._process.pid, 9)
    service._process._process.wait()
    assert read_section(row).n_genes == 4


def test_a_hang_is_ended(path: Path, service: _Service, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = reading._BOOT
    monkeypatch.setattr(reading, "_BOOT", "import time; time.sleep(100)")
    with pytest.raises(SectionError, match="it took too long"):
        read_parts("anndata", SheetRow("s", path), timeout_s=0.2)
    monkeypatch.setattr(reading, "_BOOT", boot)
    assert read_parts("anndata", SheetRow("s", path)).matrix.spot_ids


def test_one_process_serves_many_calls(path: Path, service: _Service, tmp_path: Path) -> None:
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", toy())
    write_spatial(tmp_path / "spatial", toy())
    read_section(SheetRow("s", path, platform="visium"))
    first = service._process
    read_section(SheetRow("s", tmp_path, format="visium"))
    assert service._process is first
