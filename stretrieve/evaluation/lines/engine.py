"""The full engine: settings chosen and intervals calibrated on held-out training patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from stretrieve.config import settings_to_dict
from stretrieve.embedders import Embedder
from stretrieve.embedders.bimodal_settings import Head
from stretrieve.evaluation.cohort import Sample
from stretrieve.evaluation.inputs import ImageInputs, Inputs
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.lines.embedder import (
    EmbedderLine,
    embed_expression,
    embed_images,
    retrieved,
)
from stretrieve.evaluation.lines.joint import JointLine, inner_splits
from stretrieve.evaluation.settings import EvaluationSettings
from stretrieve.evaluation.training_data import Matrix
from stretrieve.models.joint import JointMethod, JointSettings
from stretrieve.query import RetrievalSettings
from stretrieve.query.calibrate import calibrate
from stretrieve.query.calibration import Calibration
from stretrieve.query.choose import HeldOut
from stretrieve.query.pool import ArrayPool
from stretrieve.query.predictor import Predictor
from stretrieve.query.scale import sample_spots

NAME: Final = "engine"
_CLOSED_FORM: Final = ("frozen", "colour")
MAX_SPOTS: Final = 4_000
"""Training spots that settings and intervals are chosen on; a fixed sample of more."""


class Space(Protocol):
    """A joint space that has been fitted."""

    def image(self, sample: Sample, inputs: Inputs) -> Matrix:
        """Return embeddings ``(n_spots, dim)`` of a section's queries."""

    def expression(self, sample: Sample) -> Matrix:
        """Return embeddings ``(n_spots, dim)`` of a section's measured expression."""


@dataclass(frozen=True)
class EmbedderSpace:
    """The space of a fitted embedder."""

    embedder: Embedder

    def image(self, sample: Sample, inputs: Inputs) -> Matrix:
        """Return image embeddings."""
        return embed_images(self.embedder, sample, inputs)

    def expression(self, sample: Sample) -> Matrix:
        """Return expression embeddings."""
        return embed_expression(self.embedder, sample.section)


@dataclass(frozen=True)
class QuerySpace:
    """The closed-form space of query features, where there are no images."""

    fitted: Any

    def image(self, sample: Sample, inputs: Inputs) -> Matrix:
        """Return embeddings of query features."""
        embedded = self.fitted.space.embed_features(inputs.features(sample))
        return np.asarray(embedded, dtype=np.float64)

    def expression(self, sample: Sample) -> Matrix:
        """Return embeddings of measured expression."""
        return np.asarray(self.fitted.embed_expression(sample), dtype=np.float64)


@dataclass(frozen=True)
class FittedEngine(Fitted):
    """The engine on the training sections.

    Parameters
    ----------
    space
        Joint space.
    predictor
        Retrieves from the training spots.
    genes
        Genes to predict.
    calibration
        Settings and interval widths; ``None`` with a single training section.
    """

    space: Space
    predictor: Predictor
    genes: tuple[str, ...]
    calibration: Calibration | None

    def predict(self, sample: Sample, inputs: Inputs) -> Prediction:
        """Predict with the chosen settings, with intervals."""
        embedding = self.space.image(sample, inputs)
        if self.calibration is None:
            return retrieved(self.predictor, embedding, self.genes)
        found = self.predictor.predict(
            embedding.astype(np.float32), self.genes, xy_um=sample.section.xy_um
        )
        columns = np.arange(len(self.genes))
        ends = self.calibration.intervals(found.mean, found.spread, columns)
        return Prediction(
            found.mean,
            intervals={level / 100: (end.lower, end.upper) for level, end in ends.items()},
            doubt=found.spread.mean(axis=1),
            neighbours=found.found.neighbours.indices,
            embedding=np.asarray(found.found.embeddings, dtype=np.float64),
        )

    def embed_expression(self, sample: Sample) -> Matrix:
        """Return the section's expression in the joint space."""
        return self.space.expression(sample)

    def facts(self) -> dict[str, Any]:
        """Return the settings that were chosen, and what they were chosen from."""
        defaults = settings_to_dict(RetrievalSettings())
        chosen = settings_to_dict(self.predictor.settings)
        changes = {name: value for name, value in chosen.items() if value != defaults[name]}
        if self.calibration is None:
            return {"changes": changes}
        told = {name: self.calibration.facts[name] for name in ("candidates", "inflation")}
        return {"changes": changes, **told}


class EngineLine(Line):
    """Closed-form embedder, nested choice of settings, intervals.

    Its features are those of the shared backbone beside colour and texture statistics; the joint space
    is linear unless radial basis functions follow held-out training patients clearly better.

    Number of neighbours, weights, fusion of both similarities, centring, balance of patients,
    smoothing and the share of the regression are chosen, and interval widths measured, on training
    patients that were held out in turn, with the embedder fitted without them.

    Parameters
    ----------
    settings
        Settings of the evaluation; ``embedder_config["engine"]`` may name another ``embedder``, and
        leave the colour ``statistics`` out.
    """

    name = NAME
    title = "full engine (settings by nested choice)"
    family = Family.ENGINE

    def __init__(self, settings: EvaluationSettings) -> None:
        asked = settings.embedder_config.get(NAME, {})
        plain = "frozen" if settings.backbone is not None else "colour"
        self.embedder = asked.get("embedder", plain)
        if asked.get("statistics", True):
            settings = _with_statistics(settings)
        if self.embedder in _CLOSED_FORM:
            settings = _with_kernels(settings, self.embedder)
        self._base = EmbedderLine(self.embedder, settings)
        self.stochastic = self._base.stochastic

    def fit(self, training: Training, *, seed: int) -> Fitted:
        """Choose and calibrate on held-out training patients, then fit on all of them."""
        calibration = self._calibrate(training, seed)
        settings = RetrievalSettings() if calibration is None else calibration.settings
        space = self._space(training, seed)
        predictor = Predictor(_pool(space, training), settings, score_ood=False)
        return FittedEngine(space, predictor, training.genes, calibration)

    def _space(self, training: Training, seed: int) -> Space:
        if not _has_images(training.inputs):
            joint = JointSettings(method=JointMethod.AUTO)
            return QuerySpace(JointLine(joint).fit(training, seed=seed))
        embedder, _ = self._base.fit_embedder(training, seed=seed)
        return EmbedderSpace(embedder)

    def _calibrate(self, training: Training, seed: int) -> Calibration | None:
        folds = []
        for inner, out in inner_splits(training):
            if inner is training:
                return None
            pool = _pool(self._space(inner, seed), training)
            folds.append(_held_out(pool, out))
        return calibrate(folds, refitted=True, progress=training.progress)


def _with_statistics(settings: EvaluationSettings) -> EvaluationSettings:
    """Return the settings with a backbone whose features hold colour statistics, too."""
    if settings.backbone is None:
        return settings
    encoder = {**settings.backbone.get("encoder", {}), "statistics": True}
    return replace(settings, backbone={**settings.backbone, "encoder": encoder})


def _with_kernels(settings: EvaluationSettings, embedder: str) -> EvaluationSettings:
    """Return the settings with a joint space that may follow what is not linear."""
    given = settings.embedder_config.get(embedder, {})
    if given.get("head", Head.CLOSED_FORM.value) != Head.CLOSED_FORM.value:
        return settings
    joint = {"method": JointMethod.AUTO.value, **given.get("joint", {})}
    own = {**given, "joint": joint}
    return replace(settings, embedder_config={**settings.embedder_config, embedder: own})


def _has_images(inputs: Inputs) -> bool:
    source = getattr(inputs, "source", inputs)
    return isinstance(source, ImageInputs)


def _pool(space: Space, training: Training) -> ArrayPool:
    """Return all training spots in a space, with their expression."""
    samples = training.samples
    return ArrayPool.build(
        {
            "image": np.concatenate([space.image(s, training.inputs) for s in samples]),
            "expression": np.concatenate([space.expression(s) for s in samples]),
        },
        np.concatenate(training.truth),
        training.genes,
        sections=[str(name) for name in training.names],
        patients=[str(name) for name in training.patients],
        xy_um=np.concatenate([sample.section.xy_um for sample in samples]),
    )


def _held_out(pool: ArrayPool, out: Sequence[Sample]) -> HeldOut:
    """Return a fold of held-out sections, on a sample of large pools."""
    everything = np.ones(len(pool.spots), dtype=np.bool_)
    local = ArrayPool.of(pool, np.flatnonzero(sample_spots(pool, everything, MAX_SPOTS)))
    names = {sample.name for sample in out}
    held = local.spots["section"].isin(names).to_numpy()
    return HeldOut(", ".join(sorted({s.patient for s in out})), local, np.flatnonzero(held), ~held)
