"""From patch centres to embeddings: decoding runs ahead of the network, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stretrieve._progress import SILENT, Progress
from stretrieve.embedders.base import Embedder, Embeddings
from stretrieve.errors import SlideError, explain
from stretrieve.query.locate import Positions
from stretrieve.query.settings import QuerySettings
from stretrieve.slides import Slide, read_patches
from stretrieve.slides.types import PatchStatus


@dataclass(frozen=True)
class EncodedSlide:
    """Embeddings of a slide's readable patches.

    Parameters
    ----------
    embeddings
        ``(n_patches, dim)`` in the joint space.
    keep
        ``(n_patches,)`` positions, in the list of centres, of the patches that could be read.
    status
        ``(n_patches,)`` values of :class:`~stretrieve.slides.types.PatchStatus` for ``keep``.
    n_failed
        Patches that could not be read.
    """

    embeddings: Embeddings
    keep: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint8]
    n_failed: int


def encode_slide(
    slide: Slide,
    positions: Positions,
    embedder: Embedder,
    *,
    settings: QuerySettings,
    progress: Progress = SILENT,
) -> EncodedSlide:
    """Embed the patches of a slide.

    Raises
    ------
    SlideError
        When more than ``settings.max_failed`` of the patches cannot be read.
    """
    features: list[Embeddings] = []
    status: list[npt.NDArray[np.uint8]] = []
    with progress.task(f"embed {slide.path.name}", len(positions)) as task:
        for batch in read_patches(
            slide,
            positions.xy,
            embedder.spec,
            batch_size=settings.batch_size,
            workers=settings.workers,
        ):
            features.append(embedder.encode_patches(batch))
            status.append(batch.status)
            task.advance(len(batch))
    everything = np.concatenate(status)
    readable = np.flatnonzero(everything != PatchStatus.FAILED)
    _check_failures(slide, len(everything) - len(readable), len(everything), settings.max_failed)
    embeddings = embedder.project_patches(
        np.concatenate(features)[readable], slide.pixel_size.to_um(positions.xy[readable])
    )
    return EncodedSlide(embeddings, readable, everything[readable], len(everything) - len(readable))


def _check_failures(slide: Slide, failed: int, total: int, limit: float) -> None:
    if failed > limit * total:
        raise SlideError(
            explain(
                f"slide {slide.path.name}",
                got=f"{failed} of {total} patches unreadable",
                expected=f"at most {limit:.0%}",
                remedy="copy or export the slide again",
            )
        )
