"""Every name that is written into AnnData, LanceDB or a manifest."""

from __future__ import annotations

from typing import Final

# AnnData: the output contract (docs/output.md)
SPATIAL: Final = "spatial"
JOINT: Final = "X_stretrieve"
SMOOTHED: Final = "X_stretrieve_smoothed"
NEIGHBOURS: Final = "stretrieve_neighbours"
WEIGHTS: Final = "stretrieve_weights"
UNS: Final = "stretrieve"
SPREAD: Final = "spread"
N_EFFECTIVE: Final = "n_effective"
LOWER: Final = "lower"
UPPER: Final = "upper"
X_UM: Final = "x_um"
Y_UM: Final = "y_um"
TISSUE_FRACTION: Final = "tissue_fraction"
TOP1_SIMILARITY: Final = "top1_similarity"
MEAN_SIMILARITY: Final = "mean_similarity"
OOD_SCORE: Final = "ood_score"
STATUS: Final = "status"
GENE_ID: Final = "gene_id"
GENE_SYMBOL: Final = "gene_symbol"
REFERENCE_COVERAGE: Final = "reference_coverage"
EXPECTED_PCC: Final = "expected_pcc"

# LanceDB: tables and columns
TABLE_SPOTS: Final = "spots"
TABLE_GENES: Final = "genes"
TABLE_SECTIONS: Final = "sections"
SPOT_UID: Final = "spot_uid"
SECTION: Final = "section"
PATIENT: Final = "patient"
ORGAN: Final = "organ"
SPECIES: Final = "species"
PLATFORM: Final = "platform"
DISEASE: Final = "disease"
X: Final = "x"
Y: Final = "y"
LIBRARY_SIZE: Final = "library_size"
GENE_INDICES: Final = "gene_indices"
GENE_COUNTS: Final = "gene_counts"
IMAGE_EMBEDDING: Final = "image_embedding"
EXPRESSION_EMBEDDING: Final = "expression_embedding"
THUMBNAIL: Final = "thumbnail"

# Reference on disk
MANIFEST: Final = "manifest.json"
LANCE: Final = "lance"
EMBEDDER: Final = "embedder"
INDEXES: Final = "indexes"

# Scale of every prediction
NORMALISATION: Final = "log1p_cp10k"
CP10K: Final = 1e4
