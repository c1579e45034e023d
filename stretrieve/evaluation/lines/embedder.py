"""Embedders as lines: each in our form, and in its published one where it has one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from stretrieve.embedders import Embedder, create_embedder
from stretrieve.embedders.checks import batch_of
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import Inputs
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.settings import EvaluationSettings
from stretrieve.evaluation.training_data import Matrix
from stretrieve.query import Centring, Compat, RetrievalSettings
from stretrieve.query.pool import ArrayPool
from stretrieve.query.predictor import Predictor
from stretrieve.spots.section import Section
from stretrieve.training import TrainReport, TrainSettings, fit_embedder

COMPAT: Final = "compat"
REGRESSION: Final = "regression"

_BATCH: Final = 64
_WITHOUT_CHANCE: Final = ("colour", "frozen")
"""Embedders that are solved in closed form; others are taken to depend on their seed."""

_TOWER: Final[tuple[str, ...]] = ("encoder", "patch_px", "side_um")


PUBLISHED: Final[Mapping[str, Compat]] = {
    "bleep": Compat.BLEEP,
    "stgchb": Compat.STGCHB,
    "mclstexp": Compat.MCLSTEXP,
}
"""Inference of the published code; other embedders are averaged as BLEEP's."""


@dataclass(frozen=True)
class FittedEmbedder(Fitted):
    """A fitted embedder with the training spots in its space.

    Parameters
    ----------
    embedder
        Fitted.
    predictor
        Retrieves from the training spots.
    genes
        Genes to predict.
    report
        How it was trained.
    """

    embedder: Embedder
    predictor: Predictor
    genes: tuple[str, ...]
    report: TrainReport

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Average the nearest training spots."""
        embedding = embed_images(self.embedder, sample, inputs)
        return retrieved(self.predictor, embedding, self.genes)

    def embed_expression(self, sample: Sample) -> Matrix:
        """Return the section's expression in the joint space."""
        return embed_expression(self.embedder, sample.section)

    def facts(self) -> dict[str, Any]:
        """Return how long was trained."""
        return {"epochs": self.report.epochs, "held_out": list(self.report.held_out)}


def retrieved(predictor: Predictor, embedding: Matrix, genes: Sequence[str]) -> Prediction:
    """Return what retrieval predicts for a whole section."""
    found = predictor.predict(embedding.astype(np.float32), genes)
    return Prediction(
        found.mean,
        doubt=found.spread.mean(axis=1),
        neighbours=found.found.neighbours.indices,
        embedding=np.asarray(found.found.embeddings, dtype=np.float64),
    )


def embed_images(embedder: Embedder, sample: Sample, inputs: Inputs) -> Matrix:
    """Return image embeddings ``(n_spots, dim)`` of a section."""
    features = encode(embedder, sample, inputs)
    return embedder.project_patches(features, sample.section.xy_um).astype(np.float64)


def encode(embedder: Embedder, sample: Sample, inputs: Inputs) -> Any:
    """Return backbone features of a section, as the embedder makes them."""
    patches = inputs.patches(sample, embedder.spec)
    starts = range(0, sample.section.n_spots, _BATCH)
    parts = [embedder.encode_patches(batch_of(patches, slice(s, s + _BATCH))) for s in starts]
    return np.concatenate(parts)


def embed_expression(embedder: Embedder, section: Section) -> Matrix:
    """Return expression embeddings ``(n_spots, dim)`` of a section."""
    vectors = embedder.embed_expression(section.counts, section.gene_names, section.xy_um)
    return vectors.astype(np.float64)


class EmbedderLine(Line):
    """Retrieval in the joint space of an embedder.

    Parameters
    ----------
    embedder
        Registered name.
    settings
        Settings of the evaluation: backbone, training, further configuration.
    form
        ``""`` for ours, ``compat`` for the published one.
    """

    family = Family.EMBEDDER

    def __init__(self, embedder: str, settings: EvaluationSettings, *, form: str = "") -> None:
        self.embedder = embedder
        self.form = form
        self.name = f"{embedder}-{form}" if form else embedder
        self.title = f"{embedder}, {'as published' if form == COMPAT else form or 'our form'}"
        self._settings = settings
        self.stochastic = embedder not in _WITHOUT_CHANCE
        self._retrieval = (
            RetrievalSettings(compat=PUBLISHED.get(embedder, Compat.BLEEP))
            if form == COMPAT
            else RetrievalSettings(top_k=settings.top_k, centring=Centring.SECTION)
        )

    def create(self, *, seed: int) -> Embedder:
        """Return the unfitted embedder, seeded."""
        return create_embedder(self.embedder, self.configuration(seed=seed))

    def configuration(self, *, seed: int) -> dict[str, Any]:
        """Return its configuration: shared backbone, form, seed, and what was asked for by name."""
        fields = default_configuration(self.embedder)
        tower = self._settings.backbone or {}
        config: dict[str, Any] = {
            name: tower[name] for name in _TOWER if name in tower and name in fields
        }
        if self.embedder == "m2ost":  # several fields of view of its own, and no tower
            config = {}
        if COMPAT in fields:
            config[COMPAT] = self.form == COMPAT
        if "seed" in fields:
            config["seed"] = seed
        for name in (self.embedder, self.name):
            config.update(self._settings.embedder_config.get(name, {}))
        return config

    def training_settings(self, *, seed: int) -> TrainSettings:
        """Return the settings of the loop; a published form stops nowhere by itself."""
        train = dataclasses.replace(self._settings.train, seed=seed)
        if self.form != COMPAT:
            return train
        return dataclasses.replace(train, epochs=self._settings.compat_epochs, early_stopping=False)

    def fit_embedder(self, training: Training, *, seed: int) -> tuple[Embedder, TrainReport]:
        """Fit the embedder on the training sections; early stopping holds out training patients."""
        embedder = self.create(seed=seed)
        report = fit_embedder(
            embedder,
            [training.inputs.patches(sample, embedder.spec) for sample in training.samples],
            settings=self.training_settings(seed=seed),
            progress=training.progress,
        )
        return embedder, report

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Fit the embedder and embed the training spots."""
        embedder, report = self.fit_embedder(training, seed=seed)
        predictor = Predictor(build_pool(embedder, training), self._retrieval, score_ood=False)
        return FittedEmbedder(embedder, predictor, training.genes, report)


def build_pool(embedder: Embedder, training: Training) -> ArrayPool:
    """Return the training spots in the space of a fitted embedder, with their expression."""
    samples = training.samples
    vectors = {
        "expression": [embed_expression(embedder, sample.section) for sample in samples],
        "image": [embed_images(embedder, sample, training.inputs) for sample in samples],
    }
    return ArrayPool.build(
        {name: np.concatenate(parts) for name, parts in vectors.items()},
        np.concatenate(training.truth),
        training.genes,
        sections=[str(name) for name in training.names],
        patients=[str(name) for name in training.patients],
    )


@functools.cache
def default_configuration(embedder: str) -> dict[str, Any]:
    """Return the default settings of an embedder as plain data."""
    return create_embedder(embedder).to_config()
