"""Write a simulated section as real files: a tiled pyramid and a Space Ranger folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve._files import atomic_path, write_json
from stretrieve.errors import OutputExistsError, explain
from stretrieve.simulation.section import SimulatedSection
from stretrieve.simulation.settings import SPOT_UM

TILE_PX = 256
HIRES_PX = 1000
LOWRES_PX = 300
_MIN_LEVEL_PX = 512
_FIDUCIAL_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class WrittenSection:
    """Where the files of a written section are.

    Parameters
    ----------
    image
        Pyramidal tiled TIFF with its resolution, opened by OpenSlide as ``generic-tiff``.
    counts
        ``filtered_feature_bc_matrix.h5`` in the layout of Space Ranger 3.
    outs
        The Space Ranger style folder that holds counts and ``spatial/``.
    positions
        ``tissue_positions.csv`` with a header, all spots of the capture area.
    """

    image: Path
    counts: Path
    outs: Path
    positions: Path


def write_section(section: SimulatedSection, folder: Path) -> WrittenSection:
    """Write picture, counts and positions of a simulated section.

    Parameters
    ----------
    section
        The section.
    folder
        New folder; it appears complete or not at all.

    Raises
    ------
    OutputExistsError
        When ``folder`` is already there.
    """
    if folder.exists():
        raise OutputExistsError(
            explain(f"folder {folder}", got="an existing path", remedy="give another folder")
        )
    with atomic_path(folder) as temporary:
        spatial = temporary / "outs" / "spatial"
        spatial.mkdir(parents=True)
        write_pyramid(section.image, temporary / "slide.tiff", mpp=section.section.pixel_size.mean)
        write_10x_h5(section, temporary / "outs" / "filtered_feature_bc_matrix.h5")
        _write_positions(section, spatial / "tissue_positions.csv")
        _write_images(section, spatial)
    outs = folder / "outs"
    return WrittenSection(
        image=folder / "slide.tiff",
        counts=outs / "filtered_feature_bc_matrix.h5",
        outs=outs,
        positions=outs / "spatial" / "tissue_positions.csv",
    )


def write_pyramid(image: npt.NDArray[np.uint8], path: Path, *, mpp: float) -> None:
    """Write a tiled pyramid that OpenSlide opens, with its resolution in the TIFF tags.

    Parameters
    ----------
    image
        ``(height, width, 3)`` uint8 RGB, level 0.
    path
        The file; it appears complete or not at all.
    mpp
        Microns per level-0 pixel.
    """
    from tifffile import TiffWriter

    with atomic_path(path) as temporary, TiffWriter(temporary, bigtiff=False) as writer:
        for level, pixels in enumerate(_levels(image)):
            factor = image.shape[1] / pixels.shape[1]
            writer.write(
                pixels,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression="zlib",
                compressionargs={"level": 1},
                subfiletype=1 if level else 0,
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                metadata=None,
                software="stretrieve simulation",
                description="Simulated tissue; not a real specimen" if level == 0 else None,
            )


def _levels(image: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the image and its halvings (2 x 2 means) down to about a thumbnail."""
    while True:
        yield image
        if min(image.shape[:2]) < 2 * _MIN_LEVEL_PX:
            return
        height, width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * height, : 2 * width].astype(np.uint16)
        total = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
        image = ((total + 2) // 4).astype(np.uint8)


def write_10x_h5(section: SimulatedSection, path: Path) -> None:
    """Write counts in the HDF5 layout of Space Ranger 3: genes x barcodes, compressed columns.

    Parameters
    ----------
    section
        The section.
    path
        The file; it appears complete or not at all.
    """
    import h5py

    counts = section.section.counts.tocsr()  # CSR of spots x genes = CSC of genes x spots
    symbols = section.section.gene_names
    columns = {
        "id": symbols,
        "name": symbols,
        "feature_type": ["Gene Expression"] * len(symbols),
        "genome": ["simulated"] * len(symbols),
        "_all_tag_keys": ["genome"],
    }
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["software_version"] = "stretrieve simulation"
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.asarray(section.section.spot_ids, dtype="S")
        matrix["shape"] = np.asarray(counts.shape[::-1], dtype=np.int32)
        matrix.create_dataset("data", data=counts.data.astype(np.int32), compression="gzip")
        matrix.create_dataset("indices", data=counts.indices.astype(np.int64), compression="gzip")
        matrix["indptr"] = counts.indptr.astype(np.int64)
        features = matrix.create_group("features")
        for name, values in columns.items():
            features[name] = np.asarray(values, dtype="S")


def _write_positions(section: SimulatedSection, path: Path) -> None:
    pixels = np.rint(section.grid.xy_um / section.section.pixel_size.mean).astype(int)
    table = pd.DataFrame(
        {
            "barcode": section.barcodes,
            "in_tissue": section.grid.in_tissue.astype(int),
            "array_row": section.grid.array_xy[:, 1],
            "array_col": section.grid.array_xy[:, 0],
            "pxl_row_in_fullres": pixels[:, 1],
            "pxl_col_in_fullres": pixels[:, 0],
        }
    )
    table.to_csv(path, index=False)


def _write_images(section: SimulatedSection, folder: Path) -> None:
    from PIL import Image

    height, width = section.image.shape[:2]
    mpp = section.section.pixel_size.mean
    scales = {}
    for name, side in (("hires", HIRES_PX), ("lowres", LOWRES_PX)):
        scales[name] = min(1.0, side / max(width, height))
        size = (round(width * scales[name]), round(height * scales[name]))
        picture = Image.fromarray(section.image).resize(size, Image.Resampling.BOX)
        picture.save(folder / f"tissue_{name}_image.png")
    write_json(
        folder / "scalefactors_json.json",
        {
            "tissue_hires_scalef": scales["hires"],
            "tissue_lowres_scalef": scales["lowres"],
            "spot_diameter_fullres": SPOT_UM / mpp,
            "fiducial_diameter_fullres": SPOT_UM * _FIDUCIAL_RATIO / mpp,
        },
    )
