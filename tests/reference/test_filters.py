"""Predicates on metadata, from one spot in ten thousand to all, on exact and approximate indexes."""

import logging

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stretrieve import keys
from stretrieve._files import sha256_file
from stretrieve.config import settings_to_dict
from stretrieve.errors import ConfigError
from stretrieve.indexes import ExactIndex, Metric
from stretrieve.reference import BuildSettings, Reference
from stretrieve.reference.commit import Made, commit_version
from stretrieve.reference.layout import Layout
from stretrieve.store import Equals, IsIn, SpotRows, SpotStore

from ..store.conftest import GENES, gene_table, make_record

SIZES = {"one": 1, "two": 2, "some": 97, "tenth": 1000, "half": 4900, "rest": 4000}
HOSTILE = "x'); DROP TABLE spots; --"
DIM = 8


@pytest.fixture(scope="module", params=["ivf_flat", "ivf_sq", "hnsw", "flat"])
def reference(request, tmp_path_factory):
    """10,000 spots in sections of very different sizes; patients and organs with hostile names."""
    layout = Layout(tmp_path_factory.mktemp("filters") / "REF")
    layout.embedder.mkdir(parents=True)
    (layout.embedder / "config.json").write_text("{}")
    columns = (keys.IMAGE_EMBEDDING, keys.EXPRESSION_EMBEDDING)
    store = SpotStore.create(
        str(layout.root / "lance"), dims=dict.fromkeys(columns, DIM), genes=gene_table()
    )
    rng = np.random.default_rng(0)
    for name, n in SIZES.items():
        vectors = {c: rng.normal(size=(n, DIM)).astype(np.float32) for c in columns}
        xy, counts = rng.uniform(size=(n, 2)), sparse.csr_matrix((n, len(GENES)), dtype=np.int32)
        names = [f"{i}x1" for i in range(n)]
        rows = SpotRows(names, xy, xy, xy, counts, GENES, vectors, [b"x"] * n)
        patient = HOSTILE if name == "tenth" else f"P-{name}"
        store.append_section(make_record(name, patient=patient, n_genes=len(GENES)), rows)
    entry = {
        "name": "none", "config": {}, "dim": DIM, "gene_names": [],
        "patch_spec": {"views": [{"patch_px": 16, "mpp": 1.0}]},
        "files": {"config.json": sha256_file(layout.embedder / "config.json")},
    }  # fmt: skip
    made = Made(settings_to_dict(BuildSettings()), entry, request.param)
    commit_version(layout, store, made, change="built", uri="lance")
    return Reference.open(layout.root)


PREDICATES = {
    "0.01 %": Equals("section", "one"),
    "0.03 %": IsIn("section", ("one", "two")),
    "1 %": Equals("patient", "P-some"),
    "10 %, a hostile name": Equals("patient", HOSTILE),
    "49 %": Equals("section", "half"),
    "90 %": ~Equals("patient", HOSTILE),
    "99.99 %": ~Equals("section", "one"),
    "100 %": Equals("organ", "breast"),
    "none": Equals("organ", HOSTILE),
    "one spot by name": Equals("spot_uid", "some/9x1"),
    "several columns": Equals("species", "human") & ~IsIn("section", ("half", "two")),
}


@pytest.mark.parametrize("share", PREDICATES)
def test_the_result_is_that_of_filtering_first(reference, share):
    mask = reference.mask(PREDICATES[share])
    kept = np.flatnonzero(mask)
    vectors = np.array(reference.embeddings("image"))
    queries = np.random.default_rng(1).normal(size=(25, DIM)).astype(np.float32)
    found = reference.search(queries, 20, modality="image", allowed=mask)
    if mask.all():  # no filter at all: as the index finds it
        np.testing.assert_array_equal(
            found.indices, reference.search(queries, 20, modality="image").indices
        )
        return
    if not len(kept):
        assert (found.indices == -1).all()
        return
    first = ExactIndex(vectors[kept], metric=Metric.COSINE).search(queries, 20)
    expected = np.where(first.indices < 0, -1, kept[first.indices])
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.scores, first.scores)


def test_the_index_is_used_and_nothing_was_dropped(reference, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(Reference.open(reference.layout.root).spots) == 10_000
    assert not caplog.records
    assert isinstance(reference.spots, pd.DataFrame)
    with pytest.raises(ConfigError, match="filter column"):
        reference.mask(Equals("organ = 'x' OR 1", "1"))
