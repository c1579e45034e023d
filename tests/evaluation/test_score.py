"""Scores and the gene sets they are reported on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stretrieve.errors import GenePanelError, SectionError, ShapeError
from stretrieve.evaluation import freeze_gene_sets, score_prediction
from stretrieve.simulation import TissueSettings, simulate_section
from stretrieve.spots import log_cp10k

RNG = np.random.default_rng(0)
GENES = [f"g{i}" for i in range(6)]
TRUTH = RNG.gamma(2, 1, (50, 6))
GUESS = TRUTH + RNG.normal(size=TRUTH.shape)


def test_means_over_all_and_variable_genes_with_counts() -> None:
    guess, truth = GUESS.copy(), TRUTH.copy()
    guess[:, 0] = 0.5  # scores 0
    truth[:, 1] = 0.0  # dropped
    score = score_prediction(guess, truth, GENES, ["g0", "g2", "g3", "absent"])
    r = [stats.pearsonr(GUESS[:, i], TRUTH[:, i]).statistic for i in range(6)]
    assert score.pcc_all.mean == pytest.approx((0 + r[2] + r[3] + r[4] + r[5]) / 5)
    assert score.pcc_hvg.mean == pytest.approx((0 + r[2] + r[3]) / 3)
    summary = score.summary()
    assert (summary["n_valid"], summary["n_dropped"], summary["n_zeroed"]) == (5, 1, 1)
    assert list(score.per_gene.index) == GENES
    assert list(score.per_gene.index[score.per_gene["hvg"]]) == ["g0", "g2", "g3"]
    assert np.isnan(summary["pcc_spot_baseline"])


def test_the_constant_profile_is_scored_beside_the_per_spot_figure() -> None:
    profile = np.array([0.1, 5.0, 1.0, 2.0, 3.0, 0.5])
    truth = profile + 0.5 * TRUTH
    score = score_prediction(GUESS, truth, GENES, GENES, profile=profile)
    expected = np.mean([stats.pearsonr(profile, row).statistic for row in truth])
    assert score.pcc_spot_baseline == pytest.approx(expected)
    assert score.pcc_spot_baseline > 0.5


def test_refusals() -> None:
    with pytest.raises(GenePanelError, match="none among"):
        score_prediction(GUESS, TRUTH, GENES, ["absent"])
    with pytest.raises(GenePanelError, match="unique"):
        score_prediction(GUESS, TRUTH, ["g"] * 6, ["g"])
    with pytest.raises(ShapeError, match="gene names"):
        score_prediction(GUESS, TRUTH, GENES[:-1], GENES)
    with pytest.raises(SectionError, match="no section"):
        freeze_gene_sets([])


def test_gene_sets_depend_on_training_sections_alone_and_skip_flat_genes() -> None:
    small = TissueSettings(width_um=1500, height_um=1500, mpp=4)
    train = [simulate_section(n, donor=n, settings=small) for n in ("a", "b")]
    sets = freeze_gene_sets([s.section for s in train])
    assert (len(sets.hvg50), len(sets.hvg200), len(sets.heg50)) == (50, 200, 50)
    assert sets.hvg200[:50] == sets.hvg50
    group = dict(zip(train[0].section.gene_names, train[0].gene_group, strict=True))
    assert sum(group[gene] in {"HKG", "RND"} for gene in sets.hvg50) < 10
    assert sum(group[gene] == "HKG" for gene in sets.heg50) > 25
    mean = np.mean([log_cp10k(s.section.counts).toarray().mean(axis=0) for s in train], axis=0)
    assert sets.heg50[0] == train[0].section.gene_names[int(mean.argmax())]
    assert set(sets.to_dict()) == {"hvg50", "hvg200", "heg50", "hmhvg200", "markers", "panel"}
