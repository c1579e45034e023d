"""Writers of sections in the layouts that vendors document, all of one small made-up section."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy import sparse

IDS = ["ENSG00000141736", "ENSG00000186081", "ENSG00000156508", "ENSG00000075624"]
SYMBOLS = ["ERBB2", "KRT5", "EEF1A1", "ACTB"]
MPP = 0.5


@dataclass(frozen=True)
class Toy:
    """Spots on a hexagonal grid; x and y are never alike."""

    barcodes: list[str]
    array: np.ndarray  # (n, 2) column, row
    xy: np.ndarray  # (n, 2) px
    under: np.ndarray  # (n,) bool
    counts: np.ndarray  # (n, 4)


def toy(*, n_rows: int = 6, n_columns: int = 10, seed: int = 0) -> Toy:
    """Return a Visium-like section: 100 µm hexagons, the outer columns off the tissue."""
    rng = np.random.default_rng(seed)
    array = np.array([(2 * c + r % 2, r) for r in range(n_rows) for c in range(n_columns)])
    um = array * (50.0, 50.0 * np.sqrt(3))
    xy = um / MPP + (700.0, 300.0)
    letters = np.array(list("ACGT"))
    names = ["".join(letters[rng.integers(0, 4, 16)]) + "-1" for _ in array]
    under = (array[:, 0] > 2) & (array[:, 0] < 2 * n_columns - 3)
    counts = rng.poisson(4.0, size=(len(array), 4)) + 1
    return Toy(names, array.astype(float), xy, under, counts)


def write_h5(
    path: Path, section: Toy, *, rows: np.ndarray | None = None, kinds: list[str] | None = None
) -> None:
    """Write a 10x matrix, version 3."""
    rows = section.under if rows is None else rows
    matrix = sparse.csr_matrix(section.counts[rows])
    names = [n for n, kept in zip(section.barcodes, rows, strict=True) if kept]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S")
        group["data"] = matrix.data.astype(np.int32)
        group["indices"] = matrix.indices.astype(np.int64)
        group["indptr"] = matrix.indptr.astype(np.int64)
        group["shape"] = np.array([len(IDS), len(names)], dtype=np.int32)
        features = group.create_group("features")
        features["id"] = np.array(IDS, dtype="S")
        features["name"] = np.array(SYMBOLS, dtype="S")
        features["feature_type"] = np.array(kinds or ["Gene Expression"] * len(IDS), dtype="S")
        features["genome"] = np.array(["GRCh38"] * len(IDS), dtype="S")


def write_mtx(
    folder: Path, section: Toy, *, prefix: str = "", zipped: bool = True, old: bool = False
) -> None:
    """Write the folder of three text files."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = sparse.coo_matrix(section.counts[section.under].T)
    lines = ["%%MatrixMarket matrix coordinate integer general", "%made up"]
    lines.append(f"{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}")
    lines += [
        f"{r + 1} {c + 1} {v}" for r, c, v in zip(matrix.row, matrix.col, matrix.data, strict=True)
    ]
    features = [
        f"{i}\t{s}" + ("" if old else "\tGene Expression")
        for i, s in zip(IDS, SYMBOLS, strict=True)
    ]
    barcodes = [n for n, kept in zip(section.barcodes, section.under, strict=True) if kept]
    for name, content in (
        ("matrix.mtx", lines),
        ("genes.tsv" if old else "features.tsv", features),
        ("barcodes.tsv", barcodes),
    ):
        text = ("\n".join(content) + "\n").encode()
        path = folder / f"{prefix}{name}{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(text, mtime=0) if zipped else text)


def positions(section: Toy) -> pd.DataFrame:
    """Return the positions table of Space Ranger."""
    return pd.DataFrame(
        {
            "barcode": section.barcodes,
            "in_tissue": section.under.astype(int),
            "array_row": section.array[:, 1].astype(int),
            "array_col": section.array[:, 0].astype(int),
            "pxl_row_in_fullres": section.xy[:, 1],
            "pxl_col_in_fullres": section.xy[:, 0],
        }
    )


def write_spatial(
    folder: Path, section: Toy, *, generation: int = 2, prefix: str = "", **scales: float
) -> None:
    """Write ``spatial/`` of Space Ranger 1 (no header), 2 (header) or HD (parquet)."""
    folder.mkdir(parents=True, exist_ok=True)
    table = positions(section)
    if generation == 1:
        table.to_csv(folder / f"{prefix}tissue_positions_list.csv", header=False, index=False)
    elif generation == 2:
        table.to_csv(folder / f"{prefix}tissue_positions.csv", index=False)
    else:
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False), folder / "tissue_positions.parquet"
        )
    facts = {
        "tissue_hires_scalef": 0.25,
        "tissue_lowres_scalef": 0.05,
        "spot_diameter_fullres": 89.4,
        **scales,
    }
    (folder / f"{prefix}scalefactors_json.json").write_text(json.dumps(facts))


def write_st(
    folder: Path, array: np.ndarray, xy: np.ndarray, counts: np.ndarray
) -> tuple[Path, Path]:
    """Write a legacy ST section: counts.tsv and selection table."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{int(x)}x{int(y)}" for x, y in array]
    pd.DataFrame(counts, index=names, columns=SYMBOLS).to_csv(folder / "counts.tsv", sep="\t")
    table = pd.DataFrame({"x": array[:, 0].astype(int), "y": array[:, 1].astype(int)})
    table["new_x"], table["new_y"] = array[:, 0] + 0.01, array[:, 1] - 0.01
    table["pixel_x"], table["pixel_y"] = xy[:, 0], xy[:, 1]
    table["selected"] = 1
    table.to_csv(folder / "spots.tsv", sep="\t", index=False)
    return folder / "counts.tsv", folder / "spots.tsv"


def st_grid(
    n_columns: int = 8, n_rows: int = 6, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return array (n, 2), pixels at 1 µm/px (n, 2) and counts (n, 4) of a 1k-like section."""
    array = np.array(
        [(x, y) for x in range(3, 3 + n_columns) for y in range(5, 5 + n_rows)], dtype=float
    )
    counts = np.random.default_rng(seed).poisson(5.0, size=(len(array), 4)) + 1
    return array, array * 200.0, counts


def adata(section: Toy):
    """Return the spots under tissue as AnnData with Visium's conventions."""
    import anndata

    keep = section.under
    return anndata.AnnData(
        X=sparse.csr_matrix(section.counts[keep].astype(np.float32)),
        obs=pd.DataFrame(
            {
                "in_tissue": 1,
                "array_row": section.array[keep, 1].astype(int),
                "array_col": section.array[keep, 0].astype(int),
            },
            index=np.array(section.barcodes)[keep],
        ),
        var=pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS),
        obsm={"spatial": section.xy[keep]},
    )


def write_xenium(folder: Path, *, pixel_um: float = 0.2125) -> tuple[np.ndarray, np.ndarray]:
    """Write a Xenium bundle; return positions in µm (n, 2) and counts (n, 4) of its cells."""
    rng = np.random.default_rng(0)
    n_cells = 60
    um = rng.uniform(0, 400, size=(n_cells, 2)) * (1, 0.5)
    counts = rng.poisson(2.0, size=(n_cells, 4))
    matrix = sparse.csr_matrix(np.column_stack([counts, np.ones(n_cells, dtype=int)]))
    names = [f"cell{i}-1" for i in range(n_cells)]
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(names, dtype="S")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part).astype(np.int64)
        group["shape"] = np.array([5, n_cells])
        features = group.create_group("features")
        features["id"] = np.array([*IDS, "NegControlProbe_1"], dtype="S")
        features["name"] = np.array([*SYMBOLS, "NegControlProbe_1"], dtype="S")
        kinds = ["Gene Expression"] * 4 + ["Negative Control Probe"]
        features["feature_type"] = np.array(kinds, dtype="S")
    cells = pd.DataFrame({"cell_id": names, "x_centroid": um[:, 0], "y_centroid": um[:, 1]})
    cells = cells.iloc[rng.permutation(n_cells)]
    pq.write_table(pa.Table.from_pandas(cells, preserve_index=False), folder / "cells.parquet")
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": pixel_um}))
    np.savetxt(folder / "he_imagealignment.csv", np.eye(3), delimiter=",")
    return um, counts


def write_hest(folder: Path) -> None:
    """Write a HEST-1k root with one sample, TENX1."""
    for name in ("st", "metadata", "wsis", "patches"):
        (folder / name).mkdir()
    adata(toy()).write_h5ad(folder / "st" / "TENX1.h5ad")
    facts = {
        "id": "TENX1",
        "pixel_size_um_embedded": 0.9,
        "pixel_size_um_estimated": MPP,
        "species": "Homo sapiens",
        "organ": "Breast",
        "st_technology": "Visium",
        "disease_state": "Cancer",
        "dataset_title": "A study",
        "patient": "Patient 1",
    }
    (folder / "metadata" / "TENX1.json").write_text(json.dumps(facts))
    Image.new("RGB", (2500, 1300)).save(folder / "wsis" / "TENX1.tif")
