import dataclasses

import numpy as np
import pytest

from stretrieve import keys
from stretrieve.errors import ConfigError, GenePanelError, InputError
from stretrieve.query.search import ReferenceSearch, SignatureSettings
from stretrieve.query.search.moments import depth_strata
from stretrieve.query.search.signature import LIMIT
from stretrieve.store import Equals
from tests.query.search.conftest import GENES
from tests.reference.tiny import make_section


def dense(retriever, genes):
    """Return log1p CP10k with NaN where not measured, library sizes and names, from raw counts."""
    values, library, names = [], [], []
    for number, reference in enumerate(retriever.pool.references):
        keep = retriever.pool.unique[number]
        counts = reference.store.expression(reference.spot_table.row_ids).toarray().astype(float)
        totals = counts.sum(axis=1, keepdims=True)
        columns = reference.genes.index.get_indexer(genes)
        logged = np.log1p(1e4 * counts / totals)[:, np.maximum(columns, 0)].astype(np.float32)
        known = reference.measured[:, np.maximum(columns, 0)] & (columns >= 0)
        logged = np.where(known[reference.section_index], logged, np.nan)
        values.append(logged[keep].astype(np.float64))
        library.append(totals[keep, 0])
        names.append(reference.spots[keys.SPOT_UID].to_numpy()[keep])
    return np.concatenate(values), np.concatenate(library), np.concatenate(names)


def plain_score(values, library, weights, strata):
    edges = np.quantile(library, np.arange(1, strata) / strata)
    classes = np.searchsorted(edges, library, side="right")
    z = np.full(values.shape, np.nan)
    for c in np.unique(classes):
        part = values[classes == c]
        z[classes == c] = (part - np.nanmean(part, axis=0)) / np.nanstd(part, axis=0)
    z = np.clip(z, -LIMIT, LIMIT)
    weights = np.asarray(weights)
    known = np.isfinite(z)
    total = np.where(known, z * weights, 0).sum(axis=1)
    share = (known * np.abs(weights)).sum(axis=1)
    return np.where(share >= 0.5 * np.abs(weights).sum(), total / np.maximum(share, 1e-9), np.nan)


@pytest.mark.parametrize("strata", [1, 2])
def test_score_against_plain_arithmetic(both, strata):
    """Over two references and two gene panels: G40 is measured in S3 only, G05 in the others only."""
    weights = {"G22": 1.0, "G25": -1.0, "G40": 0.5, "G05": 2.0}
    settings = SignatureSettings(strata=strata, n_null=5)
    found = both.signature(weights, settings=settings)
    values, library, names = dense(both, list(weights))
    expected = plain_score(values, library, list(weights.values()), strata)
    uids = both.pool.uids(found.source, found.positions)
    order = [list(names).index(uid) for uid in uids]
    np.testing.assert_allclose(found.score, expected[order], atol=1e-5)
    lacking = np.array([uid.startswith("S3/") for uid in uids])
    np.testing.assert_allclose(found.coverage[lacking], 2.5 / 4.5)
    np.testing.assert_allclose(found.coverage[~lacking], 4 / 4.5)


def test_table_is_ranked_and_filtered(one):
    where = Equals("section", "S1")
    found = one.signature({"G01": 1, "G02": -1}, where=where)
    table = found.to_frame(top_k=10, thumbnails=True)
    assert list(table["rank"]) == list(range(1, 11))
    assert (np.diff(table["score"]) <= 0).all()
    assert set(table["section"]) == {"S1"}
    assert table["score"][0] == found.score.max()
    assert all(image.startswith(b"\xff\xd8") for image in table["thumbnail"])
    assert len(found.to_frame(top_k=1000)) == 36


def test_too_little_measured_is_no_score(both):
    found = both.signature({"G05": 1, "G22": 1}, settings=SignatureSettings(min_coverage=0.6))
    in_s3 = np.array(both.pool.uids(found.source, found.positions)) >= "S3/"
    assert np.isnan(found.score[in_s3]).all()
    assert np.isfinite(found.score[~in_s3]).all()
    assert not found.to_frame(top_k=1000)["section"].eq("S3").any()
    with pytest.raises(GenePanelError, match="no section"):
        both.signature({"G05": 1, "G40": 1.0}, settings=SignatureSettings(min_coverage=0.9))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A section where ten spots express G03 and G04 thirty-fold, and library sizes differ tenfold."""
    from stretrieve import BuildSettings, build_reference

    folder = tmp_path_factory.mktemp("planted")
    section = make_section(folder, "P", n=15, seed=3, genes=[f"G{i:03d}" for i in range(120)])
    rng = np.random.default_rng(0)
    mean = np.where(np.arange(225) % 2, 4.0, 40.0)[:, None] * np.ones(120)
    chosen = np.sort(rng.choice(225, 10, replace=False))
    mean[np.ix_(chosen, [3, 4])] *= 30
    counts = type(section.counts)(rng.poisson(mean).astype(np.int32))
    section = dataclasses.replace(section, counts=counts)
    settings = BuildSettings(embedder="tiny", thumbnail_px=16)
    reference = build_reference([section], folder / "REF", settings=settings)
    return ReferenceSearch(reference), {f"P/{section.spot_ids[i]}" for i in chosen}


def test_planted_spots_are_found_and_stand_out_from_control_sets(planted):
    retriever, expected = planted
    table = retriever.signature({"G003": 1, "G004": 1}).to_frame(top_k=10)
    assert set(table["spot_uid"]) == expected
    assert (table["p_value"] == 1 / 101).all()
    assert (table["null_mean"] < 1).all()


def test_random_signature_has_uniform_p_values(planted):
    retriever, _ = planted
    p = retriever.signature({"G050": 1, "G060": 1, "G070": -1}).p_value
    assert 0.4 < p.mean() < 0.6
    assert 0.02 < (p <= 0.1).mean() < 0.2


def test_depth_does_not_decide(planted):
    """Half of the spots hold a tenth of the counts; within classes of depth, scores agree."""
    retriever, _ = planted
    found = retriever.signature({"G010": 1, "G020": 1, "G030": 1})
    library = retriever.pool.references[0].spots[keys.LIBRARY_SIZE].to_numpy()
    low = library < np.median(library)
    assert abs(found.score[low].mean() - found.score[~low].mean()) < 0.05
    strata = depth_strata(retriever.pool, retriever.pool.unique, strata=10)[0]
    sizes = np.bincount(strata)
    assert len(sizes) == 4  # 225 spots: classes of about 50 or more
    assert sizes.min() >= 45


def test_seed_decides_the_controls(planted):
    retriever, _ = planted
    signature = {"G050": 1, "G060": -1}
    one, two = (retriever.signature(signature) for _ in range(2))
    np.testing.assert_array_equal(one.p_value, two.p_value)
    other = retriever.signature(signature, settings=SignatureSettings(seed=1))
    np.testing.assert_array_equal(one.score, other.score)
    assert (one.p_value != other.p_value).any()


def test_patches_are_ranked_by_their_neighbours(one):
    found = one.signature({"G01": 1})
    query = one.stored(["S0/1x1", "S2/2x2", "S0/3x3"], modality="image")
    hits = one.search(query, target="expression", top_k=4, exclude="none")
    table = found.of_patches(hits)
    by_uid = dict(zip(one.pool.uids(found.source, found.positions), found.score, strict=True))
    frame = hits.to_frame()
    means = frame.groupby("query")["spot_uid"].apply(lambda u: np.mean([by_uid[x] for x in u]))
    assert list(table["score"]) == pytest.approx(sorted(means, reverse=True))
    assert list(table["query"]) == list(means.sort_values(ascending=False).index)
    assert (table["n_neighbours"] == 4).all()


def test_bad_signatures(one):
    with pytest.raises(GenePanelError, match="NOPE"):
        one.signature({"G01": 1, "NOPE": 1})
    found = one.signature({"G01": 1, "NOPE": 1}, ignore_unknown=True)
    assert found.unknown == ("NOPE",)
    assert "NOPE" in found.notes[-1]
    for nothing in ({}, {"NOPE": 1}):
        with pytest.raises(GenePanelError, match="genes asked for"):
            one.signature(nothing, ignore_unknown=True)
    for weight in (0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="weight"):
            one.signature({"G01": weight})
    for bad in ({"n_null": 0}, {"strata": 0}, {"min_coverage": 2}):
        with pytest.raises(ConfigError):
            SignatureSettings(**bad)
    with pytest.raises(ConfigError, match="top_k"):
        one.signature({"G01": 1}).to_frame(top_k=0)


def test_one_gene_under_two_names_is_refused(tmp_path):
    from stretrieve import BuildSettings, build_reference

    section = make_section(tmp_path, "H", genes=["KRT7", "VWF", *GENES])
    section.genes.index = ["ENSG00000135480", "ENSG00000110799", *GENES]
    settings = BuildSettings(embedder="tiny", thumbnail_px=16)
    retriever = ReferenceSearch(build_reference([section], tmp_path / "REF", settings=settings))
    found = retriever.signature({"KRT7": 1, "ENSG00000110799": -1})
    assert found.weights == {"ENSG00000135480": 1.0, "ENSG00000110799": -1.0}
    with pytest.raises(InputError, match="twice"):
        retriever.signature({"KRT7": 1, "ENSG00000135480": 1})
