"""Settings of a build; the manifest stores exactly these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stretrieve.errors import ConfigError, explain
from stretrieve.indexes.recipes import AUTO, load_recipe
from stretrieve.reference.layout import is_remote
from stretrieve.store.schema import EMBEDDING_TYPES
from stretrieve.training import TrainSettings


@dataclass(frozen=True)
class BuildSettings:
    """How a reference is built.

    Parameters
    ----------
    embedder
        Name of the embedder.
    embedder_config
        Its own settings; left out ones take its defaults.
    embedder_from
        A reference, or a saved embedder's folder, whose fitted embedder is taken as it is: nothing is
        trained, and both references can be searched together. ``embedder``, ``embedder_config`` and
        ``train`` then have no effect.
    train
        Settings of the training loop.
    recipe
        Index recipe, or ``"auto"``.
    seed
        Seed of everything random that has no seed of its own; training takes it unless
        ``train.seed`` is given.
    thumbnail_px
        Side of the stored patch images in pixels.
    store_uri
        Object-store URI for the LanceDB tables (``s3://bucket/name``), the rest of the reference
        staying in its folder; empty keeps them there as well. Credentials come from the environment
        or from ``storage_options``, never from here.
    embedding_dtype
        How embeddings are stored, ``"float32"`` or ``"float16"``: half the bytes, three digits.
    workers
        Processes that decode patches.
    batch_size
        Patches embedded at a time.

    Raises
    ------
    ConfigError
        When a number is out of range or the recipe is unknown.
    """

    embedder: str = "bleep"
    embedder_config: Mapping[str, Any] = field(default_factory=dict)
    embedder_from: str = ""
    train: TrainSettings = field(default_factory=TrainSettings)
    recipe: str = AUTO
    seed: int = 0
    thumbnail_px: int = 64
    store_uri: str = ""
    embedding_dtype: str = "float32"
    workers: int = 1
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.store_uri and not is_remote(self.store_uri):
            raise ConfigError(
                explain("store_uri", got=self.store_uri, expected="a URI such as s3://bucket/name")
            )
        check_dtype(self.embedding_dtype)
        if self.recipe != AUTO:
            load_recipe(self.recipe)
        for name, low in (("thumbnail_px", 8), ("workers", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ConfigError(explain(name, got=getattr(self, name), expected=f"{low} or more"))


def check_dtype(dtype: str) -> str:
    """Return how embeddings are stored.

    Raises
    ------
    ConfigError
        When it is neither ``"float32"`` nor ``"float16"``.
    """
    if dtype not in EMBEDDING_TYPES:
        raise ConfigError(
            explain("embedding_dtype", got=repr(dtype), expected=" or ".join(EMBEDDING_TYPES))
        )
    return dtype
