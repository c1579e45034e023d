"""Small made-up sections whose patches follow their expression; for tests only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve.embedders.base import SectionPatches
from stretrieve.slides.types import PatchBatch, PatchStatus
from stretrieve.specs import PatchSpec
from stretrieve.spots.section import Section, SectionMeta
from stretrieve.units import MppSource, PixelSize

_PITCH_UM: Final = 200.0
_MPP: Final = 0.5
_PROGRAMMES: Final = 3


def toy_section(
    spec: PatchSpec,
    *,
    section: str,
    patient: str,
    seed: int = 0,
    n_spots: int = 30,
    n_genes: int = 40,
) -> SectionPatches:
    """Return a section on a square grid; its patches are coloured by what its genes do.

    Parameters
    ----------
    spec
        Patches to make.
    section, patient
        Names.
    seed
        Of everything random.
    n_spots, n_genes
        Size.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    programmes = generator.dirichlet(np.ones(_PROGRAMMES), size=n_spots)
    loadings = np.random.Generator(np.random.PCG64(7)).gamma(0.5, 2.0, size=(_PROGRAMMES, n_genes))
    counts = generator.poisson(20 * programmes @ loadings + 0.1)
    names = pd.Index([f"G{i}" for i in range(n_genes)], name="gene")
    genes = pd.DataFrame({"gene_id": "", "gene_symbol": names}, index=names)
    side = int(np.ceil(np.sqrt(n_spots)))
    array_xy = np.stack([np.arange(n_spots) % side, np.arange(n_spots) // side], axis=1)
    measured = Section(
        meta=SectionMeta(section=section, patient=patient),
        counts=sparse.csr_matrix(counts.astype(np.int32)),
        genes=genes,
        spot_ids=np.array([f"s{i}" for i in range(n_spots)]),
        xy=((array_xy + 1) * _PITCH_UM / _MPP).astype(np.float64),
        array_xy=array_xy.astype(np.float64),
        pixel_size=PixelSize.square(_MPP, MppSource.GIVEN),
    )
    views = tuple(_patches(programmes, view.patch_px, generator=generator) for view in spec.views)
    return SectionPatches(measured, views)


def toy_sections(
    spec: PatchSpec, *, patients: Sequence[str] = ("a", "b", "b")
) -> list[SectionPatches]:
    """Return one toy section for each entry of ``patients``, named by their position."""
    return [
        toy_section(spec, section=f"s{i}", patient=patient, seed=i)
        for i, patient in enumerate(patients)
    ]


def toy_batch(patches: SectionPatches, rows: Sequence[int] | npt.NDArray[np.int64]) -> PatchBatch:
    """Return some rows of a section as the batch that a slide reader would give."""
    indices = np.asarray(rows, dtype=np.int64)
    return PatchBatch(
        views=tuple(np.ascontiguousarray(view[indices]) for view in patches.views),
        xy=patches.section.xy[indices],
        xy_um=patches.section.xy_um[indices],
        indices=indices,
        status=np.full(len(indices), PatchStatus.OK, dtype=np.uint8),
    )


def _patches(
    programmes: npt.NDArray[np.float64], patch_px: int, *, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    colours = np.array([[120, 60, 150], [225, 150, 190], [245, 235, 240]], dtype=np.float64)
    base = programmes @ colours
    grain = generator.normal(0, 1, size=(len(programmes), patch_px, patch_px, 1))
    texture = 30 * programmes[:, 0][:, None, None, None] * grain
    noisy = base[:, None, None, :] + texture
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)
