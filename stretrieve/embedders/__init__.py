"""Embedders: plug-ins that map patches and expression into one space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretrieve.embedders.base import Embedder, Embeddings, SectionPatches
from stretrieve.embedders.data import collect_patches
from stretrieve.embedders.memo import kept_features
from stretrieve.embedders.storage import read_config
from stretrieve.registry import Registry

__all__ = [
    "EMBEDDERS",
    "Embedder",
    "Embeddings",
    "SectionPatches",
    "collect_patches",
    "create_embedder",
    "kept_features",
    "load_embedder",
]

EMBEDDERS: Registry[type[Embedder]] = Registry(
    "embedder",
    builtin={
        "bleep": "stretrieve.embedders.bleep:BleepEmbedder",
        "colour": "stretrieve.embedders.colour:ColourEmbedder",
        "frozen": "stretrieve.embedders.frozen:FrozenEmbedder",
        "m2ost": "stretrieve.embedders.m2ost:M2ostEmbedder",
        "mclstexp": "stretrieve.embedders.mclstexp:MclstexpEmbedder",
        "stgchb": "stretrieve.embedders.stgchb:StgchbEmbedder",
    },
    group="stretrieve.embedders",
)
"""Classes by name; other packages add theirs through the entry-point group."""


def create_embedder(name: str, config: Mapping[str, Any] | None = None) -> Embedder:
    """Build an unfitted embedder.

    Parameters
    ----------
    name
        Registered name.
    config
        Its settings as plain data; defaults where left out.

    Raises
    ------
    UnknownNameError
        When no embedder has this name.
    ConfigError
        When a setting is unknown or wrong.
    """
    return EMBEDDERS.get(name).from_config(config or {})


def load_embedder(folder: Path | str, *, device: str = "cpu") -> Embedder:
    """Load a fitted embedder from the folder that its ``save`` wrote.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    device
        Where networks run: ``cpu``, ``cuda``, ``cuda:1``.

    Raises
    ------
    InputNotFoundError
        When a file is missing.
    EmbedderMismatchError
        When weights, preprocessing or known answer differ from what was saved.
    """
    folder = Path(folder)
    return EMBEDDERS.get(read_config(folder)["name"]).load(folder, device=device)
