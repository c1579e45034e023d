"""Which sections resemble a section: their spots optimally matched, beside other patients' sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve._files import sha256_text
from stretrieve._progress import SILENT, Progress
from stretrieve.config import choice
from stretrieve.errors import ConfigError, InputError, explain
from stretrieve.query.search.pool import Indices, Mask, ReferencePool, check_any
from stretrieve.query.search.queries import SpotQuery
from stretrieve.query.search.sides import Exclusion, Side
from stretrieve.reference import Reference
from stretrieve.store import Equals, Filter
from stretrieve.store.schema import META_COLUMNS

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MatchSettings:
    """How sections are matched.

    Parameters
    ----------
    max_spots
        Most spots drawn from each section for a matching.
    min_spots
        Sections with fewer spots are not compared.
    repeats
        Draws that are averaged.
    max_null
        Most sections of other patients that each section is compared with for its p-value.
    seed
        Seed of every draw.
    """

    max_spots: int = 100
    min_spots: int = 20
    repeats: int = 3
    max_null: int = 99
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_spots", "min_spots", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(explain(name, got=getattr(self, name), expected="1 or more"))
        if self.max_null < 0:
            raise ConfigError(explain("max_null", got=self.max_null, expected="0 or more"))
        if self.min_spots > self.max_spots:
            raise ConfigError(
                explain("min_spots", got=self.min_spots, expected=f"at most {self.max_spots}")
            )


@dataclass(frozen=True)
class SectionMatches:
    """Sections compared with the query, most similar first.

    Parameters
    ----------
    table
        One row a section: ``rank, similarity, null_mean, p_value, p_adjusted, null_patients``, its
        metadata, ``n_spots`` and ``matched``, the number of pairs of a matching.
    pairs
        One row a pair of the first draw: ``section, query, spot_uid, similarity``.
    notes
        What the reader should know.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A section that may be an answer: where its spots are."""

    number: int
    reference: Reference
    entry: Mapping[str, Any]
    positions: Indices

    @property
    def patient(self) -> str:
        """Its donor."""
        return str(self.entry[keys.PATIENT])


def match_similarity(one: Vectors, two: Vectors) -> tuple[float, Indices, Floats]:
    """Pair two sets of spots one to one so that the mean cosine similarity is the largest possible.

    Parameters
    ----------
    one, two
        ``(n, dim)`` and ``(m, dim)``; the larger set keeps spots without a partner.

    Returns
    -------
    mean : float
        Mean similarity of the pairs.
    pairs : ndarray
        ``(min(n, m), 2)`` rows of ``one`` and ``two``.
    similarity : ndarray
        ``(min(n, m),)`` of each pair.

    Notes
    -----
    With sets of equal size and equal weights this is the exact optimal transport between them (the
    linear assignment problem), solved by :func:`scipy.optimize.linear_sum_assignment`.
    """
    from scipy.optimize import linear_sum_assignment

    cosine = _unit(one) @ _unit(two).T
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    similarity = cosine[rows, columns]
    return float(similarity.mean()), np.stack([rows, columns], axis=1), similarity


def match_sections(
    pool: ReferencePool,
    query: SpotQuery,
    *,
    target: Side | str | None = None,
    where: Filter | None = None,
    exclude: Exclusion | str = Exclusion.PATIENT,
    settings: MatchSettings | None = None,
    progress: Progress = SILENT,
) -> SectionMatches:
    """Rank the sections of the references by how well their spots match the query's.

    Parameters
    ----------
    pool
        The references.
    query
        All spots or patches of one section.
    target
        Which embeddings of the reference to match; the query's own side when ``None``.
    where
        Predicate on the metadata of the sections.
    exclude
        Leave out the query's own patient or section.
    settings
        See :class:`MatchSettings`.
    progress
        Receiver of progress, one unit a section.

    Raises
    ------
    InputError
        When the query has too few spots, or no section is left to compare.

    Notes
    -----
    Each draw takes equally many spots from the query and from every section (the smallest number at
    hand, at most ``max_spots``) and pairs them optimally; similarities are averaged over draws.

    The null distribution of a section is its similarity to sections of other patients (neither its
    own nor the query's), matched in the same way: how near does it come to patients that it has
    nothing to do with? Patients, not spots, are the units, and weigh the same however many sections
    they have: ``p = (1 + sum over patients of the share of sections as similar or more) / (1 +
    patients)``. It cannot be below ``1 / (1 + null_patients)``. ``p_adjusted`` is after Benjamini and
    Hochberg over the sections.
    """
    settings = settings or MatchSettings()
    side = query.modality if target is None else choice(Side, target, "side")
    allowed = _not_own(pool, query, pool.allowed(where), choice(Exclusion, exclude, "exclusion"))
    candidates, small = _candidates(pool, allowed, settings.min_spots)
    if len(query) < settings.min_spots or not candidates:
        got = f"{len(query)} in the query, {len(candidates)} sections with enough"
        raise InputError(
            explain("spots to match", got=got, expected=f"{settings.min_spots} or more in each")
        )
    size = min(settings.max_spots, len(query), *(len(c.positions) for c in candidates))
    matcher = _Matcher(pool, query, side, size, settings)
    rows, pairs = [], []
    with progress.task("match sections", len(candidates)) as task:
        for candidate in candidates:
            row, pair = matcher.compare(candidate, candidates)
            rows.append(row)
            pairs.append(pair)
            task.advance(note=str(row[keys.SECTION]))
    table = _ranked(pd.DataFrame(rows))
    notes = list(query.notes)
    if small:
        notes.append(f"not compared, fewer than {settings.min_spots} spots: {', '.join(small)}")
    if not table["null_patients"].all():
        notes.append("no third patient to compare with: p-value unknown")
    return SectionMatches(table, pd.concat(pairs, ignore_index=True), tuple(notes))


def _not_own(
    pool: ReferencePool, query: SpotQuery, allowed: tuple[Mask, ...], exclude: Exclusion
) -> tuple[Mask, ...]:
    if exclude is Exclusion.PATIENT and (query.patients != "").any():
        column, owners = keys.PATIENT, query.patients
    elif exclude is not Exclusion.NONE:
        column, owners = keys.SECTION, query.sections
    else:
        return allowed
    for owner in {str(owner) for owner in owners} - {""}:
        allowed = tuple(
            mask & ~reference.mask(Equals(column, owner))
            for mask, reference in zip(allowed, pool.references, strict=True)
        )
    check_any(allowed, f"besides those of the query's own {column}")
    return allowed


def _candidates(
    pool: ReferencePool, allowed: Sequence[Mask], least: int
) -> tuple[list[_Candidate], list[str]]:
    candidates, small = [], []
    for number, (reference, mask) in enumerate(zip(pool.references, allowed, strict=True)):
        for section in np.unique(reference.section_index[mask]):
            positions = np.flatnonzero(mask & (reference.section_index == section))
            entry = reference.manifest.sections[int(section)]
            if len(positions) >= least:
                candidates.append(_Candidate(number, reference, entry, positions))
            else:
                small.append(str(entry[keys.SECTION]))
    return candidates, small


class _Matcher:
    """Compares one query with sections; the seed and a section's content decide every draw."""

    def __init__(
        self,
        pool: ReferencePool,
        query: SpotQuery,
        side: Side,
        size: int,
        settings: MatchSettings,
    ) -> None:
        self._pool, self._side, self._size, self._settings = pool, side, size, settings
        self._query = query
        rng = np.random.default_rng([settings.seed, 0])
        self._draws = [_draw(rng, len(query), size) for _ in range(settings.repeats)]

    def compare(
        self, candidate: _Candidate, everything: Sequence[_Candidate]
    ) -> tuple[dict[str, object], pd.DataFrame]:
        """Return the row of one section, and the pairs of the first draw."""
        drawn = self._drawn(candidate)
        matches = [
            match_similarity(self._query.vectors[mine], self._vectors(candidate, theirs))
            for mine, theirs in zip(self._draws, drawn, strict=True)
        ]
        similarity = float(np.mean([mean for mean, _, _ in matches]))
        entry = candidate.entry
        row: dict[str, object] = {
            "similarity": similarity,
            **_significance(similarity, self._null(candidate, everything)),
            "reference": self._pool.names[candidate.number],
            **{name: entry[name] for name in META_COLUMNS},
            "n_spots": len(candidate.positions),
            "matched": self._size,
        }
        _, rows, paired = matches[0]
        uids = candidate.reference.spot_table.uids.to_numpy()
        pairs = pd.DataFrame(
            {
                keys.SECTION: str(entry[keys.SECTION]),
                "query": self._query.names[self._draws[0][rows[:, 0]]],
                keys.SPOT_UID: uids[candidate.positions[drawn[0][rows[:, 1]]]],
                "similarity": paired,
            }
        )
        return row, pairs

    def _drawn(self, candidate: _Candidate) -> list[Indices]:
        """Return the spots of a section in every draw, the same whatever it is compared with."""
        content = int(sha256_text(str(candidate.entry["digest"]))[:8], 16)
        rng = np.random.default_rng([self._settings.seed, content])
        n = len(candidate.positions)
        return [_draw(rng, n, self._size) for _ in range(self._settings.repeats)]

    def _vectors(self, candidate: _Candidate, drawn: Indices) -> Vectors:
        return candidate.reference.embeddings(self._side.value, candidate.positions[drawn])

    def _null(self, candidate: _Candidate, everything: Sequence[_Candidate]) -> pd.Series:
        """Return the similarities to sections of other patients, by patient."""
        others = [one for one in everything if one.patient != candidate.patient]
        rng = np.random.default_rng([self._settings.seed, 1])
        chosen = _draw(rng, len(others), self._settings.max_null)
        others = [others[int(i)] for i in chosen]
        mine = self._drawn(candidate)
        values = [
            np.mean(
                [
                    match_similarity(self._vectors(candidate, a), self._vectors(other, b))[0]
                    for a, b in zip(mine, self._drawn(other), strict=True)
                ]
            )
            for other in others
        ]
        return pd.Series(values, index=[one.patient for one in others], dtype=np.float64)


def _significance(similarity: float, null: pd.Series) -> dict[str, float]:
    patients = null.groupby(level=0)
    n = int(patients.ngroups)
    if not n:
        return {"null_mean": np.nan, "p_value": np.nan, "null_patients": 0}
    share = (null >= similarity).groupby(level=0).mean().sum()
    return {
        "null_mean": float(patients.mean().mean()),
        "p_value": float((1 + share) / (1 + n)),
        "null_patients": n,
    }


def _draw(rng: np.random.Generator, n: int, size: int) -> Indices:
    if size >= n:
        return np.arange(n)
    return np.sort(rng.choice(n, size=size, replace=False))


def _unit(vectors: Vectors) -> Floats:
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))[:, None]
    unit: Floats = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return unit


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by similarity, then name, and add ranks and adjusted p-values."""
    table = table.sort_values(
        ["similarity", keys.SECTION], ascending=[False, True], ignore_index=True
    )
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    table.insert(4, "p_adjusted", benjamini_hochberg(table["p_value"].to_numpy(np.float64)))
    return table


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Return p-values adjusted for the false discovery rate; NaN stays NaN.

    Parameters
    ----------
    p_values
        ``(n,)``.
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(-p_values[known], kind="stable")]
    n = len(order)
    raised = p_values[order] * n / np.arange(n, 0, -1)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised), 1.0)
    return adjusted
