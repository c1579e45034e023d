"""Typed predicates on metadata columns: the only way in which user text reaches a query of the store.

Every predicate has two meanings that agree: an SQL text with quoted literals for LanceDB, and a mask
over a table in memory for the search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve import keys
from stretrieve.errors import ConfigError, explain
from stretrieve.store.schema import META_COLUMNS

ALLOWED = frozenset({*META_COLUMNS, keys.SPOT_UID})


def quote(value: str) -> str:
    """Return ``value`` as an SQL string literal.

    Raises
    ------
    ConfigError
        When the value holds a NUL character.
    """
    if "\0" in value:
        raise ConfigError(explain("filter value", got=repr(value), expected="text without NUL"))
    return "'" + value.replace("'", "''") + "'"


class Filter(ABC):
    """A predicate on the metadata of spots."""

    @abstractmethod
    def to_sql(self) -> str:
        """Return the predicate as an SQL text."""

    @abstractmethod
    def mask(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows ``(n_rows,)`` of a metadata table satisfy the predicate."""

    def __and__(self, other: Filter) -> Filter:
        return _Both(self, other)

    def __invert__(self) -> Filter:
        return Not(self)


def _check_column(column: str) -> None:
    if column not in ALLOWED:
        raise ConfigError(
            explain(
                "filter column", got=repr(column), expected=f"one of {', '.join(sorted(ALLOWED))}"
            )
        )


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name == table.index.name:
        return table.index.to_series()
    return table[name]


@dataclass(frozen=True, slots=True)
class IsIn(Filter):
    """True where a column holds one of some values.

    Parameters
    ----------
    column
        A metadata column.
    values
        The accepted values; none accepts nothing.
    """

    column: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_column(self.column)

    def to_sql(self) -> str:
        """Return ``column IN ('a', 'b')``."""
        if not self.values:
            return "false"
        return f"{self.column} IN ({', '.join(quote(value) for value in self.values)})"

    def mask(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows ``(n_rows,)`` hold one of the values."""
        return np.asarray(_column(table, self.column).isin(list(self.values)), dtype=np.bool_)


def Equals(column: str, value: str) -> IsIn:  # noqa: N802 (reads as one of the predicates)
    """Return the predicate that a column holds exactly one value."""
    return IsIn(column, (value,))


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """True where another predicate is false."""

    inner: Filter

    def to_sql(self) -> str:
        """Return ``NOT (…)``."""
        return f"NOT ({self.inner.to_sql()})"

    def mask(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows ``(n_rows,)`` do not satisfy the inner predicate."""
        return ~self.inner.mask(table)


@dataclass(frozen=True, slots=True)
class _Both(Filter):
    left: Filter
    right: Filter

    def to_sql(self) -> str:
        """Return ``(…) AND (…)``."""
        return f"({self.left.to_sql()}) AND ({self.right.to_sql()})"

    def mask(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows ``(n_rows,)`` satisfy both predicates."""
        return self.left.mask(table) & self.right.mask(table)
