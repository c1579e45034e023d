import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stretrieve.errors import ConfigError, OutputExistsError
from stretrieve.report.contact_sheet import (
    GAP_PX,
    MAX_STRIPS,
    TILE_PX,
    Tile,
    answer_strips,
    write_contact_sheet,
)

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def patch(name):
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), COLOURS[name]).save(stream, format="JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "query": ["q1", "q1", "q2"],
            "score": [0.9, 0.8, 0.7],
            "spot_uid": ["S/1", "S/<b>2", "S/3"],
            "thumbnail": [patch("green"), patch("blue"), patch("blue")],
        }
    )


def test_rows_hold_the_query_and_its_answers(table):
    strips = answer_strips(table, queries={"q1": patch("red")})
    assert [[tile.caption for tile in strip] for strip in strips] == [
        ["query\nq1", "0.900\nS/1", "0.800\nS/<b>2"],
        ["query\nq2", "0.700\nS/3"],
    ]
    assert [[tile.is_query for tile in strip] for strip in strips] == [
        [True, False, False],
        [True, False],
    ]
    assert strips[1][0].image == b""
    wrapped = answer_strips(table.drop(columns="query"), width=2)
    assert [len(strip) for strip in wrapped] == [2, 1]


def test_patches_stand_where_they_belong(table, tmp_path):
    strips = answer_strips(table, queries={"q1": patch("red")})
    path = tmp_path / "sheet.png"
    assert write_contact_sheet(path, strips, title="sheet") == 0
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    middle = TILE_PX // 2
    first_row = [
        pixels[:, GAP_PX + column * (TILE_PX + GAP_PX) + middle][60] for column in range(3)
    ]
    for found, name in zip(first_row, ("red", "green", "blue"), strict=True):
        assert np.abs(found.astype(int) - COLOURS[name]).max() < 12


def test_page_is_inert_and_escaped(table, tmp_path):
    path = tmp_path / "sheet.html"
    write_contact_sheet(path, answer_strips(table), title="<script>")
    page = path.read_text()
    assert "S/&lt;b&gt;2" in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "default-src 'none'" in page
    assert page.count("data:image/jpeg;base64,") == 3


def test_rows_beyond_the_limit_are_counted(tmp_path):
    strips = [[Tile(patch("red"), "a")]] * (MAX_STRIPS + 3)
    assert write_contact_sheet(tmp_path / "many.png", strips, title="") == 3


def test_refusals(table, tmp_path):
    with pytest.raises(ConfigError, match="png"):
        write_contact_sheet(tmp_path / "a.gif", [], title="")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(OutputExistsError, match="exists"):
        write_contact_sheet(tmp_path / "a.png", [], title="")
    write_contact_sheet(tmp_path / "a.png", [], title="", overwrite=True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
