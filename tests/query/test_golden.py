"""Predictions of every mode against values that were written down; rewrite with --rewrite below.

python -m tests.query.test_golden --rewrite
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from stretrieve.query import (
    Balance,
    Centring,
    Compat,
    Modality,
    Predictor,
    RetrievalSettings,
    WeightScheme,
)
from tests.query.pools import GENES, make_pool, queries

GOLDEN = Path(__file__).parent / "golden_predictions.json"
MODES = {
    "default": {},
    "softmax": {"weights": WeightScheme.SOFTMAX, "top_k": 40, "temperature": 0.05},
    "adaptive": {"weights": WeightScheme.SOFTMAX, "top_k": 60, "top_p": 0.7, "k_min": 3},
    "fused": {"modality": Modality.FUSED, "fusion": 0.3, "top_k": 15},
    "image, centred": {"modality": Modality.IMAGE, "centring": Centring.BOTH, "top_k": 15},
    "capped": {"balance": Balance.CAP, "per_patient": 4, "top_k": 12},
    "equal, matched": {"balance": Balance.EQUAL, "top_k": 12, "variance_match": True},
    "companion": {"companion": 0.5, "top_k": 12, "centring": Centring.SECTION},
    **{compat.value: {"compat": compat} for compat in Compat},
}


def predict(mode):
    predictor = Predictor(make_pool(masked=True), RetrievalSettings(**MODES[mode]))
    return predictor.predict(queries(5))


def written(prediction):
    return {
        "mean": np.round(prediction.mean[:3, :6], 6).tolist(),
        "spread": np.round(prediction.spread[0], 6).tolist(),
        "nearest": prediction.found.neighbours.indices[:, :5].tolist(),
        "ood": np.round(prediction.found.ood, 6).tolist(),
    }


@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_those_written_down(mode):
    expected, found = json.loads(GOLDEN.read_text())[mode], written(predict(mode))
    assert found["nearest"] == expected["nearest"]
    for name in ("mean", "spread", "ood"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6)


@pytest.mark.parametrize("mode", MODES)
def test_threads_and_genes_asked_for_change_nothing(mode, monkeypatch):
    one = predict(mode)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    four = predict(mode)
    np.testing.assert_array_equal(one.mean, four.mean)
    np.testing.assert_array_equal(one.found.neighbours.weights, four.found.neighbours.weights)
    predictor = Predictor(make_pool(masked=True), RetrievalSettings(**MODES[mode]))
    some = predictor.predict(queries(5), [GENES[7], GENES[0]])
    np.testing.assert_allclose(some.mean, one.mean[:, [7, 0]], rtol=1e-12)


if __name__ == "__main__" and "--rewrite" in sys.argv:
    GOLDEN.write_text(json.dumps({mode: written(predict(mode)) for mode in MODES}, indent=1) + "\n")
