"""Legacy Spatial Transcriptomics: HER2+ breast, cutaneous squamous cell carcinoma, STNet (M2OST)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stretrieve.errors import InputError, explain
from stretrieve.evaluation.recipes.base import Entry, Files, Found, Recipe, complete, gather

HER2_SECTIONS: Final = {letter: 6 if letter in "ABCD" else 3 for letter in "ABCDEFGH"}
CSCC_PATIENTS: Final = ("P2", "P5", "P9", "P10")
CSCC_REPLICATES: Final = ("1", "2", "3")
_CSCC_FIRST_GSM: Final = 4284316
_JPEG: Final = (".jpg", ".jpeg")
_METADATA: Final = (
    "type",
    "replicate",
    "patient",
    "count_matrix",
    "histology_image",
    "spot_coordinates",
)
_BREAST: Final = {"organ": "breast", "species": "human", "platform": "st", "format": "st"}
_SKIN: Final = {
    "organ": "skin",
    "species": "human",
    "platform": "st",
    "disease": "squamous cell carcinoma",
    "format": "st",
}
_M2OST: Final = (
    "M2OST: random slides (70 % train, 30 % test, seed 1553, in the published script; 60/10/30 in the "
    "paper), so sections of one patient are on both sides. 250 genes drawn at random from the "
    "intersection over all slides, test included, of each slide's 1,500 most variable; counts of these "
    "250 per million, log1p. The epoch is chosen on the test slides. Score: correlation over genes in "
    "each spot."
)


def find_her2st(folder: Path) -> Found:
    """Find the 36 sections, as on GitHub (almaan/her2st) or in the Zenodo archives."""
    files = Files.under(folder)
    parts: dict[str, Entry | str] = {}
    for patient, n in HER2_SECTIONS.items():
        for section in (f"{patient}{i}" for i in range(1, n + 1)):
            parts[section] = complete(
                section,
                patient,
                image=_her2st_image(folder, files, section),
                counts=files.one(
                    f"{section}.tsv.gz", f"{section}.tsv", inside=("ST-cnts", "count-matrices")
                ),
                spots=files.one(f"{section}_selection.tsv", f"{section}_selection.tsv.gz"),
                wants=f"{section}.tsv(.gz) with {section}_selection.tsv",
            )
    return gather(parts)


def _her2st_image(folder: Path, files: Files, section: str) -> Path | str:
    inside = sorted(folder.rglob(f"ST-imgs/{section[0]}/{section}/*.jp*g"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        return f"{len(inside)} images in {inside[0].parent}"
    return files.image(section, endings=_JPEG)


def find_cscc(folder: Path) -> Found:
    """Find the twelve sections of patients 2, 5, 9 and 10, named as in GEO with or without the GSM."""
    files = Files.under(folder)
    parts: dict[str, Entry | str] = {}
    number = _CSCC_FIRST_GSM
    for patient in CSCC_PATIENTS:
        for replicate in CSCC_REPLICATES:
            section = f"{patient}_ST_rep{replicate}"
            sample = f"GSM{number}"
            parts[section] = complete(
                section,
                patient,
                image=files.image(section, f"{sample}_{section}", endings=_JPEG),
                counts=files.one(*_tables(sample, f"{section}_stdata.tsv")),
                spots=files.one(*_tables(sample, f"spot_data-selection-{section}.tsv")),
                wants=f"{section}_stdata.tsv(.gz) with spot_data-selection-{section}.tsv(.gz)",
            )
            number += 1
    return gather(parts)


def _tables(sample: str, name: str) -> Iterator[str]:
    for prefix in (f"{sample}_", ""):
        yield f"{prefix}{name}.gz"
        yield f"{prefix}{name}"


def find_stnet(folder: Path) -> Found:
    """Find the sections by ``metadata.csv`` (Mendeley), or by folders (spatialtranscriptomicsresearch).

    Raises
    ------
    InputError
        When ``metadata.csv`` lacks a column.
    """
    files = Files.under(folder)
    metadata = files.one("metadata.csv")
    if metadata is None:
        return _stnet_folders(folder, files)
    parts: dict[str, Entry | str] = {}
    for row in _metadata(metadata):
        section = f"{row['patient']}_{row['replicate']}"
        if section in parts:
            raise InputError(explain(metadata.name, got=f"section {section} twice"))
        parts[section] = complete(
            section,
            row["patient"],
            image=files.image(Path(row["histology_image"]).stem, endings=_JPEG),
            counts=files.one(*_packed_or_not(row["count_matrix"])),
            spots=files.one(*_packed_or_not(row["spot_coordinates"])),
            wants=f"{row['count_matrix']} with {row['spot_coordinates']}",
            disease=_subtype(row["type"]),
        )
    return gather(parts)


def _metadata(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in _METADATA if name not in (reader.fieldnames or ())]
        if lacking:
            raise InputError(
                explain(path.name, got=f"no column {lacking[0]!r}", expected=", ".join(_METADATA))
            )
        rows = [{name: (row[name] or "").strip() for name in _METADATA} for row in reader]
    for row in rows:
        if not row["patient"] or not row["replicate"]:
            raise InputError(explain(path.name, got="a row without patient or replicate"))
    return rows


def _packed_or_not(name: str) -> tuple[str, str]:
    plain = Path(name).name.removesuffix(".gz")
    return f"{plain}.gz", plain


def _stnet_folders(folder: Path, files: Files) -> Found:
    parts: dict[str, Entry | str] = {}
    for image in sorted(folder.rglob("*/*/*_*.jpg")):
        name = re.fullmatch(r"(BC\d+)_([A-Z]\d)", image.stem)
        if name is None or image.parent.name != name[1]:
            continue
        parts[image.stem] = complete(
            image.stem,
            name[1],
            image=image,
            counts=files.one(f"{image.stem}.tsv.gz", f"{image.stem}.tsv"),
            spots=files.one(f"{image.stem}.spots.txt"),
            wants=f"{image.stem}.tsv.gz with {image.stem}.spots.txt",
            disease=_subtype(image.parent.parent.name),
        )
    return gather(parts)


def _subtype(text: str) -> str:
    return f"breast cancer {text.replace('_', ' ').lower()}".strip()


HER2ST: Final = Recipe(
    name="her2st",
    title="HER2+ breast cancer, legacy ST, 36 sections of 8 patients",
    source="https://github.com/almaan/her2st or https://zenodo.org/records/4751624",
    columns={**_BREAST, "disease": "her2+ breast cancer"},
    published=_M2OST,
    ours="Leave-one-patient-out over A to H; the letter of a section is its patient. Raw log1p CP10k "
    "over all genes; genes from the training patients.",
    evaluate="",
    find=find_her2st,
)

CSCC: Final = Recipe(
    name="cscc",
    title="cutaneous squamous cell carcinoma, legacy ST, 12 sections of 4 patients (GSE144240)",
    source="https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE144239",
    columns=_SKIN,
    published=_M2OST,
    ours="Leave-one-patient-out over P2, P5, P9 and P10. Raw log1p CP10k over all genes; genes from the "
    "training patients.",
    evaluate="",
    find=find_cscc,
)

STNET: Final = Recipe(
    name="stnet",
    title="breast cancer (HBC, STNet), legacy ST, 68 sections of 23 patients",
    source="https://data.mendeley.com/datasets/29ntw7sh4r",
    columns={**_BREAST, "disease": "breast cancer"},
    published=f"{_M2OST} (STNet itself left out one patient at a time.)",
    ours="Leave-one-patient-out over the 23 patients of metadata.csv. Raw log1p CP10k over all genes; "
    "genes from the training patients.",
    evaluate="",
    find=find_stnet,
)
