"""Search across references: patches, spots, sections and gene sets against measured spots."""

from __future__ import annotations

from stretrieve.query.search.hits import Hits
from stretrieve.query.search.pool import ReferencePool, embedder_digest
from stretrieve.query.search.queries import SpotQuery, section_of
from stretrieve.query.search.references import ReferenceSearch
from stretrieve.query.search.sections import MatchSettings, SectionMatches
from stretrieve.query.search.sides import Exclusion
from stretrieve.query.search.signature import SignatureScores, SignatureSettings

__all__ = [
    "Exclusion",
    "Hits",
    "MatchSettings",
    "ReferencePool",
    "ReferenceSearch",
    "SectionMatches",
    "SignatureScores",
    "SignatureSettings",
    "SpotQuery",
    "embedder_digest",
    "section_of",
]
