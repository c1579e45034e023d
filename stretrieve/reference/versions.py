"""Versions of a reference and the names given to them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from stretrieve._failpoints import crash_point
from stretrieve._files import canonical_json, indented_json, sha256_text, write_json
from stretrieve.errors import ManifestError, ReferenceNotFoundError, explain
from stretrieve.reference.layout import Layout, check_tag, version_name
from stretrieve.reference.locks import VersionPin
from stretrieve.reference.manifest import Manifest, read_manifest

_TRIES = 20
_WAIT_S = 0.05
_VERSION = re.compile(r"v(\d{6,})")


def read_tags(layout: Layout) -> dict[str, int]:
    """Return the tags and the versions that they name.

    Raises
    ------
    ManifestError
        When the file of tags is damaged.
    """
    if not layout.tags.is_file():
        return {}
    try:
        text = layout.tags.read_bytes().decode("utf-8")
        data = json.loads(text)
        tags = {str(name): int(number) for name, number in data["tags"].items()}
        intact = data["sha256"] == sha256_text(canonical_json(tags)) and text == indented_json(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(layout.tags) from error
    if not intact:
        raise _damaged(layout.tags)
    return tags


def write_tags(layout: Layout, tags: dict[str, int]) -> None:
    """Write the tags in one step."""
    crash_point("write tags")
    write_json(layout.tags, {"tags": tags, "sha256": sha256_text(canonical_json(tags))})
    crash_point("wrote tags")


def find_manifest(layout: Layout, tag: str | None = None) -> Manifest:
    """Return the manifest of the newest version, or of the one that a tag names.

    Raises
    ------
    ReferenceNotFoundError
        When there is no reference, or no such tag or version.
    """
    newest = read_manifest(layout.manifest)
    if tag is None or tag == version_name(newest.version):
        return newest
    match = _VERSION.fullmatch(tag)
    tags = read_tags(layout)
    number = int(match.group(1)) if match else tags.get(check_tag(tag))
    path = layout.version(number) if number is not None else None
    if path is None or not path.is_file():
        raise ReferenceNotFoundError(
            explain(
                f"reference {layout.root}",
                got=f"no tag {tag!r}",
                expected=", ".join(sorted(tags)) or f"{version_name(newest.version)}, the only one",
            )
        )
    return read_manifest(path)


def pin_version(layout: Layout, tag: str | None = None) -> tuple[Manifest, VersionPin | None]:
    """Return a version's manifest and the lock that keeps compaction from it.

    Raises
    ------
    ReferenceNotFoundError
        When there is no reference, or no such tag or version.
    """
    for _ in range(_TRIES):
        manifest = find_manifest(layout, tag)
        try:
            return manifest, VersionPin(layout.version(manifest.version))
        except FileNotFoundError:
            time.sleep(_WAIT_S)
    return find_manifest(layout, tag), None


def publish(layout: Layout, manifest: Manifest) -> None:
    """Make a version the newest: its own file first, then the one that readers look at."""
    manifest.write(layout.version(manifest.version))
    manifest.write(layout.manifest)


def _damaged(path: Path) -> ManifestError:
    return ManifestError(
        explain(f"tags {path}", got="a file that fails its own checksum", remedy="tag again")
    )
