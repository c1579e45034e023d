"""A reference: measured spots, their embeddings, and the search among them."""

from stretrieve.reference.build import assist_build, build_reference
from stretrieve.reference.changes import (
    add_sections,
    rebuild_indexes,
    remove_sections,
    set_calibration,
    tag_version,
)
from stretrieve.reference.compact import compact_reference
from stretrieve.reference.further import FurtherSettings, add_embedder, remove_embedder
from stretrieve.reference.history import list_versions
from stretrieve.reference.manifest import Manifest
from stretrieve.reference.reference import Reference
from stretrieve.reference.settings import BuildSettings
from stretrieve.reference.transfer import export_reference, import_reference
from stretrieve.reference.verify import verify_reference

__all__ = [
    "BuildSettings",
    "FurtherSettings",
    "Manifest",
    "Reference",
    "add_embedder",
    "add_sections",
    "assist_build",
    "build_reference",
    "compact_reference",
    "export_reference",
    "import_reference",
    "list_versions",
    "rebuild_indexes",
    "remove_embedder",
    "remove_sections",
    "set_calibration",
    "tag_version",
    "verify_reference",
]
