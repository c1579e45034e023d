"""What the searches must answer, computed plainly from the references' own arrays."""

import numpy as np
import pandas as pd


def everything(retriever, side):
    """Return a table of all spots of all references, each once, with its embedding."""
    tables = []
    for name, reference in zip(retriever.pool.names, retriever.pool.references, strict=True):
        table = reference.spots.astype({"section": str, "patient": str, "organ": str})
        table = table.assign(reference=name, vector=list(reference.embeddings(side)))
        tables.append(table)
    return pd.concat(tables, ignore_index=True).drop_duplicates("spot_uid", ignore_index=True)


def cosine(one, two):
    one, two = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    one = one / np.linalg.norm(one, axis=1, keepdims=True)
    two = two / np.linalg.norm(two, axis=1, keepdims=True)
    return one @ two.T


def best(table, scores, top_k):
    """Return spot_uid and score of the best rows, ties by spot_uid."""
    ranked = table.assign(score=np.round(scores, 10)).sort_values(
        ["score", "spot_uid"], ascending=[False, True]
    )
    return ranked.head(top_k)[["spot_uid", "score"]]
