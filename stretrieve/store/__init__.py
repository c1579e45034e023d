"""The truth of a reference: LanceDB tables of spots, genes and sections."""

from stretrieve.store.filters import Equals, Filter, IsIn, Not
from stretrieve.store.records import GeneRecords, SectionRecord, SpotRows
from stretrieve.store.store import SpotStore, TableVersions, check_section_name

__all__ = [
    "Equals",
    "Filter",
    "GeneRecords",
    "IsIn",
    "Not",
    "SectionRecord",
    "SpotRows",
    "SpotStore",
    "TableVersions",
    "check_section_name",
]
