"""Measured sections: samplesheet, readers, validation, gene identity, normalisation."""

from stretrieve.spots.assemble import detect_format, read_section
from stretrieve.spots.formats import READERS
from stretrieve.spots.normalise import log_cp10k
from stretrieve.spots.positions import read_spot_positions
from stretrieve.spots.row import SheetRow
from stretrieve.spots.section import Section, SectionMeta
from stretrieve.spots.sheet import read_sheet
from stretrieve.spots.variable_genes import highly_variable_genes

__all__ = [
    "READERS",
    "Section",
    "SectionMeta",
    "SheetRow",
    "detect_format",
    "highly_variable_genes",
    "log_cp10k",
    "read_section",
    "read_sheet",
    "read_spot_positions",
]
