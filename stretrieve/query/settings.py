"""How a query searches and imputes; stored with every result."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, Self

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, explain
from stretrieve.query.weights import WeightScheme

Fault = tuple[str, object, bool, str]
"""Setting, its value, whether that is fine, and what is expected."""


class Modality(StrEnum):
    """Which embedding of the reference spots the query's image embeddings are compared with."""

    EXPRESSION = "expression"
    IMAGE = "image"
    FUSED = "fused"
    """Both: ``fusion · cos(image, expression) + (1 − fusion) · cos(image, image)``."""


class Similarity(StrEnum):
    """How two embeddings are compared."""

    COSINE = "cosine"
    DOT = "dot"
    """Inner product of the embeddings as they are (ST-GCHB)."""


class Balance(StrEnum):
    """Whether patients compete for a patch's neighbours."""

    NONE = "none"
    """They do: the ``top_k`` nearest spots."""
    CAP = "cap"
    """The ``top_k`` nearest spots of which at most ``per_patient`` are of one patient."""
    EQUAL = "equal"
    """The same number of nearest spots from every patient, ``top_k`` in all, rounded up."""


class CompanionKind(StrEnum):
    """Which regression stands beside retrieval."""

    RIDGE = "ridge"
    """Reduced-rank ridge from image embeddings, fitted on the spots in use."""
    HEAD = "head"
    """The embedder's own regression head, for the genes of its panel."""


class Compat(StrEnum):
    """Published inference, reproduced; it decides all other settings of retrieval."""

    BLEEP_SIMPLE = "bleep-simple"
    """BLEEP's ``simple``: the nearest spot by cosine."""
    BLEEP = "bleep"
    """BLEEP's ``average``: plain mean of 50."""
    BLEEP_WEIGHTED = "bleep-weighted"
    """BLEEP's ``weighted_average``: exponential of squared distance over 50."""
    STGCHB = "stgchb"
    """ST-GCHB's ``average``: plain mean of the 50 largest inner products."""
    STGCHB_WEIGHTED = "stgchb-weighted"
    """ST-GCHB's ``weighted``, whose sign favours the worst of the 50."""
    MCLSTEXP = "mclstexp"
    """mclSTExp: reciprocal of squared distance over 200."""


_PUBLISHED: Final[dict[Compat, dict[str, Any]]] = {
    Compat.BLEEP_SIMPLE: {"top_k": 1},
    Compat.BLEEP: {},
    Compat.BLEEP_WEIGHTED: {"weights": WeightScheme.BLEEP},
    Compat.STGCHB: {"similarity": Similarity.DOT},
    Compat.STGCHB_WEIGHTED: {"similarity": Similarity.DOT, "weights": WeightScheme.STGCHB},
    Compat.MCLSTEXP: {"top_k": 200, "weights": WeightScheme.INVERSE},
}


class Centring(StrEnum):
    """Which offsets are removed before averaging.

    Offsets have to go on both sides: centred embeddings with raw expression do worse than neither.
    """

    NONE = "none"
    """Average the neighbours' values as they are (as published)."""
    SECTION = "section"
    """Average deviations from each section's mean profile, then add the mean over sections."""
    BOTH = "both"
    """``section``, and the slide's mean embedding is moved onto the reference's, which takes out
    differences of stain and scanner. Uses the query slide as a whole (transductive)."""


@dataclass(frozen=True)
class RetrievalSettings:
    """How neighbours are found and averaged; what a calibration chooses.

    Parameters
    ----------
    top_k
        Neighbours that are averaged.
    weights
        How they are weighted.
    temperature
        Temperature of ``softmax`` weights, in cosine units.
    modality
        Compare the query with the reference's expression (BLEEP) or image embeddings, or both.
    centring
        Treatment of offsets between sections and slides.
    fusion
        Weight of the expression similarity with ``modality = fused``, 0 to 1.
    similarity
        Cosine, or inner product.
    top_p
        Average fewer than ``top_k`` neighbours: the smallest number, at least ``k_min``, whose weights
        reach this share of the weight of all ``top_k``; ``None`` for all of them.
    k_min
        Least number of neighbours with ``top_p``.
    balance
        Whether patients compete for a patch's neighbours.
    per_patient
        Most neighbours of one patient with ``balance = cap``.
    companion
        Share of a regression from image embeddings that is averaged with retrieval, 0 to 1; shown
        apart in every explanation.
    companion_kind
        Which regression that is.
    variance_match
        Stretch predictions, gene by gene, to the variance of measured expression; averaging halves it.
    smoothing_um
        Patches of a slide share their neighbours (and the embeddings that a regression reads) with
        those around them, by a Gaussian of this standard deviation in µm; each then has up to four
        times ``top_k``. 0 for none.
    compat
        Published inference to reproduce, instead of everything above.
    """

    top_k: int = 50
    weights: WeightScheme = WeightScheme.UNIFORM
    temperature: float = 0.1
    modality: Modality = Modality.EXPRESSION
    centring: Centring = Centring.NONE
    fusion: float = 0.5
    similarity: Similarity = Similarity.COSINE
    top_p: float | None = None
    k_min: int = 5
    balance: Balance = Balance.NONE
    per_patient: int = 10
    companion: float = 0.0
    companion_kind: CompanionKind = CompanionKind.RIDGE
    variance_match: bool = False
    smoothing_um: float = 0.0
    compat: Compat | None = None

    def __post_init__(self) -> None:
        take_choices(self)
        _refuse(self._faults())

    def _faults(self) -> list[Fault]:
        fused_dot = self.modality is Modality.FUSED and self.similarity is Similarity.DOT
        return [
            ("top_k", self.top_k, self.top_k >= 1, "1 or more"),
            ("temperature", self.temperature, self.temperature > 0, "a number above 0"),
            ("fusion", self.fusion, 0 <= self.fusion <= 1, "0 to 1"),
            ("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0, at most 1"),
            ("k_min", self.k_min, self.k_min >= 1, "1 or more"),
            ("per_patient", self.per_patient, self.per_patient >= 1, "1 or more"),
            ("companion", self.companion, 0 <= self.companion <= 1, "0 to 1"),
            ("smoothing_um", self.smoothing_um, 0 <= self.smoothing_um <= 1000, "0 to 1000 µm"),
            ("similarity", self.similarity, not fused_dot, "cosine with modality 'fused'"),
        ]

    def resolved(self) -> Self:
        """Return the settings that apply: those of the published method under ``compat``."""
        if self.compat is None:
            return self
        defaults = {f.name: f.default for f in fields(RetrievalSettings) if f.name != "compat"}
        return replace(self, **{**defaults, **_PUBLISHED[self.compat]})

    def sides(self) -> dict[Modality, float]:
        """Return the embeddings that a query is compared with, and the weight of each."""
        if self.modality is not Modality.FUSED:
            return {self.modality: 1.0}
        return {Modality.EXPRESSION: self.fusion, Modality.IMAGE: 1 - self.fusion}

    def quota(self, n_patients: int) -> int:
        """Return how many neighbours one of ``n_patients`` may give."""
        if self.balance is Balance.CAP:
            return min(self.per_patient, self.top_k)
        return -(-self.top_k // max(n_patients, 1))


@dataclass(frozen=True)
class QuerySettings(RetrievalSettings):
    """Settings of the query engine: those of retrieval, and how a slide is read.

    Parameters
    ----------
    top_k, weights, temperature, modality, centring, fusion, similarity, top_p, k_min, balance,
    per_patient, companion, companion_kind, variance_match, smoothing_um, compat
        See :class:`RetrievalSettings`.
    abstain
        A patch gets no values (NaN, weights 0) when what it looks like lies this many times farther
        from the reference than 99 % of reference spots lie from other patients (Mahalanobis distance
        of colour statistics, of image embeddings where the pool has no thumbnails); ``None`` gives
        values to all.
    stride_um
        Step of the patch grid in µm; ``None`` for the patch side, so that patches tile the tissue.
    min_tissue
        Least share of tissue in a patch, 0 to 1.
    max_failed
        Share of unreadable patches above which the slide counts as failed, 0 to 1.
    batch_size
        Patches decoded and embedded at a time.
    workers
        Decoding processes.
    """

    abstain: float | None = 3.0
    stride_um: float | None = None
    min_tissue: float = 0.25
    max_failed: float = 0.05
    batch_size: int = 64
    workers: int = 1

    def _faults(self) -> list[Fault]:
        stride_ok = self.stride_um is None or self.stride_um > 0
        return [
            *super()._faults(),
            ("abstain", self.abstain, self.abstain is None or self.abstain >= 1, "1 or more"),
            ("min_tissue", self.min_tissue, 0 <= self.min_tissue <= 1, "0 to 1"),
            ("max_failed", self.max_failed, 0 <= self.max_failed <= 1, "0 to 1"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "1 or more"),
            ("workers", self.workers, self.workers >= 1, "1 or more"),
            ("stride_um", self.stride_um, stride_ok, "a number of µm above 0"),
        ]


def _refuse(checks: list[Fault]) -> None:
    faults = [
        explain(name, got=value, expected=expected)
        for name, value, ok, expected in checks
        if not ok
    ]
    if faults:
        raise ConfigError("; ".join(faults))
