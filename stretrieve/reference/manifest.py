"""The manifest: what a version of a reference is made of, written last, checked first."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stretrieve._failpoints import crash_point
from stretrieve._files import canonical_json, indented_json, sha256_text, write_json
from stretrieve.errors import ConfigError, ManifestError, ReferenceNotFoundError, explain
from stretrieve.store import SectionRecord, TableVersions

FORMAT = "stretrieve-reference"
FORMAT_VERSION = 1
CALIBRATION = "calibration"
_CHECKSUM = "sha256"
_LIBRARIES = (
    "anndata", "faiss-cpu", "faiss-gpu", "lancedb", "numpy", "open_clip_torch", "pyarrow", "scipy",
    "stretrieve", "timm", "torch",
)  # fmt: skip


@dataclass(frozen=True)
class IndexEntry:
    """One modality's derived files.

    Parameters
    ----------
    recipe
        Name of the index recipe.
    settings
        The recipe's settings.
    reason
        Why the recipe was chosen.
    vectors_sha256
        SHA-256 of the file of stored vectors in canonical order.
    index_sha256
        SHA-256 of the FAISS file; empty when the recipe has none.
    recall
        Measured recall at ``recall_k`` against the exact index.
    queries_per_second
        Measured in one batch when the index was built.
    recall_k
        Neighbours that were compared.
    """

    recipe: str
    settings: Mapping[str, Any]
    reason: str
    vectors_sha256: str
    index_sha256: str = ""
    recall: float = 1.0
    queries_per_second: float = 0.0
    recall_k: int = 0


@dataclass(frozen=True)
class Manifest:
    """One version of a reference.

    Parameters
    ----------
    reference_id
        Name of the reference for results: the start of its first content digest.
    version
        1 for the build, one more for every change.
    created
        Time of this version, UTC, ISO 8601.
    change
        What made this version, in words.
    settings
        Settings of the build.
    embedder
        ``name``, ``config``, ``dim``, ``patch_spec``, ``gene_names`` and ``files`` (name to SHA-256).
    store
        ``uri`` of the LanceDB database, ``tables`` (name to version) and ``files`` (local only: path
        to size and SHA-256).
    sections
        Metadata, number of spots and digest of every section.
    genes
        ``n`` and ``digest`` of the genes table.
    content_digest
        SHA-256 over all rows in canonical order.
    spots_sha256
        SHA-256 of the derived file of spots in canonical order.
    indexes
        Derived files of each modality.
    calibration
        Filled by calibration; ``None`` before.
    libraries
        Versions of what it was made with.
    embedders
        Further embedders by label: what ``embedder`` says, and their own ``calibration``.
    """

    reference_id: str
    version: int
    created: str
    change: str
    settings: Mapping[str, Any]
    embedder: Mapping[str, Any]
    store: Mapping[str, Any]
    sections: tuple[Mapping[str, Any], ...]
    genes: Mapping[str, Any]
    content_digest: str
    spots_sha256: str = ""
    indexes: Mapping[str, IndexEntry] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    embedders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def seen_by(self, label: str) -> Manifest:
        """Return the manifest as one of the embedders sees it, with its own facts and calibration.

        Raises
        ------
        ConfigError
            When there is no embedder of that label.
        """
        if not label:
            return self
        if label not in self.embedders:
            raise ConfigError(
                explain(
                    "embedder",
                    got=repr(label),
                    expected=f"one of {', '.join(sorted(self.embedders)) or 'none but its own'}",
                )
            )
        entry = dict(self.embedders[label])
        calibration = entry.pop(CALIBRATION, None)
        return replace(self, embedder=entry, calibration=calibration)

    @property
    def table_versions(self) -> TableVersions:
        """Versions of the LanceDB tables."""
        return TableVersions(**self.store["tables"])

    @property
    def n_spots(self) -> int:
        """Number of spots."""
        return sum(int(section["n_spots"]) for section in self.sections)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, its own checksum included."""
        data = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        data["sections"] = list(data["sections"])
        return {**data, _CHECKSUM: sha256_text(canonical_json(data))}

    def write(self, path: Path) -> None:
        """Write the manifest in one step."""
        crash_point(f"write {path.name}")
        write_json(path, self.to_dict())
        crash_point(f"wrote {path.name}")


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check it.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ReferenceNotFoundError
        When there is none.
    ManifestError
        When it is damaged, or of a format version that this release does not read.
    """
    if not path.is_file():
        raise ReferenceNotFoundError(
            explain("reference", got=f"no {path.name} in {path.parent}", expected="a reference")
        )
    text = _text(path)
    data = _parse(path, text)
    _check_format(path, data)
    if text != indented_json(data):
        raise _damaged(path, "text that is not laid out as it was written")
    stored = data.pop(_CHECKSUM, None)
    if stored != sha256_text(canonical_json(data)):
        raise _damaged(path, "a file that fails its own checksum")
    known = {f.name for f in fields(Manifest)}
    try:
        values = {name: value for name, value in data.items() if name in known}
        values["sections"] = tuple(values["sections"])
        values["indexes"] = {k: IndexEntry(**v) for k, v in values["indexes"].items()}
        return Manifest(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"missing or unknown fields ({error})") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, "bytes that are not UTF-8") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _damaged(path, "text that is not JSON") from error
    if not isinstance(data, dict):
        raise _damaged(path, "JSON that is not an object")
    return data


def _check_format(path: Path, data: Mapping[str, Any]) -> None:
    if data.get("format") != FORMAT:
        raise _damaged(path, f"format {data.get('format')!r}")
    found = data.get("format_version")
    if found != FORMAT_VERSION:
        raise ManifestError(
            explain(
                f"manifest {path}",
                got=f"format version {found}",
                expected=f"{FORMAT_VERSION}",
                remedy="open it with the release of stretrieve that wrote it, or build it again",
            )
        )


def _damaged(path: Path, got: str) -> ManifestError:
    return ManifestError(
        explain(
            f"manifest {path}",
            got=got,
            remedy="restore it from a copy, or from the same version under versions/",
        )
    )


def section_entry(record: SectionRecord) -> dict[str, Any]:
    """Return what the manifest says about a section."""
    return {**record.facts(), "digest": record.digest}


def library_versions() -> dict[str, str]:
    """Return the versions of Python, stretrieve and the libraries that shape a reference."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
