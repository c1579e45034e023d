"""An embedder on disk: ``config.json`` beside ``model.safetensors``, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path, sha256_file, write_json
from stretrieve.errors import EmbedderMismatchError, InputNotFoundError, explain

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
FORMAT: Final = 1

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class StoredEmbedder:
    """What a folder written by :func:`write_embedder` holds.

    Parameters
    ----------
    name
        Registered name of the embedder.
    configuration
        Its settings, as plain JSON data.
    fitted
        What fitting found, as plain JSON data.
    arrays
        Its numbers by name.
    """

    name: str
    configuration: dict[str, Any]
    fitted: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


def write_embedder(
    folder: Path,
    *,
    name: str,
    configuration: Mapping[str, Any],
    fitted: Mapping[str, Any],
    arrays: Arrays,
) -> None:
    """Write both files into an existing folder; the configuration last, with the weights' digest."""
    from safetensors.numpy import save

    with atomic_path(folder / WEIGHTS) as path:
        path.write_bytes(save({key: np.ascontiguousarray(a) for key, a in arrays.items()}))
    config = {
        "format": FORMAT,
        "name": name,
        "configuration": dict(configuration),
        "fitted": dict(fitted),
        "weights_sha256": sha256_file(folder / WEIGHTS),
    }
    write_json(folder / CONFIG, config)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed ``config.json`` of an embedder.

    Raises
    ------
    InputNotFoundError
        When the folder holds none.
    EmbedderMismatchError
        When it cannot be understood.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputNotFoundError(explain("embedder", got=f"no {CONFIG} in {folder}"))
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise EmbedderMismatchError(explain(f"embedder {CONFIG}", got=error)) from error
    if not isinstance(data, dict) or not set(data) >= _KEYS or data["format"] != FORMAT:
        got = f"format {data.get('format')!r}" if isinstance(data, dict) else type(data).__name__
        raise EmbedderMismatchError(
            explain(f"embedder {CONFIG}", got=got, expected=f"format {FORMAT}")
        )
    return data


_KEYS: Final = frozenset({"format", "name", "configuration", "fitted", "weights_sha256"})


def read_embedder(folder: Path, *, name: str) -> StoredEmbedder:
    """Read an embedder of a given name and check its weights against their digest.

    Raises
    ------
    InputNotFoundError
        When a file is missing.
    EmbedderMismatchError
        When the name or the digest is another.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = read_config(folder)
    if config["name"] != name:
        raise EmbedderMismatchError(explain("embedder", got=config["name"], expected=name))
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputNotFoundError(explain("embedder", got=f"no {WEIGHTS} in {folder}"))
    if sha256_file(path) != config["weights_sha256"]:
        raise EmbedderMismatchError(
            explain(f"embedder {WEIGHTS}", got="other bytes than were saved", remedy="restore it")
        )
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise EmbedderMismatchError(explain(f"embedder {WEIGHTS}", got=error)) from error
    return StoredEmbedder(name, config["configuration"], config["fitted"], arrays)
