"""Nearest spots over several references, the queries' own spots left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stretrieve import keys
from stretrieve._progress import SILENT, Progress
from stretrieve.config import choice
from stretrieve.errors import ConfigError, explain
from stretrieve.query.search.hits import Hits
from stretrieve.query.search.pool import Indices, Mask, ReferencePool, check_any
from stretrieve.query.search.queries import Names, SpotQuery
from stretrieve.query.search.sides import Exclusion, Side
from stretrieve.store import Equals, Filter


def search_spots(
    pool: ReferencePool,
    query: SpotQuery,
    *,
    target: Side | str,
    top_k: int = 10,
    where: Filter | None = None,
    exclude: Exclusion | str = Exclusion.PATIENT,
    progress: Progress = SILENT,
) -> Hits:
    """Return the reference spots nearest to each query by cosine similarity.

    Parameters
    ----------
    pool
        The references.
    query
        What to ask with; its side and ``target`` make up the direction, such as image → expression.
    target
        Which embeddings of the reference spots to compare with.
    top_k
        Answers to each query.
    where
        Predicate on the metadata of the answers.
    exclude
        What of the query's own is left out.
    progress
        Receiver of progress, one unit a query.

    Raises
    ------
    ConfigError
        When ``top_k`` is below 1.
    InputError
        When the filters and exclusions leave nothing to search among.
    """
    side, exclude = choice(Side, target, "side"), choice(Exclusion, exclude, "exclusion")
    if top_k < 1:
        raise ConfigError(explain("top_k", got=top_k, expected="1 or more"))
    allowed = pool.allowed(where)
    shape = (len(query), top_k)
    source, positions = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
    scores = np.full(shape, -np.inf)
    with progress.task("search", len(query)) as task:
        for rows, masks in _groups(pool, query, allowed, exclude):
            own = query.spot_uids[rows] if exclude is Exclusion.SPOT else None
            found = _search(pool, query.vectors[rows], side, top_k, masks, own)
            source[rows], positions[rows], scores[rows] = found
            task.advance(len(rows))
    return Hits(
        pool, query, side, source, positions, scores, (*query.notes, *_notes(query, exclude))
    )


def _notes(query: SpotQuery, exclude: Exclusion) -> tuple[str, ...]:
    if exclude is Exclusion.PATIENT and (query.patients == "").any():
        return ("patient unknown: spots of the same donor were not excluded",)
    return ()


def _groups(
    pool: ReferencePool, query: SpotQuery, allowed: tuple[Mask, ...], exclude: Exclusion
) -> list[tuple[Indices, tuple[Mask, ...]]]:
    """Return the queries that share an exclusion, with what each group may find."""
    if exclude in (Exclusion.NONE, Exclusion.SPOT):
        return [(np.arange(len(query)), allowed)]
    column = keys.PATIENT if exclude is Exclusion.PATIENT else keys.SECTION
    owners: Names = query.patients if exclude is Exclusion.PATIENT else query.sections
    groups = []
    for owner in dict.fromkeys(owners):
        masks = allowed
        if owner:
            masks = tuple(
                mask & ~reference.mask(Equals(column, owner))
                for mask, reference in zip(allowed, pool.references, strict=True)
            )
            check_any(masks, f"besides those of {column} {owner!r}")
        groups.append((np.flatnonzero(owners == owner), masks))
    return groups


def _search(
    pool: ReferencePool,
    vectors: np.ndarray,
    side: Side,
    top_k: int,
    masks: Sequence[Mask],
    own: Names | None,
) -> tuple[Indices, Indices, np.ndarray]:
    """Search each reference and merge by (score descending, spot_uid, reference)."""
    wanted = top_k if own is None else top_k + 1
    found = [
        reference.search(vectors, wanted, modality=side.value, allowed=mask)
        for reference, mask in zip(pool.references, masks, strict=True)
    ]
    positions = np.hstack([result.indices for result in found])
    scores = np.hstack([result.scores for result in found])
    source = np.repeat(np.arange(len(found)), wanted)[None, :].repeat(len(vectors), axis=0)
    source = np.where(positions >= 0, source, -1)
    uids = pool.uids(source, positions)
    if own is not None:
        scores = np.where(uids == own[:, None], -np.inf, scores)
    ranks = np.unique(uids.astype(str), return_inverse=True)[1].reshape(uids.shape)
    order = np.lexsort((source, ranks, -scores), axis=1)[:, :top_k]
    scores = np.take_along_axis(scores, order, axis=1)
    none = np.isneginf(scores)
    return (
        np.where(none, -1, np.take_along_axis(source, order, axis=1)),
        np.where(none, -1, np.take_along_axis(positions, order, axis=1)),
        scores,
    )
