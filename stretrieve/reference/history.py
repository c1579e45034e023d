"""What versions there are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stretrieve.reference.layout import Layout, version_name
from stretrieve.reference.versions import find_manifest, read_tags
from stretrieve.reference.writer import kept_versions


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version that is kept.

    Parameters
    ----------
    version
        Its name, by which it can be opened.
    tags
        Names given to it.
    created
        When, UTC.
    change
        What made it.
    sections, spots
        What it holds.
    content_digest
        SHA-256 over its rows.
    newest
        Whether it is what opens without a tag.
    """

    version: str
    tags: tuple[str, ...]
    created: str
    change: str
    sections: int
    spots: int
    content_digest: str
    newest: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "tags": list(self.tags)}


def list_versions(root: Path | str) -> tuple[VersionInfo, ...]:
    """Return the versions of a reference that are kept, oldest first.

    Parameters
    ----------
    root
        The reference folder.

    Raises
    ------
    ReferenceNotFoundError
        When there is no reference.
    ManifestError
        When the manifest of a version is damaged.
    """
    layout = Layout(Path(root))
    newest = find_manifest(layout).version
    tags = read_tags(layout)
    return tuple(
        VersionInfo(
            version=version_name(number),
            tags=tuple(sorted(name for name, tagged in tags.items() if tagged == number)),
            created=manifest.created,
            change=manifest.change,
            sections=len(manifest.sections),
            spots=manifest.n_spots,
            content_digest=manifest.content_digest,
            newest=number == newest,
        )
        for number, manifest in kept_versions(layout).items()
        if number <= newest
    )
