"""From a section and its patches to the rows that are stored."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve.embedders.base import Embedder, Embeddings, SectionPatches
from stretrieve.errors import SectionError, explain
from stretrieve.slides.types import PatchBatch
from stretrieve.spots.section import Section
from stretrieve.store import SectionRecord, SpotRows
from stretrieve.store.schema import embedding_column

_JPEG_QUALITY = 85


def section_record(section: Section) -> SectionRecord:
    """Return the metadata row of a section."""
    return SectionRecord(
        section=section.meta.section,
        patient=section.meta.patient,
        organ=section.meta.organ,
        species=section.meta.species,
        platform=section.meta.platform,
        disease=section.meta.disease,
        n_spots=section.n_spots,
        mpp=(float(section.pixel_size.x), float(section.pixel_size.y)),
        mpp_source=section.pixel_size.source.value,
        n_genes=section.n_genes,
        repairs=section.repairs,
    )


def spot_rows(
    embedder: Embedder, patches: SectionPatches, *, batch_size: int, thumbnail_px: int
) -> SpotRows:
    """Embed a section in both modalities and return its rows.

    Parameters
    ----------
    embedder
        Fitted embedder.
    patches
        The section and the patches under its spots.
    batch_size
        Patches embedded at a time.
    thumbnail_px
        Side of the stored patch images in pixels.
    """
    section = patches.section
    image = embed_images(embedder, patches, batch_size=batch_size)
    expression = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
    return SpotRows(
        spot_ids=[str(spot_id) for spot_id in section.spot_ids],
        xy=section.xy,
        xy_um=section.xy_um,
        array_xy=section.array_xy,
        counts=section.counts,
        genes=section.gene_names,
        embeddings={
            keys.IMAGE_EMBEDDING: _checked(image, section, embedder),
            keys.EXPRESSION_EMBEDDING: _checked(expression, section, embedder),
        },
        thumbnails=[jpeg(patch, side_px=thumbnail_px) for patch in patches.views[0]],
    )


def further_embeddings(
    embedder: Embedder, patches: SectionPatches, *, label: str, batch_size: int
) -> dict[str, Embeddings]:
    """Return the columns of an embedder that is not the reference's own, for one section.

    Parameters
    ----------
    embedder
        Fitted embedder.
    patches
        The section and the patches under its spots.
    label
        The embedder's label.
    batch_size
        Patches embedded at a time.
    """
    section = patches.section
    found = {
        keys.IMAGE_EMBEDDING: embed_images(embedder, patches, batch_size=batch_size),
        keys.EXPRESSION_EMBEDDING: embedder.embed_expression(
            section.counts, section.gene_names, section.xy_um
        ),
    }
    return {
        embedding_column(column, label): _checked(vectors, section, embedder)
        for column, vectors in found.items()
    }


def embed_images(embedder: Embedder, patches: SectionPatches, *, batch_size: int) -> Embeddings:
    """Return the image embeddings ``(n_spots, dim)`` of a section."""
    features = [embedder.encode_patches(batch) for batch in patch_batches(patches, batch_size)]
    return embedder.project_patches(np.concatenate(features), patches.section.xy_um)


def patch_batches(patches: SectionPatches, batch_size: int) -> Iterator[PatchBatch]:
    """Yield the patches of a section in batches, in the order of its spots."""
    section = patches.section
    for start in range(0, section.n_spots, batch_size):
        part = slice(start, min(start + batch_size, section.n_spots))
        indices = np.arange(part.start, part.stop)
        yield PatchBatch(
            tuple(np.asarray(view[part]) for view in patches.views),
            section.xy[part],
            section.xy_um[part],
            indices,
            np.zeros(len(indices), dtype=np.uint8),
        )


def jpeg(patch: npt.NDArray[np.uint8], *, side_px: int) -> bytes:
    """Return a patch ``(patch_px, patch_px, 3)`` as a JPEG of at most ``side_px`` pixels a side."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(patch))
    if image.width > side_px:
        image = image.resize((side_px, side_px), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _checked(vectors: Embeddings, section: Section, embedder: Embedder) -> Embeddings:
    expected = (section.n_spots, embedder.dim)
    if vectors.shape != expected:
        raise SectionError(
            explain(
                f"embeddings of section {section.meta.section!r}",
                got=vectors.shape,
                expected=expected,
                remedy=f"mend the embedder {embedder.name!r}",
            )
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)
