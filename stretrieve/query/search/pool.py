"""Several references searched as one: same embedder, no section twice, one order of spots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve._files import canonical_json, sha256_text
from stretrieve.embedders.base import Embedder
from stretrieve.errors import ConfigError, EmbedderMismatchError, InputError, explain
from stretrieve.reference import Manifest, Reference
from stretrieve.store import Filter

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def embedder_digest(manifest: Manifest) -> str:
    """Return the SHA-256 over the embedder's files: equal digests mean one embedding space."""
    return sha256_text(canonical_json(dict(manifest.embedder["files"])))


@dataclass(frozen=True)
class ReferencePool:
    """References whose spots are searched together.

    A section that several references hold with the same content counts once, in the first of them.

    Parameters
    ----------
    references
        One or more, all made with the same embedder.

    Raises
    ------
    ConfigError
        When there is none.
    EmbedderMismatchError
        When two of them were made with different embedders.
    """

    references: tuple[Reference, ...]

    def __post_init__(self) -> None:
        if not self.references:
            raise ConfigError(explain("references", got="none", expected="one or more"))
        first = self.references[0]
        for other in self.references[1:]:
            _check_same_embedder(first, other)

    @classmethod
    def open(cls, places: Sequence[tuple[str | Path, str | None]]) -> ReferencePool:
        """Open references, each given as folder and tag (``None``: the newest version)."""
        return cls(tuple(Reference.open(uri, tag=tag) for uri, tag in places))

    @property
    def embedder(self) -> Embedder:
        """The embedder of all of them."""
        return self.references[0].embedder

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each reference: its folder's, with its id where two folders share one."""
        folders = [reference.layout.root.name for reference in self.references]
        return tuple(
            name
            if folders.count(name) == 1
            else f"{name}:{reference.manifest.reference_id}:v{reference.manifest.version}"
            for name, reference in zip(folders, self.references, strict=True)
        )

    @property
    def identities(self) -> dict[str, dict[str, Any]]:
        """Name of each reference to its id, version, tag and content digest."""
        return {
            name: reference.identity
            for name, reference in zip(self.names, self.references, strict=True)
        }

    @cached_property
    def unique(self) -> tuple[Mask, ...]:
        """For each reference, ``(n_spots,)`` which spots no earlier reference holds as well."""
        seen: set[str] = set()
        masks = []
        for reference in self.references:
            digests = [str(section["digest"]) for section in reference.manifest.sections]
            new = np.array([digest not in seen for digest in digests], dtype=np.bool_)
            seen.update(digests)
            masks.append(new[reference.section_index])
        return tuple(masks)

    def allowed(self, where: Filter | None = None) -> tuple[Mask, ...]:
        """Return for each reference ``(n_spots,)`` which spots may be returned.

        Parameters
        ----------
        where
            Predicate on their metadata; all of them when ``None``.

        Raises
        ------
        InputError
            When no spot is left.
        """
        masks = self.unique
        if where is not None:
            masks = tuple(
                mask & reference.mask(where)
                for mask, reference in zip(masks, self.references, strict=True)
            )
        check_any(masks, "with these filters")
        return masks

    @cached_property
    def genes(self) -> pd.DataFrame:
        """Union of the gene tables: index = gene key, sorted; ``gene_id``, ``gene_symbol``."""
        union = pd.concat([reference.genes for reference in self.references])
        union = union[~union.index.duplicated()].sort_index()
        union.index.name = "gene"
        return union

    def find(self, spot_uids: Sequence[str]) -> tuple[Indices, Indices]:
        """Return reference number and position of spots, each from the first that holds it.

        Raises
        ------
        InputError
            When no reference holds a spot.
        """
        wanted = [str(uid) for uid in spot_uids]
        source = np.full(len(wanted), -1, dtype=np.int64)
        positions = np.full(len(wanted), -1, dtype=np.int64)
        for number, reference in enumerate(self.references):
            found = reference.spot_table.uids.get_indexer(wanted)
            new = (source < 0) & (found >= 0)
            source[new], positions[new] = number, found[new]
        if (source < 0).any():
            missing = wanted[int(np.argmin(source))]
            raise InputError(
                explain(
                    "spot",
                    got=repr(missing),
                    expected="a spot_uid of the reference, SECTION/SPOT",
                    remedy="see its sections with `stretrieve ref list`",
                )
            )
        return source, positions

    def parts(self, source: Indices, positions: Indices) -> Iterator[tuple[Reference, Mask]]:
        """Yield each reference with the mask of the entries ``(n,)`` that lie in it."""
        for number, reference in enumerate(self.references):
            mine = (source == number) & (positions >= 0)
            if mine.any():
                yield reference, mine

    def uids(self, source: Indices, positions: Indices) -> npt.NDArray[np.object_]:
        """Return the ``spot_uid`` of each entry, in the shape of ``positions``; ``""`` for none."""
        found = np.full(positions.shape, "", dtype=object)
        for reference, mine in self.parts(source, positions):
            found[mine] = reference.spot_table.uids.to_numpy()[positions[mine]]
        return found

    def metadata(self, source: Indices, positions: Indices) -> pd.DataFrame:
        """Return the spots' rows ``(n,)`` in the order given, with the name of their reference."""
        parts = []
        for number, reference in enumerate(self.references):
            mine = np.flatnonzero(source == number)
            rows = reference.spots.iloc[positions[mine]]
            rows = rows.astype(dict.fromkeys(rows.select_dtypes("category").columns, object))
            rows.insert(0, "reference", self.names[number])
            parts.append(rows.set_axis(mine, axis="index"))
        return pd.concat(parts).sort_index()

    def embeddings(
        self, modality: str, source: Indices, positions: Indices
    ) -> npt.NDArray[np.float32]:
        """Return stored embeddings ``(n, dim)``."""
        dim = int(self.references[0].manifest.embedder["dim"])
        found = np.zeros((len(positions), dim), dtype=np.float32)
        for reference, mine in self.parts(source, positions):
            found[mine] = reference.embeddings(modality, positions[mine])
        return found

    def thumbnails(self, source: Indices, positions: Indices) -> list[bytes]:
        """Return the JPEG patch image of each spot."""
        found = [b""] * len(positions)
        for reference, mine in self.parts(source, positions):
            images = reference.thumbnails(positions[mine])
            for place, image in zip(np.flatnonzero(mine), images, strict=True):
                found[place] = image
        return found


def check_any(masks: Sequence[Mask], what: str) -> None:
    """Refuse a search among nothing.

    Raises
    ------
    InputError
        When no mask holds a spot.
    """
    if not any(mask.any() for mask in masks):
        raise InputError(
            explain(
                "spots to search among",
                got=f"none {what}",
                remedy="see what the reference holds with `stretrieve ref list`, or exclude less",
            )
        )


def _check_same_embedder(first: Reference, other: Reference) -> None:
    one, two = first.manifest, other.manifest
    if embedder_digest(one) != embedder_digest(two):
        raise EmbedderMismatchError(
            explain(
                f"embedder of reference {other.layout.root.name}",
                got=f"{two.embedder['name']} {embedder_digest(two)[:12]}",
                expected=f"{one.embedder['name']} {embedder_digest(one)[:12]} as in "
                f"{first.layout.root.name}",
                remedy="their vectors cannot be compared: search them one by one, or build one with "
                f"`build-ref --set embedder_from={first.layout.root}`",
            )
        )
