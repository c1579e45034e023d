"""How a query searches and imputes; stored with every result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from stretrieve.errors import ConfigError, explain
from stretrieve.query.weights import WeightScheme


class Modality(StrEnum):
    """Which embedding of the reference spots the query's image embeddings are compared with."""

    EXPRESSION = "expression"
    IMAGE = "image"


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


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """Settings of the query engine.

    Parameters
    ----------
    top_k
        Neighbours that are averaged.
    weights
        How they are weighted.
    temperature
        Temperature of ``softmax`` weights, in cosine units.
    modality
        Compare the query with the reference's expression (BLEEP) or image embeddings.
    centring
        Treatment of offsets between sections and slides.
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

    top_k: int = 50
    weights: WeightScheme = WeightScheme.UNIFORM
    temperature: float = 0.1
    modality: Modality = Modality.EXPRESSION
    centring: Centring = Centring.NONE
    stride_um: float | None = None
    min_tissue: float = 0.25
    max_failed: float = 0.05
    batch_size: int = 64
    workers: int = 1

    def __post_init__(self) -> None:
        faults = [
            explain(name, got=value, expected=expected)
            for name, value, ok, expected in (
                ("top_k", self.top_k, self.top_k >= 1, "1 or more"),
                ("temperature", self.temperature, self.temperature > 0, "a number above 0"),
                ("min_tissue", self.min_tissue, 0 <= self.min_tissue <= 1, "0 to 1"),
                ("max_failed", self.max_failed, 0 <= self.max_failed <= 1, "0 to 1"),
                ("batch_size", self.batch_size, self.batch_size >= 1, "1 or more"),
                ("workers", self.workers, self.workers >= 1, "1 or more"),
                (
                    "stride_um",
                    self.stride_um,
                    self.stride_um is None or self.stride_um > 0,
                    "a number of µm above 0",
                ),
            )
            if not ok
        ]
        if faults:
            raise ConfigError("; ".join(faults))
