"""Arrow schemas of the three tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from stretrieve import keys

if TYPE_CHECKING:
    import pyarrow as pa

ARRAY_X: Final = "array_x"
ARRAY_Y: Final = "array_y"
COUNTS_CHECKSUM: Final = "counts_checksum"
THUMBNAIL_CRC: Final = "thumbnail_crc"
GENE: Final = "gene"
GENE_INDEX: Final = "gene_index"
ALIASES: Final = "aliases"
N_SPOTS: Final = "n_spots"
N_GENES: Final = "n_genes"
MPP_X: Final = "mpp_x"
MPP_Y: Final = "mpp_y"
MPP_SOURCE: Final = "mpp_source"
REPAIRS: Final = "repairs"
MEASURED: Final = "measured"
MEASURED_CRC: Final = "measured_crc"
DIGESTS: Final = "digests"

META_COLUMNS: Final = (
    keys.SECTION,
    keys.PATIENT,
    keys.ORGAN,
    keys.SPECIES,
    keys.PLATFORM,
    keys.DISEASE,
)
POSITION_COLUMNS: Final = (keys.X, keys.Y, keys.X_UM, keys.Y_UM, ARRAY_X, ARRAY_Y)
EMBEDDING_TYPES: Final = ("float32", "float16")
PRIMARY_KEYS: Final = {
    keys.TABLE_SPOTS: keys.SPOT_UID,
    keys.TABLE_GENES: GENE_INDEX,
    keys.TABLE_SECTIONS: keys.SECTION,
}


def embedding_field(name: str, dim: int, dtype: str) -> pa.Field:
    """Return an embedding column; ``dtype`` is one of :data:`EMBEDDING_TYPES`."""
    import pyarrow as pa

    return pa.field(name, pa.list_(getattr(pa, dtype)(), dim))


def numpy_type(value_type: pa.DataType) -> str:
    """Return NumPy's little-endian name of the numbers in an embedding column."""
    return f"<f{value_type.bit_width // 8}"


def embedding_column(column: str, label: str) -> str:
    """Return where the embeddings of an embedder are: its own column when it has a label."""
    return f"{column}__{label}" if label else column


def spots_schema(dims: Mapping[str, int], dtypes: Mapping[str, str] | None = None) -> pa.Schema:
    """Return the schema of the spots table.

    Parameters
    ----------
    dims
        Width of each embedding column.
    dtypes
        ``"float16"`` for those that are not ``"float32"``.
    """
    import pyarrow as pa

    text = [pa.field(name, pa.string()) for name in META_COLUMNS]
    positions = [pa.field(name, pa.float64()) for name in POSITION_COLUMNS]
    types = {"<f4": "float32", "<f2": "float16", **{name: name for name in EMBEDDING_TYPES}}
    vectors = [
        embedding_field(name, dim, types[(dtypes or {}).get(name, "float32")])
        for name, dim in dims.items()
    ]
    return pa.schema(
        [
            pa.field(keys.SPOT_UID, pa.string(), nullable=False),
            *text,
            *positions,
            pa.field(keys.LIBRARY_SIZE, pa.int64()),
            pa.field(keys.GENE_INDICES, pa.list_(pa.int32())),
            pa.field(keys.GENE_COUNTS, pa.list_(pa.int32())),
            pa.field(COUNTS_CHECKSUM, pa.uint64()),
            *vectors,
            pa.field(keys.THUMBNAIL, pa.binary()),
            pa.field(THUMBNAIL_CRC, pa.uint32()),
        ]
    )


def genes_schema() -> pa.Schema:
    """Return the schema of the genes table; ``gene_index`` is what the spots' counts refer to."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(GENE_INDEX, pa.int32(), nullable=False),
            pa.field(GENE, pa.string(), nullable=False),
            pa.field(keys.GENE_ID, pa.string()),
            pa.field(keys.GENE_SYMBOL, pa.string()),
            pa.field(ALIASES, pa.list_(pa.string())),
        ]
    )


def sections_schema() -> pa.Schema:
    """Return the schema of the sections table; ``measured`` is a bit a gene index, little-endian."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(keys.SECTION, pa.string(), nullable=False),
            *(pa.field(name, pa.string()) for name in META_COLUMNS[1:]),
            pa.field(N_SPOTS, pa.int64()),
            pa.field(N_GENES, pa.int64()),
            pa.field(MPP_X, pa.float64()),
            pa.field(MPP_Y, pa.float64()),
            pa.field(MPP_SOURCE, pa.string()),
            pa.field(REPAIRS, pa.list_(pa.string())),
            pa.field(MEASURED, pa.binary()),
            pa.field(MEASURED_CRC, pa.uint32()),
            pa.field(DIGESTS, pa.string()),
        ]
    )
