"""The two sides of a joint space, and what of a query's own an answer leaves out."""

from __future__ import annotations

from enum import StrEnum


class Side(StrEnum):
    """The side of the embedder that made a vector."""

    IMAGE = "image"
    EXPRESSION = "expression"


class Exclusion(StrEnum):
    """What of a query's own is never an answer, as far as the query says where it is from."""

    PATIENT = "patient"
    """Every spot of the same patient."""
    SECTION = "section"
    """Every spot of the same section."""
    SPOT = "spot"
    """The very spot."""
    NONE = "none"
    """Nothing: a stored spot finds itself first."""
