"""Small folders laid out and named like the public downloads."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tests.spots.layouts import IDS, Toy, positions, st_grid, toy, write_h5, write_mtx

STNET_PATIENTS = {"BC23209": "Luminal_B", "BC23287": "HER2_luminal", "BC23803": "TNBC"}


def picture(path: Path, side: int = 2600) -> None:
    """Write a blank image that every spot of the toys lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), "white").save(
        path, format="TIFF" if "tif" in path.name else None
    )


def headerless(path: Path, section: Toy) -> None:
    """Write tissue positions as Space Ranger 1 did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = (
        positions(section).round().astype({"pxl_row_in_fullres": int, "pxl_col_in_fullres": int})
    )
    table.to_csv(path, header=False, index=False)


def liver_shared(folder: Path) -> None:
    """The BLEEP authors' matrices with GEO's images, unpacked."""
    for number, name in enumerate(("A1", "B1", "C1", "D1"), start=1):
        section = toy(seed=number)
        data = folder / "GSE240429_data" / "data"
        write_mtx(data / "filtered_expression_matrices" / str(number), section, zipped=False)
        headerless(data / "tissue_pos_matrices" / f"tissue_positions_list_{number}.csv", section)
        sample = 7697867 + number
        picture(folder / "image" / f"GSM{sample}_GEX_C73_{name}_Merged.tiff")


def liver_geo(folder: Path) -> None:
    """Everything from GEO in one flat folder."""
    for number, name in enumerate(("A1", "B1", "C1", "D1")):
        section, sample = toy(seed=number), f"GSM{7697868 + number}"
        write_mtx(folder, section, prefix=f"{sample}_C73{name}_")
        headerless(folder / f"{sample}_C73{name}_tissue_positions_list.csv", section)
        picture(folder / f"{sample}_GEX_C73_{name}_Merged.tiff")


def dlpfc(folder: Path) -> None:
    """HumanPilot beside the files that spatialLIBD links to."""
    sections = [*range(151507, 151511), *range(151669, 151677)]
    for number in sections:
        section = toy(seed=number)
        write_h5(folder / "h5" / f"{number}_filtered_feature_bc_matrix.h5", section)
        headerless(
            folder / "HumanPilot" / "10X" / str(number) / "tissue_positions_list.txt", section
        )
        picture(folder / "images" / f"{number}_full_image.tif")


def st_table(path: Path, seed: int) -> None:
    """Write counts, spots in rows."""
    array, _, counts = st_grid(seed=seed)
    names = [f"{int(x)}x{int(y)}" for x, y in array]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(counts, index=names, columns=IDS).to_csv(path, sep="\t")


def selection(path: Path) -> None:
    """Write a table of selected spots."""
    array, xy, _ = st_grid()
    table = pd.DataFrame({"x": array[:, 0].astype(int), "y": array[:, 1].astype(int)})
    table["new_x"], table["new_y"] = array[:, 0] + 0.01, array[:, 1] - 0.01
    table["pixel_x"], table["pixel_y"], table["selected"] = xy[:, 0], xy[:, 1], 1
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep="\t", index=False)


def her2_names() -> list[str]:
    return [f"{p}{i}" for p in "ABCDEFGH" for i in range(1, 7 if p in "ABCD" else 4)]


def her2st_github(folder: Path) -> None:
    """The repository almaan/her2st; annotations of the same name lie beside the counts."""
    for seed, name in enumerate(her2_names()):
        st_table(folder / "data" / "ST-cnts" / f"{name}.tsv.gz", seed)
        st_table(folder / "res" / "elsewhere" / f"{name}.tsv.gz", seed)
        selection(folder / "data" / "ST-spotfiles" / f"{name}_selection.tsv")
        picture(folder / "data" / "ST-imgs" / name[0] / name / f"HE_BT{seed}.jpg", 600)


def her2st_zenodo(folder: Path) -> None:
    """The three Zenodo archives, unpacked."""
    for seed, name in enumerate(her2_names()):
        st_table(folder / "count-matrices" / f"{name}.tsv.gz", seed)
        selection(folder / "spot-selection" / f"{name}_selection.tsv.gz")
        picture(folder / "images" / "HE" / f"{name}.jpg", 600)


def cscc(folder: Path, *, packed: bool = False) -> None:
    """The ST files of GSE144239, images unpacked or as they came."""
    number = 4284316
    for patient in ("P2", "P5", "P9", "P10"):
        for replicate in (1, 2, 3):
            name = f"{patient}_ST_rep{replicate}"
            st_table(folder / f"GSM{number}_{name}_stdata.tsv.gz", number)
            selection(folder / f"GSM{number}_spot_data-selection-{name}.tsv.gz")
            image = folder / f"GSM{number}_{name}.jpg"
            picture(image, 2600 if number == 4284316 else 300)
            if packed:
                Path(f"{image}.gz").write_bytes(gzip.compress(image.read_bytes()))
                image.unlink()
            number += 1


def xy_table(path: Path) -> None:
    """Write spots as STNet has them: "<x>x<y>", X, Y."""
    array, xy, _ = st_grid()
    names = [f"{int(x)}x{int(y)}" for x, y in array]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(np.round(xy, 2), index=names, columns=["X", "Y"]).to_csv(path)


def stnet_mendeley(folder: Path) -> None:
    """metadata.csv and flat files; image and spots of some patients are BT, not BC."""
    rows = []
    for seed, (patient, kind) in enumerate(STNET_PATIENTS.items()):
        for replicate in ("C1", "D1"):
            prefix = patient.replace("BC", "BT") if kind != "TNBC" else patient
            row = {
                "type": kind,
                "replicate": replicate,
                "patient": patient,
                "window": 224,
                "count_matrix": f"{patient}_{replicate}_stdata.tsv.gz",
                "histology_image": f"HE_{prefix}_{replicate}.jpg",
                "spot_coordinates": f"spots_{prefix}_{replicate}.csv.gz",
                "tumor_annotation": f"{patient}_{replicate}_Coords.tsv.gz",
            }
            st_table(folder / row["count_matrix"], seed)
            xy_table(folder / row["spot_coordinates"])
            picture(folder / row["histology_image"])
            rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


def stnet_folders(folder: Path) -> None:
    """The older layout: subtype/patient/patient_section.*."""
    for seed, (patient, kind) in enumerate(STNET_PATIENTS.items()):
        stem = folder / kind / patient / f"{patient}_C1"
        st_table(stem.with_name(f"{stem.name}.tsv.gz"), seed)
        xy_table(stem.with_name(f"{stem.name}.spots.txt"))
        picture(stem.with_name(f"{stem.name}.jpg"))
