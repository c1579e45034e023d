import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from stretrieve import BuildSettings, build_reference
from stretrieve.errors import ConfigError, InputError
from stretrieve.query.search import MatchSettings, ReferenceSearch
from stretrieve.query.search.sections import benjamini_hochberg, match_similarity
from stretrieve.store import Equals
from tests.query.search.brute import cosine
from tests.reference.tiny import make_section

RED = ~Equals("patient", "P6") & ~Equals("patient", "P0")


def test_matching_is_optimal():
    """Against every one of 720 permutations."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    table = cosine(one, two)
    expected = max(table[range(6), order].mean() for order in itertools.permutations(range(6)))
    mean, pairs, similarity = match_similarity(one.astype(np.float32), two.astype(np.float32))
    assert mean == pytest.approx(expected, abs=1e-6)
    assert sorted(pairs[:, 1]) == list(range(6))
    np.testing.assert_allclose(similarity, table[pairs[:, 0], pairs[:, 1]], atol=1e-6)


def test_unequal_sizes_leave_spots_over():
    vectors = np.eye(5, dtype=np.float32)
    mean, pairs, _ = match_similarity(vectors[[3, 1]], vectors)
    assert mean == 1
    assert pairs.tolist() == [[0, 3], [1, 1]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_against_scipy(values):
    p = np.array(values)
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))


def test_adjusted_p_values_pass_nan_on():
    np.testing.assert_array_equal(benjamini_hochberg(np.array([np.nan, 0.5])), [np.nan, 0.5])


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Red sections of five patients, P1 with two; blue ones of P6 and, as the query, of P0."""
    from dataclasses import replace

    from PIL import Image

    folder = tmp_path_factory.mktemp("kinds")
    sections = []
    for i, patient in enumerate(("P0", "P1", "P1", "P2", "P3", "P4", "P5", "P6")):
        section = make_section(folder, f"K{i}", patient=patient, n=6, seed=i)
        rng = np.random.default_rng(100 + i)
        base = np.array([60, 60, 200]) if patient in ("P0", "P6") else np.array([200, 60, 60])
        blocks = np.clip(base + rng.normal(0, 25, (7, 7, 3)), 0, 255)
        path = folder / f"kind{i}.png"
        Image.fromarray(blocks.repeat(24, 0).repeat(24, 1).astype(np.uint8)).save(path)
        sections.append(replace(section, image=path))
    build = BuildSettings(embedder="tiny", thumbnail_px=16)
    return ReferenceSearch(build_reference(sections, folder / "REF", settings=build))


def test_the_section_of_the_same_kind_comes_first_with_the_smallest_p(tissue):
    table = tissue.match(tissue.stored_section("K0", modality="image")).table
    assert list(table["rank"]) == list(range(1, 8))
    assert table["section"][0] == "K7"
    assert table["p_value"][0] == pytest.approx(1 / 6)  # P1 to P5 are all farther from K7
    assert (table["p_value"][1:] > 0.8).all()  # red sections are nearer to each other
    assert table["similarity"][0] > table["null_mean"][0] + 0.1
    assert list(table["null_patients"]) == [5] * 7
    assert "P0" not in set(table["patient"])


def test_p_value_counts_patients_and_not_sections(tissue):
    """By hand: the null of K3 are P1's two sections together, P3, P4, P5 and P6."""
    query = tissue.stored_section("K0", modality="image")
    row = tissue.match(query).table.set_index("section").loc["K3"]
    vectors = {f"K{i}": tissue.stored_section(f"K{i}", modality="image").vectors for i in range(8)}
    assert row["similarity"] == pytest.approx(match_similarity(vectors["K0"], vectors["K3"])[0])
    null = {
        name: match_similarity(vectors["K3"], vectors[name])[0]
        for name in ("K1", "K2", "K4", "K5", "K6", "K7")
    }
    as_near = {name: float(value >= row["similarity"]) for name, value in null.items()}
    own = (as_near.pop("K1") + as_near.pop("K2")) / 2
    assert row["p_value"] == pytest.approx((1 + own + sum(as_near.values())) / 6)
    mean = (null.pop("K1") + null.pop("K2")) / 2
    assert row["null_mean"] == pytest.approx((mean + sum(null.values())) / 5)


def test_pairs_are_one_to_one_and_carry_the_similarity(tissue):
    query = tissue.stored_section("K0", modality="image")
    found = tissue.match(query, settings=MatchSettings(max_spots=20, repeats=1, max_null=0))
    for section, pairs in found.pairs.groupby("section"):
        assert len(pairs) == 20
        assert pairs["query"].is_unique
        assert pairs["spot_uid"].is_unique
        assert pairs["spot_uid"].str.startswith(f"{section}/").all()
        row = found.table.set_index("section").loc[section]
        assert row["similarity"] == pytest.approx(pairs["similarity"].mean())
        one = tissue.pool.embeddings("image", *tissue.pool.find(pairs["query"]))
        two = tissue.pool.embeddings("image", *tissue.pool.find(pairs["spot_uid"]))
        np.testing.assert_allclose(np.diag(cosine(one, two)), pairs["similarity"], atol=1e-6)
    assert found.table["p_value"].isna().all()


def test_all_spots_once_is_the_whole_assignment(tissue):
    """Without subsampling the similarity is the exact optimum over all spots."""
    query = tissue.stored_section("K0", modality="image")
    found = tissue.match(query, settings=MatchSettings(repeats=2, max_null=1)).table
    for row in found.itertuples():
        other = tissue.stored_section(row.section, modality="image")
        assert row.similarity == pytest.approx(match_similarity(query.vectors, other.vectors)[0])
        assert row.matched == 36


def test_seed_decides(tissue):
    query = tissue.stored_section("K0", modality="image")
    few = MatchSettings(max_spots=20, max_null=9)
    one, two = (tissue.match(query, settings=few) for _ in range(2))
    pd.testing.assert_frame_equal(one.table, two.table)
    pd.testing.assert_frame_equal(one.pairs, two.pairs)
    other = tissue.match(query, settings=MatchSettings(max_spots=20, max_null=9, seed=1))
    assert list(other.table["similarity"]) != list(one.table["similarity"])


def test_p_values_of_a_query_like_the_others_are_uniform(tissue):
    """A red section is one of many: over red sections as queries, p is neither small nor large."""
    p = [
        tissue.match(tissue.stored_section(f"K{i}", modality="image"), where=RED).table["p_value"]
        for i in range(1, 7)
    ]
    assert 0.3 < np.concatenate(p).mean() < 0.8


def test_where_exclusion_and_expression(tissue, both):
    query = tissue.stored_section("K0", modality="image")
    found = tissue.match(query, exclude="section").table
    assert set(found["section"]) == {f"K{i}" for i in range(1, 8)}
    found = tissue.match(query, exclude="none", settings=MatchSettings(max_null=0)).table
    assert found["section"][0] == "K0"
    assert found["similarity"][0] == pytest.approx(1)
    query = both.stored_section("S0", modality="expression")
    found = both.match(query, settings=MatchSettings(max_null=3)).table
    assert dict(zip(found["section"], found["reference"], strict=True)) == {
        "S2": "one",
        "S3": "two",
    }
    only = both.match(query, where=Equals("section", "S2"))
    assert only.table["p_value"].isna().all()
    assert "no third patient" in only.notes[0]


def test_bad_matches(tissue):
    query = tissue.stored_section("K0", modality="image")
    with pytest.raises(InputError, match="spots to match"):
        tissue.match(query, settings=MatchSettings(min_spots=40))
    with pytest.raises(InputError, match="none"):
        tissue.match(query, where=Equals("section", "nowhere"))
    few = tissue.stored(["K0/1x1"], modality="image")
    with pytest.raises(InputError, match="1 in the query"):
        tissue.match(few)
    for bad in ({"max_spots": 0}, {"repeats": 0}, {"max_null": -1}, {"min_spots": 200}):
        with pytest.raises(ConfigError):
            MatchSettings(**bad)
