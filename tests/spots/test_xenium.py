"""Xenium bundles pooled into pseudo-spots, checked against sums done by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stretrieve.errors import SectionError
from stretrieve.spots import SheetRow, detect_format, read_section

from .layouts import SYMBOLS, write_xenium

PIXEL_UM = 0.2125


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    um, counts = write_xenium(tmp_path, pixel_um=PIXEL_UM)
    (tmp_path / "he_imagealignment.csv").unlink()
    np.savez(tmp_path / "truth.npz", um=um, counts=counts)
    return tmp_path


def write_transcripts(bundle: Path) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 3000
    table = pd.DataFrame(
        {
            "feature_name": rng.choice([*SYMBOLS, "NegControlProbe_1"], n),
            "x_location": rng.uniform(0, 400, n).astype(np.float32),
            "y_location": rng.uniform(0, 200, n).astype(np.float32),
            "qv": rng.uniform(0, 40, n).astype(np.float32),
        }
    )
    pq.write_table(
        pa.Table.from_pandas(table, preserve_index=False),
        bundle / "transcripts.parquet",
        row_group_size=500,
    )
    return table


def row(bundle: Path, **fields: object) -> SheetRow:
    return SheetRow("x", bundle, **{"species": "human", "format": "xenium@50", **fields})  # type: ignore[arg-type]


def test_cells_are_pooled(bundle: Path) -> None:
    assert detect_format(SheetRow("x", bundle)) == "xenium"
    truth = np.load(bundle / "truth.npz")
    found = read_section(row(bundle))
    cell = np.floor(truth["um"] / 50).astype(int)
    for name, counts, (x, y) in zip(
        found.spot_ids, found.counts.toarray(), found.array_xy, strict=True
    ):
        inside = (cell == (x, y)).all(axis=1)
        assert name == f"{int(x)}x{int(y)}"
        np.testing.assert_array_equal(counts, truth["counts"][inside].sum(axis=0))
    assert found.counts.sum() == truth["counts"].sum()
    np.testing.assert_allclose(found.xy_um, (found.array_xy + 0.5) * 50)
    assert found.pixel_size.x == PIXEL_UM
    assert found.repairs[0] == "1 features that are not genes left out"
    assert found.meta.platform == "xenium"


def test_good_transcripts_of_the_panel_are_pooled(bundle: Path) -> None:
    table = write_transcripts(bundle)
    good = table[(table.qv >= 20) & table.feature_name.isin(SYMBOLS)]
    found = read_section(row(bundle, format="xenium@100"))
    assert found.counts.sum() == len(good)
    x, y = found.array_xy[0]
    here = good[(good.x_location // 100 == x) & (good.y_location // 100 == y)]
    expected = here.feature_name.value_counts().reindex(SYMBOLS, fill_value=0)
    np.testing.assert_array_equal(found.counts[0].toarray().ravel(), expected)


def test_default_size(bundle: Path) -> None:
    found = read_section(row(bundle, format="auto"))
    np.testing.assert_allclose(found.xy_um[0], (found.array_xy[0] + 0.5) * 55)


def test_he_image_through_its_alignment(bundle: Path) -> None:
    plain = read_section(row(bundle))
    matrix = np.array([[0.0, -2.0, 2000.0], [2.0, 0.0, -100.0], [0.0, 0.0, 1.0]])
    Image.new("RGB", (1200, 1200)).save(bundle / "run_he_image.ome.tif")
    with pytest.raises(SectionError, match="alignment"):
        read_section(row(bundle))
    np.savetxt(bundle / "run_he_imagealignment.csv", matrix, delimiter=",")
    found = read_section(row(bundle))
    assert found.image == bundle / "run_he_image.ome.tif"
    assert found.pixel_size.x == pytest.approx(2 * PIXEL_UM)
    assert found.n_spots == plain.n_spots
    back = found.xy @ matrix[:2, :2].T + matrix[:2, 2]
    np.testing.assert_allclose(back, plain.xy)


def test_pseudo_spots_beside_a_smaller_he_image_are_left_out(bundle: Path) -> None:
    Image.new("RGB", (500, 2000)).save(bundle / "he_image.ome.tif")
    np.savetxt(bundle / "he_imagealignment.csv", np.eye(3), delimiter=",")
    found = read_section(row(bundle))
    assert found.n_spots > 0
    assert found.xy[:, 0].max() <= 500
    assert "spots off the tissue or image left out" in found.repairs[1]


@pytest.mark.parametrize("text", ["1,0\n0,1\n", "0,0,0\n0,0,0\n0,0,1\n", "a,b,c\nd,e,f\ng,h,i\n"])
def test_useless_alignments(bundle: Path, text: str) -> None:
    (bundle / "he_imagealignment.csv").write_text(text)
    Image.new("RGB", (50, 50)).save(bundle / "he_image.ome.tif")
    with pytest.raises(SectionError, match="alignment"):
        read_section(row(bundle))


def test_cells_without_position(bundle: Path) -> None:
    cells = pd.read_parquet(bundle / "cells.parquet").iloc[1:]
    cells.to_parquet(bundle / "cells.parquet", index=False)
    with pytest.raises(SectionError, match="without a position"):
        read_section(row(bundle))


def test_bundle_without_pixel_size(bundle: Path) -> None:
    (bundle / "experiment.xenium").write_text("{}")
    with pytest.raises(SectionError, match="pixel_size"):
        read_section(row(bundle))


def test_positions_over_a_huge_area(bundle: Path) -> None:
    cells = pd.read_parquet(bundle / "cells.parquet")
    cells.loc[0, "x_centroid"] = 1e12
    cells.to_parquet(bundle / "cells.parquet", index=False)
    with pytest.raises(SectionError, match="too large an area"):
        read_section(row(bundle))
