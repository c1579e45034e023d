"""The two sides of a joint space, and what of a query's own an answer leaves out."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from stretrieve.errors import ConfigError, explain


class _Choice(StrEnum):
    @classmethod
    def of(cls, value: str) -> Self:
        """Return the member of this name.

        Raises
        ------
        ConfigError
            When there is none.
        """
        try:
            return cls(value)
        except ValueError as error:
            choices = " or ".join(member.value for member in cls)
            raise ConfigError(
                explain(cls.__name__.lower(), got=repr(value), expected=choices)
            ) from error


class Side(_Choice):
    """The side of the embedder that made a vector."""

    IMAGE = "image"
    EXPRESSION = "expression"


class Exclusion(_Choice):
    """What of a query's own is never an answer, as far as the query says where it is from."""

    PATIENT = "patient"
    """Every spot of the same patient."""
    SECTION = "section"
    """Every spot of the same section."""
    SPOT = "spot"
    """The very spot."""
    NONE = "none"
    """Nothing: a stored spot finds itself first."""
