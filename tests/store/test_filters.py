import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stretrieve.errors import ConfigError
from stretrieve.store import Equals, IsIn, Not
from stretrieve.store.filters import quote

from .conftest import make_record, make_rows

HOSTILE = [
    "' OR '1'='1",
    "'; DROP TABLE spots; --",
    "a'b''c",
    'x"y',
    "ü\n\\",
    "s1' OR section = 's2",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_user_text_is_only_ever_a_value(store, text):
    store.append_section(make_record("s1"), make_rows())
    store.append_section(make_record("s2", patient=text), make_rows(seed=2))
    found = store._spots.column(["section"], where=Equals("patient", text))
    assert set(found.column("section").to_pylist()) == {"s2"}
    assert len(store._spots.column(["section"], where=Equals("section", text))) == 0
    assert len(store._spots.column(["section"], where=~Equals("patient", text))) == 6


@pytest.mark.parametrize("column", ["1=1; --", "library_size", "counts"])
def test_only_known_columns(column):
    with pytest.raises(ConfigError, match="filter column"):
        IsIn(column, ("a",))


def test_nul_is_refused():
    with pytest.raises(ConfigError, match="NUL"):
        quote("a\0b")


def test_mask_and_sql_agree(store):
    for name, patient in (("s1", "P1"), ("s2", "P2"), ("s3", "P1")):
        store.append_section(make_record(name, patient=patient), make_rows())
    table = store._spots.column(["spot_uid", "section", "patient"]).to_pandas()
    for predicate in (
        Equals("patient", "P1"),
        Not(IsIn("section", ("s1", "s2"))),
        Equals("patient", "P1") & ~Equals("section", "s3"),
        IsIn("section", ()),
    ):
        expected = set(table.spot_uid[predicate.mask(table)])
        found = store._spots.column(["spot_uid"], where=predicate).column("spot_uid").to_pylist()
        assert set(found) == expected


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(blacklist_characters="\0")))
def test_a_literal_ends_where_it_should(text):
    literal = quote(text)
    assert literal[0] == literal[-1] == "'"
    assert literal[1:-1].replace("''", "").count("'") == 0
    frame = pd.DataFrame({"section": [text, text + "x"]})
    assert list(Equals("section", text).mask(frame)) == [True, False]
