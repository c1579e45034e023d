"""A reference, open for reading at one version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from stretrieve import keys
from stretrieve._logging import get_logger
from stretrieve._progress import SILENT, Progress
from stretrieve.embedders import load_embedder
from stretrieve.embedders.base import Embedder, Embeddings
from stretrieve.errors import ChecksumError, GenePanelError, explain
from stretrieve.indexes import SearchResult
from stretrieve.reference.artefacts import check_embedder, check_tables
from stretrieve.reference.derive import (
    Searcher,
    exact_searcher,
    index_name,
    load_searcher,
    modality_column,
)
from stretrieve.reference.describe import described
from stretrieve.reference.layout import Layout, version_name
from stretrieve.reference.locks import VersionPin
from stretrieve.reference.manifest import Manifest
from stretrieve.reference.rows import FILE as SPOTS_FILE
from stretrieve.reference.rows import SpotTable, map_spots, read_spots
from stretrieve.reference.versions import pin_version
from stretrieve.specs import PatchSpec, PatchView
from stretrieve.spots import Section, log_cp10k
from stretrieve.store import Filter, SpotStore
from stretrieve.store.schema import META_COLUMNS, embedding_column

_log = get_logger(__name__)


class Reference:
    """Measured spots with their embeddings, at one version; writers do not disturb it.

    Spots are numbered in canonical order: by ``spot_uid``, whatever order they were written in. Every
    position below refers to it.

    Parameters
    ----------
    layout
        Where the reference is.
    manifest
        The version to read.
    tag
        The name it was opened by, if any.
    pin
        What keeps compaction from the version while the reference lives.
    storage_options
        Credentials and endpoint when the store is in an object store.
    embedder
        Label of the embedder whose embeddings are searched; the reference's own when empty.

    Raises
    ------
    ConfigError
        When there is no embedder of that label.
    """

    def __init__(
        self,
        layout: Layout,
        manifest: Manifest,
        *,
        tag: str | None = None,
        pin: VersionPin | None = None,
        storage_options: Mapping[str, str] | None = None,
        embedder: str = "",
    ) -> None:
        self.layout = layout
        self.manifest = manifest.seen_by(embedder)
        self._own = manifest
        self.opened_for = embedder
        self.opened_as = tag
        self._pin = pin
        self._storage_options = dict(storage_options or {})
        self._searchers: dict[str, Searcher] = {}

    @classmethod
    def open(
        cls,
        uri: str | Path,
        *,
        tag: str | None = None,
        embedder: str = "",
        storage_options: Mapping[str, str] | None = None,
    ) -> Reference:
        """Open a reference.

        Parameters
        ----------
        uri
            The reference folder.
        tag
            A tag or a version such as ``"v000001"``; the newest version when ``None``.
        embedder
            Label of the embedder to search with, of those that were added to the reference's own
            (:func:`~stretrieve.reference.further.add_embedder`).
        storage_options
            Credentials and endpoint when the store is in an object store.

        Raises
        ------
        ReferenceNotFoundError
            When there is no reference, or no such tag.
        ManifestError
            When the manifest is damaged or of an unknown format version.
        ConfigError
            When there is no embedder of that label.
        """
        layout = Layout(Path(uri))
        manifest, pin = pin_version(layout, tag)
        options = storage_options
        return cls(layout, manifest, tag=tag, pin=pin, storage_options=options, embedder=embedder)

    def close(self) -> None:
        """Let go of the version: compaction may delete it, and reads of it may fail from then on."""
        if self._pin is not None:
            self._pin.close()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # what it holds -----------------------------------------------------------------------------

    @property
    def dataset(self) -> str:
        """Id of the reference: the dataset that its spots belong to."""
        return self.manifest.reference_id

    @property
    def identity(self) -> dict[str, Any]:
        """Id, version, tag and content digest: what a result has to name to be repeatable."""
        return {
            "id": self.manifest.reference_id,
            "version": self.manifest.version,
            "tag": self.opened_as or "",
            "content_digest": self.manifest.content_digest,
            **({"embedder": self.opened_for} if self.opened_for else {}),
        }

    def describe(self) -> dict[str, Any]:
        """Return what the reference holds, as plain JSON data."""
        return {**self.identity, **described(self.manifest)}

    def sections(self) -> pd.DataFrame:
        """Return one row a section (index: its name, ascending) with metadata and ``n_spots``."""
        columns = [*META_COLUMNS, "n_spots", "n_genes", "mpp_source", "digest"]
        rows = [{name: section[name] for name in columns} for section in self.manifest.sections]
        return pd.DataFrame(rows, columns=columns).set_index(keys.SECTION)

    @cached_property
    def store(self) -> SpotStore:
        """The LanceDB tables, pinned to this version and checked."""
        store = SpotStore(
            self.layout.store_uri(str(self.manifest.store["uri"])),
            versions=self.manifest.table_versions,
            storage_options=self._storage_options,
        )
        check_tables(store, self.manifest)
        return store

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder that the reference was made with; its files are checked first."""
        check_embedder(self.layout, self.manifest, label=self.opened_for)
        return load_embedder(self.layout.embedder_of(self.opened_for))

    @property
    def genes(self) -> pd.DataFrame:
        """Index = gene key in the order of :meth:`expression`; ``gene_id``, ``gene_symbol``."""
        return self.store.genes

    @cached_property
    def measured(self) -> npt.NDArray[np.bool_]:
        """``(n_sections, n_genes)`` which section (in the order of :meth:`sections`) measures what."""
        return self.store.measured()

    @cached_property
    def spot_table(self) -> SpotTable:
        """The spots in canonical order, from the derived file or, with a warning, from the store."""
        path = self.layout.indexes(self.manifest.version) / SPOTS_FILE
        try:
            return map_spots(path, self.manifest.spots_sha256)
        except ChecksumError as error:
            _log.warning("reading spots from the store: %s", error)
        return read_spots(self.store)

    @property
    def section_index(self) -> npt.NDArray[np.int64]:
        """``(n_spots,)`` section of each spot, as position in :meth:`sections`."""
        return self.spot_table.section_index

    @cached_property
    def spots(self) -> pd.DataFrame:
        """One row a spot in canonical order: ``spot_uid``, section metadata, positions, totals."""
        return self.spot_table.to_pandas(self.sections().reset_index())

    def positions(self, spot_uids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the positions ``(n,)`` of spots named by ``spot_uid``.

        Raises
        ------
        KeyError
            When there is no such spot.
        """
        found = self.spot_table.uids.get_indexer(list(spot_uids))
        if (found < 0).any():
            raise KeyError(str(spot_uids[int(np.argmin(found))]))
        return np.asarray(found, dtype=np.int64)

    def mask(self, where: Filter) -> npt.NDArray[np.bool_]:
        """Return which spots ``(n_spots,)`` satisfy a predicate, for ``allowed`` of :meth:`search`.

        Parameters
        ----------
        where
            For example ``Equals("organ", "breast") & ~Equals("patient", "P1")`` of
            :mod:`stretrieve.store`.
        """
        return where.mask(self.spots)

    # what it answers ---------------------------------------------------------------------------

    def search(
        self,
        vectors: npt.ArrayLike,
        k: int,
        *,
        modality: str = "expression",
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> SearchResult:
        """Return the nearest spots by cosine similarity, scored exactly in float64.

        Parameters
        ----------
        vectors
            ``(n_query, dim)``.
        k
            Neighbours wanted.
        modality
            Which embeddings of the spots to compare with: ``"expression"`` or ``"image"``.
        allowed
            ``(n_spots,)`` which spots may be returned; all when ``None``.

        Returns
        -------
        SearchResult
            Positions and similarities ``(n_query, k)``, ties in the order of positions.
        """
        query = np.asarray(vectors, dtype=np.float32)
        return self.searcher(modality).index.search(query, k, allowed=allowed)

    def searcher(self, modality: str) -> Searcher:
        """Return one modality's vectors and index; without a usable index the exact search.

        A missing or damaged derived file costs speed, never correctness: one warning is logged.
        """
        modality_column(modality)
        if modality not in self._searchers:
            self._searchers[modality] = self._load_searcher(modality)
        return self._searchers[modality]

    def _load_searcher(self, modality: str) -> Searcher:
        folder = self.layout.indexes(self.manifest.version)
        name = index_name(modality, self.opened_for)
        try:
            return load_searcher(folder, name, self.manifest.indexes[name])
        except (ChecksumError, KeyError) as error:
            _log.warning("searching without an index: %s", error)
        column = embedding_column(modality_column(modality), self.opened_for)
        return exact_searcher(self.store, self.spot_table, column)

    def embeddings(
        self, modality: str, positions: npt.NDArray[np.int64] | None = None
    ) -> Embeddings:
        """Return stored embeddings ``(n, dim)`` of some spots, or of all."""
        vectors = self.searcher(modality).vectors
        return vectors if positions is None else np.asarray(vectors[positions])

    def expression(
        self, positions: npt.NDArray[np.int64], genes: Sequence[str] | None = None
    ) -> sparse.csr_matrix:
        """Return raw counts ``(len(positions), n_genes)`` int32; see :attr:`measured` for zeros.

        Parameters
        ----------
        positions
            Spots, in any order, repeats allowed.
        genes
            Gene keys of the columns wanted; all of :attr:`genes` when ``None``.

        Raises
        ------
        GenePanelError
            When a gene is unknown.
        """
        counts = self.store.expression(
            self.spot_table.row_ids[np.asarray(positions, dtype=np.int64)]
        )
        if genes is None:
            return counts
        columns = self.genes.index.get_indexer(list(genes))
        if (columns < 0).any():
            unknown = str(list(genes)[int(np.argmin(columns))])
            raise GenePanelError(
                explain("gene", got=repr(unknown), expected="a gene of the reference")
            )
        return counts[:, columns]

    def log_expression(
        self, positions: npt.NDArray[np.int64], genes: Sequence[str] | None = None
    ) -> sparse.csr_matrix:
        """Return log1p CP10k ``(len(positions), n_genes)`` float32, all genes in the denominator."""
        library = self.spot_table.library_size[np.asarray(positions, dtype=np.int64)]
        return log_cp10k(self.expression(positions, genes), library_size=library)

    def take(self, spot_uids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of :attr:`spots` of spots named by ``spot_uid``, in their order."""
        return self.spots.iloc[self.positions(spot_uids)]

    @property
    def thumbnail_view(self) -> PatchView:
        """The field of view of the thumbnails: that of the reference's own embedder, shrunk."""
        view = PatchSpec.from_dict(self._own.embedder["patch_spec"]).primary
        side_px = min(view.patch_px, int(self._own.settings["thumbnail_px"]))
        return PatchView(side_px, view.side_um / side_px)

    def thumbnails(self, positions: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the JPEG patch image of each of some spots."""
        return self.store.thumbnails(self.spot_table.row_ids[np.asarray(positions, dtype=np.int64)])

    # how it changes ----------------------------------------------------------------------------

    def add(
        self, sections: Sequence[Section] | Path | str, *, progress: Progress = SILENT
    ) -> Reference:
        """Append sections and return the new version; this one stays as it is.

        See :func:`stretrieve.reference.changes.add_sections`.
        """
        from stretrieve.reference.changes import add_sections

        root, options = self.layout.root, self._storage_options
        add_sections(root, sections, storage_options=options, progress=progress)
        return Reference.open(root, embedder=self.opened_for, storage_options=options)

    def remove(
        self,
        *,
        sections: Sequence[str] = (),
        patients: Sequence[str] = (),
        progress: Progress = SILENT,
    ) -> Reference:
        """Delete sections or patients and return the new version; this one stays as it is.

        See :func:`stretrieve.reference.changes.remove_sections`.
        """
        from stretrieve.reference.changes import remove_sections

        root, options = self.layout.root, self._storage_options
        remove_sections(
            root,
            sections=sections,
            patients=patients,
            storage_options=options,
            progress=progress,
        )
        return Reference.open(root, embedder=self.opened_for, storage_options=options)

    def tag(self, name: str) -> None:
        """Name this version, so that it can be opened by the name and compaction keeps it."""
        from stretrieve.reference.changes import tag_version

        tag_version(self.layout.root, name, version=version_name(self.manifest.version))
