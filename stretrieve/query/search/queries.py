"""What can be asked with: patches of a slide, stored spots, a measured section, plain vectors."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve._progress import SILENT, Progress
from stretrieve.config import choice
from stretrieve.embedders.base import Embedder
from stretrieve.errors import InputError, ShapeError, explain
from stretrieve.query.encode import encode_slide
from stretrieve.query.locate import SpotPositions, locate
from stretrieve.query.search.pool import ReferencePool
from stretrieve.query.search.sides import Side
from stretrieve.query.settings import QuerySettings
from stretrieve.reference.embed import jpeg
from stretrieve.slides import Slide, open_slide, read_patches
from stretrieve.spots import Section, SheetRow, read_section
from stretrieve.spots.row import UNKNOWN_PATIENT
from stretrieve.units import MppSource, PixelSize

if TYPE_CHECKING:
    import anndata as ad

THUMBNAIL_PX = 64
Names = npt.NDArray[np.object_]


@dataclass(frozen=True)
class SpotQuery:
    """Vectors to search with, and what is known of where they come from.

    Parameters
    ----------
    names
        ``(n_query,)`` unique names.
    vectors
        ``(n_query, dim)`` float32 in the joint space of the reference's embedder.
    modality
        Which side of the embedder made them.
    spot_uids, sections, patients
        ``(n_query,)`` where each query is from; ``""`` where unknown.
    thumbnails
        JPEG image of each query, or nothing.
    notes
        What the reader of the answers should know.

    Raises
    ------
    ShapeError
        When an array does not fit the others or a vector is not finite.
    InputError
        When there is no query, or a name occurs twice.
    """

    names: Names
    vectors: npt.NDArray[np.float32]
    modality: Side
    spot_uids: Names
    sections: Names
    patients: Names
    thumbnails: tuple[bytes, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.names)
        if n == 0:
            raise InputError(explain("queries", got="none", expected="one or more"))
        lengths = {len(self.vectors), len(self.spot_uids), len(self.sections), len(self.patients)}
        if self.vectors.ndim != 2 or lengths != {n} or len(self.thumbnails) not in (0, n):
            raise ShapeError(
                explain(
                    "query vectors", got=self.vectors.shape, expected=f"({n}, dim), a row a name"
                )
            )
        if not np.isfinite(self.vectors).all():
            raise ShapeError(explain("query vectors", got="values that are not finite"))
        if len(set(self.names)) != n:
            raise InputError(explain("names of queries", got="a name twice", expected="unique"))

    def __len__(self) -> int:
        return len(self.names)


def query_vectors(
    vectors: npt.ArrayLike,
    *,
    modality: Side | str,
    dim: int,
    names: Sequence[str] | None = None,
    patient: str | None = None,
) -> SpotQuery:
    """Ask with embeddings made elsewhere by the same embedder.

    Parameters
    ----------
    vectors
        ``(n_query, dim)``.
    modality
        Which side of the embedder made them.
    dim
        Width of the joint space.
    names
        Names of the queries; ``q0``, ``q1``, … when ``None``.
    patient
        Donor of all of them.

    Raises
    ------
    ShapeError
        When the shape is wrong or a value is not a finite number.
    """
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ShapeError(explain("query vectors", got=error, expected="numbers")) from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise ShapeError(explain("query vectors", got=array.shape, expected=f"(n_query, {dim})"))
    named = names if names is not None else [f"q{i}" for i in range(len(array))]
    return _query(named, array, choice(Side, modality, "side"), patient=patient)


def query_stored(
    pool: ReferencePool,
    spot_uids: Sequence[str],
    *,
    modality: Side | str,
    thumbnails: bool = False,
) -> SpotQuery:
    """Ask with spots of the references themselves.

    Parameters
    ----------
    pool
        Where they are.
    spot_uids
        Their names, ``SECTION/SPOT``.
    modality
        Which of their embeddings to ask with.
    thumbnails
        Keep their images.

    Raises
    ------
    InputError
        When no reference holds a spot.
    """
    uids = list(dict.fromkeys(str(uid) for uid in spot_uids))
    if not uids:
        raise InputError(explain("spots to ask with", got="none", expected="one or more"))
    source, positions = pool.find(uids)
    rows = pool.metadata(source, positions)
    side = choice(Side, modality, "side")
    return SpotQuery(
        np.array(uids, dtype=object),
        pool.embeddings(side.value, source, positions),
        side,
        spot_uids=np.array(uids, dtype=object),
        sections=rows[keys.SECTION].to_numpy(dtype=object),
        patients=rows[keys.PATIENT].to_numpy(dtype=object),
        thumbnails=tuple(pool.thumbnails(source, positions)) if thumbnails else (),
    )


def query_stored_section(pool: ReferencePool, section: str, *, modality: Side | str) -> SpotQuery:
    """Ask with every spot of a stored section; parameters as in :func:`query_stored`.

    Raises
    ------
    InputError
        When no reference holds the section.
    """
    for reference in pool.references:
        names = list(reference.sections().index)
        if section in names:
            mine = reference.section_index == names.index(section)
            uids = reference.spot_table.uids[mine]
            return query_stored(pool, list(uids), modality=modality)
    raise InputError(
        explain(
            "section",
            got=repr(section),
            expected="a section of the reference",
            remedy="see them with `stretrieve ref list`",
        )
    )


def query_section(
    embedder: Embedder, section: Section | ad.AnnData, *, mpp: float | None = None
) -> SpotQuery:
    """Ask with every spot of a measured section; its genes are matched by identity.

    Parameters
    ----------
    embedder
        The references' embedder, which says how it treats genes that the section lacks.
    section
        A section, or an AnnData with raw counts and ``obsm["spatial"]``.
    mpp
        µm per pixel of an AnnData that does not say.

    Raises
    ------
    GenePanelError
        When the section measures too few of the embedder's genes.
    SectionError
        When the AnnData cannot be used as a section.

    Notes
    -----
    All spots are embedded together, as when a reference is built: most embedders centre expression
    on its own section, and some look at neighbouring spots. Embedding a spot alone gives another
    vector than embedding it with its section.
    """
    one = section if isinstance(section, Section) else section_of(section, mpp=mpp)
    vectors = embedder.embed_expression(one.counts, one.gene_names, one.xy_um)
    query = _query(
        one.spot_ids,
        np.asarray(vectors, dtype=np.float32),
        Side.EXPRESSION,
        section=one.meta.section,
        patient=one.meta.patient,
    )
    return dataclasses.replace(query, notes=_coverage_note(embedder, one))


def _coverage_note(embedder: Embedder, section: Section) -> tuple[str, ...]:
    panel = embedder.gene_names
    missing = len(panel) - len(set(panel) & set(section.gene_names))
    if not missing:
        return ()
    return (
        f"{missing} of the embedder's {len(panel)} genes are not measured in {section.meta.section}",
    )


def section_of(adata: ad.AnnData, *, mpp: float | None = None, name: str = "query") -> Section:
    """Return an AnnData as a validated section, read the way an ``.h5ad`` file of a sheet is.

    Parameters
    ----------
    adata
        Raw counts in ``layers["counts"]``, ``X`` or ``raw``; ``obsm["spatial"]`` in level-0 px. The
        donor is taken from ``obs["patient"]`` when it holds one value.
    mpp
        µm per pixel; needed when neither ``uns["spatial"]`` nor the array's grid tells it.
    name
        Name of the section.

    Raises
    ------
    SectionError
        When a part is missing or the values are not counts.
    """
    patient = UNKNOWN_PATIENT
    if keys.PATIENT in adata.obs and adata.obs[keys.PATIENT].nunique() == 1:
        patient = str(adata.obs[keys.PATIENT].iloc[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "query.h5ad"
        adata.write_h5ad(path)
        row = SheetRow(
            name,
            path,
            patient=patient,
            format="anndata",
            mpp=None if mpp is None else PixelSize.square(mpp, MppSource.GIVEN),
        )
        return read_section(row)


def query_patches(
    embedder: Embedder,
    slide: Path | str,
    *,
    mpp: float | PixelSize | None = None,
    spots: SpotPositions | None = None,
    patient: str | None = None,
    settings: QuerySettings | None = None,
    thumbnails: bool = False,
    progress: Progress = SILENT,
) -> SpotQuery:
    """Ask with patches of a slide.

    Parameters
    ----------
    embedder
        The references' embedder.
    slide
        Image file.
    mpp
        µm per level-0 pixel, where the file does not say or says it wrongly.
    spots
        Positions of the patches; a grid over the tissue when ``None``.
    patient
        Donor of the slide.
    settings
        Grid, batches and workers.
    thumbnails
        Keep a small image of every patch.
    progress
        Receiver of progress.

    Raises
    ------
    SlideError, MppError, TissueError
        When the slide cannot be used.
    InputError
        When positions lie outside the image.
    """
    settings = settings or QuerySettings()
    size = PixelSize.square(mpp, MppSource.GIVEN) if isinstance(mpp, float | int) else mpp
    with open_slide(slide, pixel_size=size) as opened:
        at = locate(opened, embedder.spec, settings=settings, spots=spots)
        encoded = encode_slide(opened, at, embedder, settings=settings, progress=progress)
        keep = encoded.keep
        images = _images(opened, embedder, at.xy[keep], settings) if thumbnails else ()
        stem = opened.path.stem
    query = _query(at.names[keep], encoded.embeddings, Side.IMAGE, section=stem, patient=patient)
    return dataclasses.replace(query, thumbnails=images)


def _images(
    slide: Slide, embedder: Embedder, xy: npt.NDArray[np.float64], settings: QuerySettings
) -> tuple[bytes, ...]:
    batches = read_patches(
        slide, xy, embedder.spec, batch_size=settings.batch_size, workers=settings.workers
    )
    return tuple(jpeg(patch, side_px=THUMBNAIL_PX) for batch in batches for patch in batch.views[0])


def _query(
    names: Sequence[str] | npt.NDArray[np.str_],
    vectors: npt.NDArray[np.float32],
    modality: Side,
    *,
    section: str = "",
    patient: str | None = None,
) -> SpotQuery:
    n = len(names)
    known = "" if patient in (None, UNKNOWN_PATIENT) else str(patient)
    return SpotQuery(
        np.array([str(name) for name in names], dtype=object),
        vectors,
        modality,
        spot_uids=np.full(n, "", dtype=object),
        sections=np.full(n, section, dtype=object),
        patients=np.full(n, known, dtype=object),
    )
