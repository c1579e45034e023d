"""Visium data sets: human liver (BLEEP) and dorsolateral prefrontal cortex (ST-GCHB)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stretrieve.evaluation.recipes.base import Entry, Files, Found, Recipe, complete, gather

LIVER_SECTIONS: Final = {"C73_A1": 1, "C73_B1": 2, "C73_C1": 3, "C73_D1": 4}
LIVER_PATIENT: Final = "C73"
_FIRST_GSM: Final = 7697868
_TIFF: Final = (".tif", ".tiff")

DLPFC_DONORS: Final = {
    "Br5292": ("151507", "151508", "151509", "151510"),
    "Br5595": ("151669", "151670", "151671", "151672"),
    "Br8100": ("151673", "151674", "151675", "151676"),
}


def find_liver(folder: Path) -> Found:
    """Find the four liver sections, as GEO has them or as the BLEEP authors share the matrices."""
    files = Files.under(folder)
    return gather({name: _liver_section(folder, files, name) for name in LIVER_SECTIONS})


def _liver_section(folder: Path, files: Files, name: str) -> Entry | str:
    number = LIVER_SECTIONS[name]
    sample = f"GSM{_FIRST_GSM + number - 1}"
    merged = f"GEX_{name}_Merged"
    image = files.image(merged, f"{sample}_{merged}", endings=_TIFF)
    counts, spots = _shared(folder, files, number)
    if counts is None or spots is None:
        counts, spots = _geo(files, sample)
    wants = (
        f"filtered_expression_matrices/{number}/matrix.mtx with tissue_positions_list_{number}.csv, "
        f"nor a matrix and positions of {sample}"
    )
    return complete(name, LIVER_PATIENT, image=image, counts=counts, spots=spots, wants=wants)


def _shared(folder: Path, files: Files, number: int) -> tuple[Path | None, Path | None]:
    matrices = sorted(folder.rglob(f"filtered_expression_matrices/{number}/matrix.mtx*"))
    positions = files.one(f"tissue_positions_list_{number}.csv")
    return (matrices[0].parent if len(matrices) == 1 else None), positions


def _geo(files: Files, sample: str) -> tuple[Path | None, Path | None]:
    mine = [name for name in files.by_name if name.startswith(f"{sample}_")]
    endings = ("filtered_feature_bc_matrix.h5", "matrix.mtx.gz", "matrix.mtx")
    counts = next((name for end in endings for name in mine if name.endswith(end)), None)
    spots = next((name for name in mine if "tissue_positions" in name), None)
    return (files.one(counts) if counts else None), (files.one(spots) if spots else None)


def find_dlpfc(folder: Path) -> Found:
    """Find the twelve cortex sections: matrices and images of spatialLIBD, positions of HumanPilot."""
    files = Files.under(folder)
    parts: dict[str, Entry | str] = {}
    for donor, sections in DLPFC_DONORS.items():
        for name in sections:
            parts[name] = complete(
                name,
                donor,
                image=files.image(f"{name}_full_image", endings=_TIFF),
                counts=files.one(f"{name}_filtered_feature_bc_matrix.h5"),
                spots=_positions(folder, files, name),
                wants=f"{name}_filtered_feature_bc_matrix.h5 with {name}/tissue_positions_list.txt",
            )
    return gather(parts)


def _positions(folder: Path, files: Files, name: str) -> Path | None:
    for kind in ("txt", "csv"):
        for inside in ("", "spatial/"):
            found = sorted(folder.rglob(f"{name}/{inside}tissue_positions_list.{kind}"))
            if len(found) == 1:
                return found[0]
    return files.one(f"{name}_tissue_positions_list.txt", f"{name}_tissue_positions_list.csv")


LIVER: Final = Recipe(
    name="liver",
    title="human liver, Visium, 4 sections of one donor (GSE240429)",
    source="https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE240429",
    columns={
        "organ": "liver",
        "species": "human",
        "platform": "visium",
        "disease": "healthy",
        "format": "visium",
    },
    published="BLEEP: C73_C1 predicted from A1, B1 and D1. 3,467 genes: union of the most variable of "
    "all four sections, after Harmony over all four; scored against Harmony-corrected values, on genes "
    "chosen by the test section. Validation on a random fifth of the spots.",
    ours="Raw log1p CP10k; genes, scalers and k from the training sections. All four sections are of "
    "donor C73, so only whole sections can be left out and every figure is optimistic, which is why "
    "the option has to be given and results say so.",
    evaluate="--leave-out section",
    find=find_liver,
)

DLPFC: Final = Recipe(
    name="dlpfc",
    title="dorsolateral prefrontal cortex, Visium, 12 sections of 3 donors",
    source="https://github.com/LieberInstitute/HumanPilot and the links in the README of spatialLIBD",
    columns={
        "organ": "brain",
        "species": "human",
        "platform": "visium",
        "disease": "healthy",
        "format": "visium",
    },
    published="ST-GCHB: section 151676 predicted from seven others (ten in the script), three of them "
    "of its own donor Br8100; 2,000 genes after Harmony, PCA of the training sections.",
    ours="Leave-one-donor-out over Br5292, Br5595 and Br8100: eight sections of two donors predict the "
    "four of the third. Raw log1p CP10k; genes from the training donors.",
    evaluate="",
    find=find_dlpfc,
)
