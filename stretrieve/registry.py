"""One generic registry for every family of pluggable parts.

Our own parts are named by ``"module:attribute"`` strings and imported on first use; users register
with a decorator; other packages through an entry-point group, collected once and loaded on first use.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, cast

from stretrieve.errors import DuplicateNameError, UnknownNameError, explain

T = TypeVar("T")


class Registry(Generic[T]):
    """Named parts of one family.

    Parameters
    ----------
    family
        What the parts are, for messages (for example ``"embedder"``).
    builtin
        Our own parts: name to ``"module:attribute"``.
    group
        Entry-point group in which other packages announce theirs.
    """

    def __init__(
        self, family: str, *, builtin: Mapping[str, str] | None = None, group: str | None = None
    ) -> None:
        self.family = family
        self._group = group
        self._lazy: dict[str, str] = dict(builtin or {})
        self._loaded: dict[str, T] = {}
        self._collected = group is None

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers a part.

        Raises
        ------
        DuplicateNameError
            When the name is taken.
        """

        def add(part: T) -> T:
            self._check_free(name)
            self._loaded[name] = part
            return part

        return add

    def get(self, name: str) -> T:
        """Return the part of this name, importing it on first use.

        Raises
        ------
        UnknownNameError
            When no part has this name; the message lists the choices and the nearest match.
        """
        if name not in self._loaded and name not in self._lazy:
            self._collect()
        if name not in self._loaded:
            if name not in self._lazy:
                raise UnknownNameError(self._unknown(name))
            module, _, attribute = self._lazy[name].partition(":")
            self._loaded[name] = cast("T", getattr(importlib.import_module(module), attribute))
        return self._loaded[name]

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""
        self._collect()
        return tuple(sorted({*self._lazy, *self._loaded}))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _check_free(self, name: str) -> None:
        if name in self._lazy or name in self._loaded:
            raise DuplicateNameError(
                explain(
                    f"{self.family} name", got=f"{name!r} twice", expected="a name not yet taken"
                )
            )

    def _collect(self) -> None:
        if self._collected or self._group is None:
            return
        self._collected = True
        for point in importlib.metadata.entry_points(group=self._group):
            if self._lazy.get(point.name) == point.value:
                continue
            self._check_free(point.name)
            self._lazy[point.name] = point.value

    def _unknown(self, name: str) -> str:
        choices = self.names()
        near = difflib.get_close_matches(name, choices, n=1)
        return explain(
            self.family,
            got=repr(name),
            expected=", ".join(choices) or "none is registered",
            remedy=f"did you mean {near[0]!r}?" if near else "",
        )
