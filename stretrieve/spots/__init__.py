"""Measured sections: samplesheet, readers, validation, gene identity, normalisation."""

from stretrieve.spots.assemble import assemble, detect_format, read_section
from stretrieve.spots.formats import READERS
from stretrieve.spots.gene_files import compare_gene_files, read_gene_file
from stretrieve.spots.gene_overlap import GeneOverlap, check_overlap, compare_genes
from stretrieve.spots.gene_table import gene_table_info
from stretrieve.spots.genes import GeneIdentity, identify_genes
from stretrieve.spots.normalise import log_cp10k
from stretrieve.spots.positions import read_spot_positions
from stretrieve.spots.row import SheetRow, canonical_species
from stretrieve.spots.section import Section, SectionMeta
from stretrieve.spots.sheet import read_sheet
from stretrieve.spots.variable_genes import highly_variable_genes

__all__ = [
    "READERS",
    "GeneIdentity",
    "GeneOverlap",
    "Section",
    "SectionMeta",
    "SheetRow",
    "assemble",
    "canonical_species",
    "check_overlap",
    "compare_gene_files",
    "compare_genes",
    "detect_format",
    "gene_table_info",
    "highly_variable_genes",
    "identify_genes",
    "log_cp10k",
    "read_gene_file",
    "read_section",
    "read_sheet",
    "read_spot_positions",
]
