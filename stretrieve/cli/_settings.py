"""Settings from a TOML file and from ``--set key=value``, the latter winning."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stretrieve.errors import ConfigError, InputNotFoundError, explain


def load_settings(path: Path | None, *, assignments: Sequence[str] = ()) -> dict[str, Any]:
    """Return nested settings.

    Parameters
    ----------
    path
        TOML file, or ``None``.
    assignments
        Items such as ``train.epochs=5`` or ``encoder.backbone=resnet18``; a value is read as TOML
        where it is TOML, else as text.

    Raises
    ------
    ConfigError
        When the file is not TOML or an assignment has no ``=``.
    InputNotFoundError
        When there is no such file.
    """
    settings = _read(path) if path is not None else {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ConfigError(
                explain(
                    "--set", got=repr(assignment), expected="key=value, for example train.epochs=5"
                )
            )
        put(settings, name.strip(), _value(text.strip()))
    return settings


def put(settings: dict[str, Any], path: str, value: object) -> None:
    """Set ``a.b.c`` in nested settings, making the tables on the way.

    Raises
    ------
    ConfigError
        When a part of the path already holds a value that is not a table.
    """
    *tables, last = path.split(".")
    inner = settings
    for name in tables:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(explain(f"setting {path!r}", got=f"{name!r} is a value, not a table"))
    inner[last] = value


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputNotFoundError(explain("settings", got=f"no file {path}"))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(explain(f"settings {path}", got=str(error), expected="TOML")) from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
