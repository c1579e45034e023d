import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stretrieve.store import SectionRecord, SpotRows, SpotStore

GENES = [f"G{i}" for i in range(12)]
DIMS = {"image_embedding": 4, "expression_embedding": 4}


def gene_table(names=GENES):
    names = list(names)
    return pd.DataFrame(
        {"gene_id": [f"ENSG{n}" for n in names], "gene_symbol": names},
        index=pd.Index(names, name="gene"),
    )


def make_rows(n=6, *, genes=GENES, seed=0):
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(rng.poisson(0.6, size=(n, len(genes))).astype(np.int32))
    counts.eliminate_zeros()
    xy = rng.uniform(0, 100, size=(n, 2))
    return SpotRows(
        [f"{9 - i}x1" for i in range(n)],
        xy,
        xy * 0.5,
        np.arange(2.0 * n).reshape(n, 2),
        counts,
        list(genes),
        {name: rng.normal(size=(n, dim)).astype(np.float32) for name, dim in DIMS.items()},
        [bytes([65 + i]) * (i + 1) for i in range(n)],
    )


def make_record(name, *, patient="P1", n_genes=12):
    return SectionRecord(
        name, patient, "breast", "human", "visium", "", 0, n_genes, (0.5, 0.5), "given"
    )


@pytest.fixture
def store(tmp_path):
    return SpotStore.create(str(tmp_path / "lance"), dims=DIMS, genes=gene_table())
