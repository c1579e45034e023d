"""An embedder's own regression head beside retrieval."""

import numpy as np
import pytest

from stretrieve import BuildSettings, QueryEngine, QuerySettings, build_reference
from stretrieve.errors import ConfigError
from stretrieve.query import Predictor, SpotPositions
from stretrieve.query.companion import Head
from stretrieve.query.predictor import COMPANION_ROW
from stretrieve.query.settings import CompanionKind
from stretrieve.training import TrainSettings

HEAD = {"companion": 0.5, "companion_kind": CompanionKind.HEAD}
M2OST = {
    "patch_px": 32,
    "side_um": 160.0,
    "n_genes": 30,
    "dim": 16,
    "dropout": 0.0,
    "objective": "regression",
    "joint": {"n_components": 4, "alpha": 10.0},
    "network": {"width": 12, "depth": 1, "dim_head": 4, "mlp_hidden": 12},
}


@pytest.fixture(scope="module")
def regressing(sections, tmp_path_factory):
    settings = BuildSettings(
        embedder="m2ost", embedder_config=M2OST, train=TrainSettings(epochs=1, batch_size=32)
    )
    return build_reference(
        sections[:3], tmp_path_factory.mktemp("m2ost") / "REF", settings=settings
    )


def ask(reference, section, **settings):
    engine = QueryEngine(reference, settings=QuerySettings(top_k=12, **settings))
    spots = SpotPositions(section.spot_ids, section.xy)
    return engine.query(section.image, mpp=5.0, spots=spots)


@pytest.mark.parametrize("match", [False, True], ids=["as it is", "variance matched"])
def test_its_share_is_a_row_and_every_explanation_sums_up(regressing, sections, match):
    answer = ask(regressing, sections[3], variance_match=match, **HEAD)
    plain = ask(regressing, sections[3], variance_match=match)
    panel = set(regressing.embedder.gene_names)
    assert len(panel) == 30 < answer.adata.n_vars
    assert np.isfinite(answer.adata.X).all()
    for column, gene in enumerate(answer.adata.var_names):
        table = answer.explain(7, gene)
        total = float((table["weight"] * table["value"]).sum())
        assert total == pytest.approx(float(answer.adata.X[7, column]), rel=1e-5)
        assert table["weight"].sum() == pytest.approx(1)
        shares = table.loc[table["spot_uid"] == COMPANION_ROW, "weight"]
        assert list(shares) == ([0.5] if gene in panel else []), gene
        same = np.array_equal(answer.adata.X[:, column], plain.adata.X[:, column])
        assert same is (gene not in panel)


def test_alone_it_says_what_the_head_says_on_the_scale_of_retrieval(regressing, sections):
    answer = ask(regressing, sections[3], companion=1.0, companion_kind=CompanionKind.HEAD)
    embedder = regressing.embedder
    head = embedder.regress(np.asarray(answer.adata.obsm["X_stretrieve"]))
    got = answer.adata[:, list(embedder.gene_names)].X
    correlation = [np.corrcoef(got[:, g], head[:, g])[0, 1] for g in range(30)]
    assert min(correlation) > 0.999


def test_an_embedder_without_one_is_refused_in_one_line(reference, sections):
    with pytest.raises(ConfigError, match=r"'colour' without a regression head.*ridge") as caught:
        ask(reference, sections[3], **HEAD)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="without an embedder"):
        Predictor(reference, QuerySettings(**HEAD))


def test_m2ost_whose_head_reads_features_is_refused(sections):
    from stretrieve.embedders import create_embedder

    joint = create_embedder("m2ost", {**M2OST, "objective": "both"})
    with pytest.raises(ConfigError, match="objective = regression"):
        Head.of(joint, None)
