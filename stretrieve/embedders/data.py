"""Patches under the spots of a section, read once and kept on disk when asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path, canonical_json, sha256_text, write_json
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import SectionPatches
from stretrieve.errors import InputError, SectionError, explain
from stretrieve.slides import open_slide, read_patches
from stretrieve.slides.types import PatchStatus
from stretrieve.specs import PatchSpec
from stretrieve.spots.section import Section

Views = tuple[npt.NDArray[np.uint8], ...]


def collect_patches(
    section: Section,
    spec: PatchSpec,
    *,
    cache: Path | None = None,
    batch_size: int = 64,
    workers: int = 1,
    progress: Progress = SILENT,
) -> SectionPatches:
    """Read the patches under every spot of a section.

    Parameters
    ----------
    section
        The measurements; its image is read at its pixel size.
    spec
        Fields of view to read around each spot.
    cache
        Folder for decoded patches (memory-mapped ``.npy``, one file a view). What a complete
        earlier call left there for the same section, image and spec is used instead of decoding
        again.
    batch_size
        Patches read at a time.
    workers
        Processes or threads that decode ahead.
    progress
        Told of every patch.

    Returns
    -------
    SectionPatches
        With one array ``(n_spots, patch_px, patch_px, 3)`` uint8 a view.

    Raises
    ------
    SectionError
        When the section has no image.
    InputError
        When a patch cannot be read.
    """
    if section.image is None:
        raise SectionError(
            explain(f"section {section.meta.section!r}", got="no image", expected="an H&E image")
        )
    if cache is None:
        views = _allocate(section, spec)
        _fill(views, section, spec, batch_size=batch_size, workers=workers, progress=progress)
        return SectionPatches(section, views)
    folder = Path(cache) / f"{_safe(section.meta.section)}-{_key(section, spec)[:16]}"
    if not (folder / "complete.json").is_file():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            mapped = _allocate(section, spec, temporary)
            _fill(mapped, section, spec, batch_size=batch_size, workers=workers, progress=progress)
            for view in mapped:
                view.flush()  # type: ignore[attr-defined] # memory-mapped
            write_json(temporary / "complete.json", {"key": _key(section, spec)})
    paths = [folder / f"view{i}.npy" for i in range(len(spec.views))]
    return SectionPatches(section, tuple(np.load(path, mmap_mode="r") for path in paths))


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]


def _key(section: Section, spec: PatchSpec) -> str:
    """Return a digest of all that decides the pixels."""
    image = Path(str(section.image))
    stat = image.stat()
    facts: dict[str, Any] = {
        "image": [str(image.resolve()), stat.st_size, stat.st_mtime_ns],
        "pixel_size": [float(section.pixel_size.x), float(section.pixel_size.y)],
        "xy": sha256_text(repr(np.asarray(section.xy, dtype=np.float64).tolist())),
        "spec": spec.to_dict(),
    }
    return sha256_text(canonical_json(facts))


def _allocate(section: Section, spec: PatchSpec, folder: Path | None = None) -> Views:
    shapes = [(section.n_spots, view.patch_px, view.patch_px, 3) for view in spec.views]
    if folder is None or section.n_spots == 0:
        arrays = tuple(np.empty(shape, dtype=np.uint8) for shape in shapes)
        if folder is not None:
            for i, array in enumerate(arrays):
                np.save(folder / f"view{i}.npy", array)
        return arrays
    return tuple(
        np.lib.format.open_memmap(folder / f"view{i}.npy", "w+", dtype=np.uint8, shape=shape)
        for i, shape in enumerate(shapes)
    )


def _fill(
    views: Views,
    section: Section,
    spec: PatchSpec,
    *,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> None:
    label = f"patches of {section.meta.section}"
    failed = 0
    with (
        open_slide(str(section.image), pixel_size=section.pixel_size) as slide,
        progress.task(label, section.n_spots) as task,
    ):
        batches = read_patches(slide, section.xy, spec, batch_size=batch_size, workers=workers)
        for batch in batches:
            for view, patches in zip(views, batch.views, strict=True):
                view[batch.indices] = patches
            failed += int((batch.status == PatchStatus.FAILED).sum())
            task.advance(len(batch))
    if failed:
        raise InputError(
            explain(
                f"image of section {section.meta.section!r}",
                got=f"{failed} of {section.n_spots} patches unreadable",
                remedy="check or re-export the image",
            )
        )
