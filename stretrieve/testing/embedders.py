"""What every embedder must do: a suite to run on ours and on a third party's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from stretrieve.embedders import (
    Embedder,
    Embeddings,
    SectionPatches,
    create_embedder,
    load_embedder,
)
from stretrieve.errors import ConfigError, EmbedderMismatchError, GenePanelError
from stretrieve.slides.types import PatchBatch
from stretrieve.testing.toy import toy_batch, toy_section, toy_sections
from stretrieve.training import TrainSettings, fit_embedder

_FILES = {"config.json", "model.safetensors"}


class EmbedderContract:
    """The suite. Subclass it in a test module and say which embedder.

    Attributes
    ----------
    name
        Registered name.
    config
        Settings to build it with; small, so that the suite is fast.
    tolerance
        Largest difference that counts as the same number, relative to the largest embedding entry.
    """

    name: ClassVar[str] = ""
    config: ClassVar[Mapping[str, Any]] = {}
    tolerance: ClassVar[float] = 1e-5

    @classmethod
    def fitted_embedder(cls) -> Embedder:
        """Return an embedder fitted on toy sections, one epoch where it trains."""
        embedder = create_embedder(cls.name, cls.config)
        settings = TrainSettings(epochs=1, batch_size=32, early_stopping=False, device="cpu")
        fit_embedder(embedder, toy_sections(embedder.spec), settings=settings)
        return embedder

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls) -> Embedder:
        """Return a fitted embedder, shared by the tests of a class."""
        return cls.fitted_embedder()

    @pytest.fixture(scope="class")
    @classmethod
    def query(cls, fitted: Embedder) -> SectionPatches:
        """Return a section that the embedder has not seen."""
        return toy_section(fitted.spec, section="query", patient="c", seed=99, n_spots=25)

    def test_is_registered_under_its_name(self, fitted: Embedder) -> None:
        """The class says the name it is registered under."""
        np.testing.assert_equal(type(fitted).name, self.name)

    def test_shapes_and_types(self, fitted: Embedder, query: SectionPatches) -> None:
        """Both sides give finite float32 rows of ``dim`` numbers."""
        for embeddings in (_image(fitted, query), _expression(fitted, query)):
            np.testing.assert_equal(embeddings.shape, (query.section.n_spots, fitted.dim))
            np.testing.assert_equal(embeddings.dtype, np.dtype(np.float32))
            np.testing.assert_equal(bool(np.isfinite(embeddings).all()), desired=True)
        whole = toy_batch(query, range(query.section.n_spots))
        np.testing.assert_array_equal(fitted.embed_patches(whole), _image(fitted, query))

    def test_embeddings_depend_on_their_input(
        self, fitted: Embedder, query: SectionPatches
    ) -> None:
        """Different spots get different embeddings."""
        for embeddings in (_image(fitted, query), _expression(fitted, query)):
            np.testing.assert_array_less(0, embeddings.std(axis=0).max())

    def test_same_seed_same_embeddings(self, fitted: Embedder, query: SectionPatches) -> None:
        """Fitting once more gives the same numbers."""
        again = self.fitted_embedder()
        np.testing.assert_equal(again.gene_names, fitted.gene_names)
        self._same(_image(again, query), _image(fitted, query))
        self._same(_expression(again, query), _expression(fitted, query))

    def test_batch_size_does_not_matter(self, fitted: Embedder, query: SectionPatches) -> None:
        """Features, and embeddings made of them, do not depend on how patches were batched."""
        whole = _image(fitted, query)
        for size in (1, 7):
            self._same(_image(fitted, query, size=size), whole)

    def test_parts_of_a_slide_are_mapped_alike_where_it_says_so(
        self, fitted: Embedder, query: SectionPatches
    ) -> None:
        """``is_row_wise`` promises that a slide may be projected in parts."""
        if not fitted.is_row_wise:
            return
        batch = toy_batch(query, range(query.section.n_spots))
        features = fitted.encode_patches(batch)
        parts = [
            fitted.project_patches(features[rows], batch.xy_um[rows])
            for rows in (slice(0, 3), slice(3, None))
        ]
        self._same(np.concatenate(parts), fitted.project_patches(features, batch.xy_um))

    def test_order_does_not_matter(self, fitted: Embedder, query: SectionPatches) -> None:
        """Patches in another order get the same embeddings in that order."""
        order = np.random.Generator(np.random.PCG64(0)).permutation(query.section.n_spots)
        self._same(fitted.embed_patches(toy_batch(query, order)), _image(fitted, query)[order])
        section = query.section
        shuffled = fitted.embed_expression(
            section.counts[order], section.gene_names, section.xy_um[order]
        )
        self._same(shuffled, _expression(fitted, query)[order])

    def test_gene_order_does_not_matter(self, fitted: Embedder, query: SectionPatches) -> None:
        """Columns of the counts are found by name."""
        section = query.section
        order = np.random.Generator(np.random.PCG64(1)).permutation(section.n_genes)
        names = [section.gene_names[i] for i in order]
        got = fitted.embed_expression(section.counts[:, order], names, section.xy_um)
        self._same(got, _expression(fitted, query))

    def test_saved_and_loaded_is_the_same(
        self, fitted: Embedder, query: SectionPatches, tmp_path: Path
    ) -> None:
        """Two files, no pickle, and the same embeddings after loading."""
        fitted.save(tmp_path)
        np.testing.assert_equal({path.name for path in tmp_path.iterdir()}, _FILES)
        loaded = load_embedder(tmp_path)
        np.testing.assert_equal(loaded.gene_names, fitted.gene_names)
        np.testing.assert_equal(loaded.dim, fitted.dim)
        np.testing.assert_equal(loaded.spec, fitted.spec)
        np.testing.assert_equal(loaded.to_config(), fitted.to_config())
        self._same(_image(loaded, query), _image(fitted, query))
        self._same(_expression(loaded, query), _expression(fitted, query))

    def test_changed_weights_are_refused(self, fitted: Embedder, tmp_path: Path) -> None:
        """One changed byte in the weights is noticed."""
        fitted.save(tmp_path)
        weights = tmp_path / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 0xFF
        weights.write_bytes(bytes(data))
        with pytest.raises(EmbedderMismatchError):
            load_embedder(tmp_path)

    def test_configuration_round_trips(self, fitted: Embedder) -> None:
        """Settings survive JSON and rebuild an equal embedder."""
        config = json.loads(json.dumps(fitted.to_config()))
        rebuilt = create_embedder(self.name, config)
        np.testing.assert_equal(rebuilt.to_config(), fitted.to_config())
        np.testing.assert_equal(rebuilt.spec, fitted.spec)

    def test_unknown_setting_is_refused(self) -> None:
        """A setting that does not exist is a usage error."""
        with pytest.raises(ConfigError, match="no_such_setting"):
            create_embedder(self.name, {**self.config, "no_such_setting": 1})

    def test_unfitted_refuses_to_embed(self) -> None:
        """Before fitting there are no genes and no embeddings."""
        embedder = create_embedder(self.name, self.config)
        patches = toy_section(embedder.spec, section="s", patient="p", n_spots=4)
        np.testing.assert_equal(embedder.gene_names, ())
        with pytest.raises(ConfigError, match="not fitted"):
            _expression(embedder, patches)

    def test_other_patches_are_refused(self, fitted: Embedder, query: SectionPatches) -> None:
        """Patches of another size, or another number of views, are a mismatch."""
        batch = toy_batch(query, range(3))
        smaller = tuple(view[:, 1:, 1:] for view in batch.views)
        for views in (smaller, (*batch.views, batch.views[0])):
            with pytest.raises(EmbedderMismatchError):
                fitted.encode_patches(_with_views(batch, views))

    def test_other_genes_are_refused(self, fitted: Embedder, query: SectionPatches) -> None:
        """Counts of other genes are refused; a few missing ones are not."""
        section = query.section
        others = [f"other_{name}" for name in section.gene_names]
        with pytest.raises(GenePanelError):
            fitted.embed_expression(section.counts, others, section.xy_um)
        few = [name if i % 8 else f"other_{name}" for i, name in enumerate(section.gene_names)]
        embeddings = fitted.embed_expression(section.counts, few, section.xy_um)
        np.testing.assert_equal(bool(np.isfinite(embeddings).all()), desired=True)

    def test_nothing_in_nothing_out(self, fitted: Embedder, query: SectionPatches) -> None:
        """Empty batches give empty embeddings."""
        section = query.section
        np.testing.assert_equal(fitted.embed_patches(toy_batch(query, [])).shape, (0, fitted.dim))
        empty = fitted.embed_expression(section.counts[:0], section.gene_names, section.xy_um[:0])
        np.testing.assert_equal(empty.shape, (0, fitted.dim))

    def _same(self, got: Embeddings, expected: Embeddings) -> None:
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=self.tolerance * max(scale, 1.0))


def _image(embedder: Embedder, patches: SectionPatches, *, size: int = 1000) -> Embeddings:
    n_spots = patches.section.n_spots
    features = [
        embedder.encode_patches(toy_batch(patches, range(start, min(start + size, n_spots))))
        for start in range(0, n_spots, size)
    ]
    return embedder.project_patches(np.concatenate(features), patches.section.xy_um)


def _expression(embedder: Embedder, patches: SectionPatches) -> Embeddings:
    section = patches.section
    return embedder.embed_expression(section.counts, section.gene_names, section.xy_um)


def _with_views(batch: PatchBatch, views: tuple[Any, ...]) -> PatchBatch:
    return PatchBatch(views, batch.xy, batch.xy_um, batch.indices, batch.status)
