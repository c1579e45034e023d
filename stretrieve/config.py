"""Frozen settings: built from plain data, all faults reported at once, written back unchanged."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from stretrieve.errors import ConfigError, explain

S = TypeVar("S")
Choice = TypeVar("Choice", bound=Enum)


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain JSON data."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return settings_to_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def settings_from_dict(cls: type[S], data: Mapping[str, Any], *, where: str = "") -> S:
    """Build a frozen settings dataclass from plain data.

    Parameters
    ----------
    cls
        The dataclass.
    data
        Field names and values, as read from TOML or JSON.
    where
        Dotted path of ``data`` in the whole configuration, for messages.

    Raises
    ------
    ConfigError
        With every fault found: unknown keys (and the nearest known one), wrong types, values that the
        dataclass itself refuses.
    """
    faults: list[str] = []
    values = _collect(cls, data, where, faults)
    if faults:
        raise ConfigError("; ".join(faults))
    return cls(**values)


def take_choices(settings: Any) -> None:
    """Put choices in the place of their names, in a dataclass's ``__post_init__``.

    Choices are compared by identity, which a name given in Python, as in ``centring="none"``, is not.

    Parameters
    ----------
    settings
        A dataclass, frozen or not.

    Raises
    ------
    ConfigError
        With every name that is not one of a choice.
    """
    faults: list[str] = []
    cls: Any = type(settings)
    for name, hint in _choices(cls).items():
        try:
            object.__setattr__(settings, name, _coerce(hint, getattr(settings, name), name))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))


def choice(kind: type[Choice], value: object, what: str) -> Choice:
    """Return the choice that is meant by itself or by its name.

    Parameters
    ----------
    kind
        The choices.
    value
        One of them, or its name.
    what
        What is chosen, for the message.

    Raises
    ------
    ConfigError
        When it is neither.
    """
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(member.value) for member in kind)
        raise ConfigError(explain(what, got=repr(value), expected=f"one of {known}")) from error


@functools.cache
def _choices(cls: Any) -> dict[str, Any]:
    """Return the types of the fields that are choices; those of a parent if a subclass's are unknown."""
    names = [f.name for f in dataclasses.fields(cls)]
    for kind in cls.__mro__:
        try:
            hints = typing.get_type_hints(kind)
        except NameError:  # imported for type checkers alone
            continue
        return {name: hints[name] for name in names if _is_choice(hints.get(name))}
    return {}


def _is_choice(hint: Any) -> bool:
    options = (hint, *typing.get_args(hint))
    return any(isinstance(option, type) and issubclass(option, Enum) for option in options)


def _collect(cls: type, data: Mapping[str, Any], where: str, faults: list[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    values: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else key
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            faults.append(explain("unknown setting", got=repr(path), remedy=hint))
            continue
        try:
            values[key] = _coerce(hints[key], value, path)
        except ConfigError as error:
            faults.append(str(error))
    return values


def _coerce(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(typing.get_args(hint), value, path)
    if origin is tuple:
        return _coerce_tuple(typing.get_args(hint), value, path)
    if isinstance(hint, type):
        return _coerce_class(hint, value, path)
    return value


def _coerce_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors: list[ConfigError] = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _coerce(option, value, path)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _coerce_tuple(options: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(path, value, "a list")
    if len(options) == 2 and options[1] is Ellipsis:
        return tuple(_coerce(options[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if len(options) != len(value):
        raise _wrong(path, value, f"a list of {len(options)}")
    return tuple(
        _coerce(option, item, f"{path}[{i}]")
        for i, (option, item) in enumerate(zip(options, value, strict=True))
    )


def _coerce_class(hint: type, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(path, value, "a table of settings")
        return settings_from_dict(hint, value, where=path)
    if issubclass(hint, Enum):
        return choice(hint, value, f"setting {path!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(path, value, hint.__name__)
    return value


def _wrong(path: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(explain(f"setting {path!r}", got=repr(value), expected=expected))
