import json

import numpy as np
import pandas as pd
import pytest

from stretrieve.errors import ConfigError, OutputExistsError
from stretrieve.query.search.output import check_answer_path, records, write_answer


@pytest.fixture
def table():
    return pd.DataFrame(
        {"spot_uid": ["=cmd()", "S/1"], "score": [0.5, np.nan], "thumbnail": [b"\xff", b"\xfe"]}
    )


def test_csv_leaves_images_out_and_formulas_inert(table, tmp_path):
    write_answer(tmp_path / "a.csv", table)
    back = pd.read_csv(tmp_path / "a.csv")
    assert list(back.columns) == ["spot_uid", "score"]
    assert list(back["spot_uid"]) == ["'=cmd()", "S/1"]


def test_parquet_keeps_everything(table, tmp_path):
    write_answer(tmp_path / "a.parquet", table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), table)


def test_records_are_strict_json(table):
    rows = json.loads(json.dumps(records(table), allow_nan=False))
    assert rows == [{"spot_uid": "=cmd()", "score": 0.5}, {"spot_uid": "S/1", "score": None}]


def test_names_are_checked_first(tmp_path):
    with pytest.raises(ConfigError, match="parquet"):
        check_answer_path(tmp_path / "a.tsv", overwrite=False)
    with pytest.raises(ConfigError):
        check_answer_path(tmp_path / "a.h5ad", overwrite=False, spots=False)
    (tmp_path / "a.csv").touch()
    with pytest.raises(OutputExistsError):
        check_answer_path(tmp_path / "a.csv", overwrite=False)
    check_answer_path(tmp_path / "a.csv", overwrite=True)
