"""A reference: measured spots, their embeddings, and the search among them."""

from stretrieve.reference.build import build_reference
from stretrieve.reference.manifest import Manifest
from stretrieve.reference.reference import Reference
from stretrieve.reference.settings import BuildSettings

__all__ = ["BuildSettings", "Manifest", "Reference", "build_reference"]
