"""Where the parts of a reference lie on disk."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from stretrieve import keys
from stretrieve.errors import ConfigError, explain

VERSIONS = "versions"
TAGS = "tags.json"
EMBEDDERS = "embedders"
LOCK = ".lock"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}")
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths inside a reference folder.

    Parameters
    ----------
    root
        The reference folder.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """The manifest of the newest version."""
        return self.root / keys.MANIFEST

    @property
    def embedder(self) -> Path:
        """Configuration and weights of the embedder."""
        return self.root / keys.EMBEDDER

    def embedder_of(self, label: str) -> Path:
        """Return the folder of the embedder with a label, or of the reference's own for none."""
        return self.root / EMBEDDERS / label if label else self.embedder

    @property
    def tags(self) -> Path:
        """Names given to versions."""
        return self.root / TAGS

    @property
    def lock(self) -> Path:
        """Lock that a writer holds."""
        return self.root / LOCK

    @property
    def versions(self) -> Path:
        """Folder with the manifest of every version kept."""
        return self.root / VERSIONS

    def version(self, number: int) -> Path:
        """Return the manifest of one version."""
        return self.versions / f"{version_name(number)}.json"

    def files(self, number: int) -> Path:
        """Return the list of a version's store files."""
        return self.versions / f"{version_name(number)}.files.json"

    def indexes(self, number: int) -> Path:
        """Return the folder of vectors and indexes derived for one version."""
        return self.root / keys.INDEXES / version_name(number)

    def store_uri(self, uri: str) -> str:
        """Return where the LanceDB database is: a folder of the reference, or an object store."""
        return uri if is_remote(uri) else str(self.root / uri)


def is_remote(uri: str) -> bool:
    """Whether a URI names an object store rather than a local folder."""
    return _REMOTE.match(uri) is not None


def version_name(number: int) -> str:
    """Return the name of a version in file names and LanceDB tags."""
    return f"v{number:06d}"


def check_tag(name: str) -> str:
    """Return a tag's name.

    Raises
    ------
    ConfigError
        When it is not letters, digits, dot, dash and underscore.
    """
    if not _TAG.fullmatch(name) or re.fullmatch(r"v\d{6,}", name):
        raise ConfigError(
            explain(
                "tag",
                got=repr(name),
                expected="1 to 64 letters, digits, '.', '-' and '_', unlike v000001",
            )
        )
    return name


def check_label(label: str) -> str:
    """Return the label of an embedder.

    Raises
    ------
    ConfigError
        When it is not lower-case letters, digits and underscore.
    """
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            explain(
                "label of an embedder",
                got=repr(label),
                expected="1 to 32 lower-case letters, digits and _, a letter first",
            )
        )
    return label


def delete(path: Path) -> None:
    """Delete a file or a folder; one that is gone already is fine."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
