"""Every embedder on real tissue, split by patient: retrieval, prediction, controls.

    python benchmarks/embedders.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

DATA holds `her2st/A1, B4, C2-C5` (Andersson et al. 2021) and the olfactory bulb sections
`mob_st1k/Rep1`, `mob_st2k/MOB1`, `mob_st2k/MOB2`. Each fold leaves one patient out; whatever is
learnt or chosen (genes, scalers, components, penalties, epochs) comes from the other patients.

Every (embedder, fold, seed, control) is written to FOLDER as soon as it is done, and is not done
again: a run that was stopped goes on. Backbone features are kept in FOLDER/features and shared. At
the end FOLDER/embedders_<tissue>.md holds the tables.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from _embedder_tables import BASELINE_FEATURES, render
from _sections import FOLDS, Fold, noise, patches_of, read_all, shuffled, truth

from stretrieve.embedders import Embedder, SectionPatches, create_embedder, kept_features
from stretrieve.embedders.checks import batch_of
from stretrieve.embedders.m2ost import M2ostEmbedder
from stretrieve.embedders.trainable import as_trainable
from stretrieve.evaluation import BASELINES, TrainingData, freeze_gene_sets, score_prediction
from stretrieve.metrics import mean_reciprocal_rank, paired_ranks, recall_at_k
from stretrieve.spots import Section, highly_variable_genes
from stretrieve.training import TrainSettings, fit_embedder

K = (1, 5, 10, 50)
SHARES = (0.01, 0.05, 0.10)
NEIGHBOURS = 50
PANEL = 1000
BATCH = 64
SEEDS = (0, 1, 2)
SHUFFLED = "shuffled pairing"
SMALL_M2OST = MappingProxyType({"patch_px": 64, "network": {"depth": 2}})
M2OST_RUNS: Mapping[str, Any] = MappingProxyType(
    {"seeds": (0,), "shuffles": (0,), "control": ("C", "mouse 1")}
)
FEW_EPOCHS = MappingProxyType({"epochs": 3, "patience": 2, "batch_size": 64})


@dataclass(frozen=True)
class Variant:
    """An embedder with its settings.

    Parameters
    ----------
    embedder
        Registered name.
    config
        Settings beside the backbone and the seed.
    train
        Settings of the training loop.
    backbone
        Whether it takes the pretrained tower.
    seeds
        Seeds to run it with.
    shuffles
        Seeds of the control with shuffled pairing.
    control
        Folds to run the control on, the smallest where training is slow; ``None`` for all.
    """

    embedder: str
    config: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    backbone: bool = True
    seeds: tuple[int, ...] = SEEDS
    shuffles: tuple[int, ...] = (0, 1)
    control: tuple[str, ...] | None = None


VARIANTS = MappingProxyType(
    {
        "colour": Variant("colour", backbone=False, seeds=(0,)),
        "frozen": Variant("frozen", seeds=(0,)),
        "frozen, cca": Variant("frozen", {"joint": {"method": "cca"}}, seeds=(0,)),
        "bleep": Variant("bleep"),
        "mclstexp": Variant("mclstexp"),
        "stgchb": Variant("stgchb"),
        "stgchb, both sides gathered alike": Variant(
            "stgchb", {"expression_self_weight": 16.0}, seeds=(0,), shuffles=()
        ),
        "m2ost": Variant("m2ost", SMALL_M2OST, FEW_EPOCHS, backbone=False, **M2OST_RUNS),
        "m2ost, regression": Variant(
            "m2ost",
            {**SMALL_M2OST, "objective": "regression"},
            FEW_EPOCHS,
            backbone=False,
            **M2OST_RUNS,
        ),
    }
)


def make(variant: Variant, weights: Path, seed: int) -> Embedder:
    """Build an unfitted embedder."""
    config = dict(variant.config)
    if variant.backbone:
        config["encoder"] = {
            "backbone": "mobilenetv2_100",
            "weights": str(weights),
            "model_kwargs": {"pad_type": "same"},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
    if variant.embedder != "colour":
        config["seed"] = seed
    return create_embedder(variant.embedder, config)


def features_of(embedder: Embedder, patches: SectionPatches) -> np.ndarray:
    """Return the backbone's features of every spot."""
    starts = range(0, patches.section.n_spots, BATCH)
    return np.concatenate(
        [embedder.encode_patches(batch_of(patches, slice(s, s + BATCH))) for s in starts]
    )


def spots_of(embedder: Embedder, section: Section) -> np.ndarray:
    """Return the expression embeddings of a section."""
    return embedder.embed_expression(section.counts, section.gene_names, section.xy_um)


def retrieve(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Average the values of the nearest keys by cosine."""
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (query, keys)]
    k = min(NEIGHBOURS, len(keys))
    nearest = np.argpartition(-(unit[0] @ unit[1].T), k - 1, axis=1)[:, :k]
    return values[nearest].mean(axis=1)


def recalls(query: np.ndarray, keys: np.ndarray) -> dict[str, float]:
    """Return recall of the own partner among the spots of the section, with chance."""
    ranks, n = paired_ranks(query, keys), len(keys)
    found = {f"@{k}": recall_at_k(ranks, k) for k in K}
    found |= {f"@{share:.0%}": recall_at_k(ranks, max(1, round(share * n))) for share in SHARES}
    return {**found, "mrr": mean_reciprocal_rank(ranks), "n": n}


@dataclass(frozen=True)
class Split:
    """A fold with what is known before any embedder.

    Parameters
    ----------
    train, test
        Sections.
    panel
        Genes that baselines learn, chosen on the training sections and measured by all of them and
        by the test sections.
    sets
        Positions in ``panel`` of the genes that are scored, by name of the set.
    """

    train: list[Section]
    test: list[Section]
    panel: list[str]
    sets: dict[str, list[int]]

    @classmethod
    def of(cls, fold: Fold, sections: Mapping[str, Section]) -> Split:
        train, test = ([sections[name] for name in side] for side in (fold.train, fold.test))
        wide, log50 = highly_variable_genes(train, PANEL), most_variable_log(train)
        measured = set.intersection(*(set(s.gene_names) for s in test))
        panel = [gene for gene in dict.fromkeys([*wide, *log50]) if gene in measured]
        chosen = {"HVG50": freeze_gene_sets(train).hvg50, "LOG50": log50}
        sets = {k: [panel.index(g) for g in v if g in measured] for k, v in chosen.items()}
        return cls(train, test, panel, sets)

    def score(self, predicted: np.ndarray, section: Section) -> dict[str, float]:
        """Return the mean per-gene Pearson over each set of a prediction of the panel."""
        expected = truth(section, self.panel)
        scores = {}
        for name, columns in self.sets.items():
            known = [i for i in columns if np.isfinite(predicted[:, i]).all()]
            genes = [self.panel[i] for i in known]
            score = score_prediction(predicted[:, known], expected[:, known], genes, genes)
            scores[name] = score.pcc_hvg.mean
        return scores


def most_variable_log(sections: list[Section], n: int = 50) -> list[str]:
    """Return the genes whose log1p CP10k varies most within training sections."""
    genes = sorted(set.intersection(*(set(s.gene_names) for s in sections)))
    spread = np.mean([truth(s, genes).var(axis=0) for s in sections], axis=0)
    return [genes[i] for i in np.argsort(-spread, kind="stable")[:n]]


def evaluate(
    embedder: Embedder, split: Split, train: list[SectionPatches], test: list[SectionPatches]
) -> dict[str, Any]:
    """Score a fitted embedder on the sections of the patient that was left out."""
    spot_keys = np.concatenate([spots_of(embedder, p.section) for p in train])
    patch_keys = np.concatenate(
        [embedder.project_patches(features_of(embedder, p), p.section.xy_um) for p in train]
    )
    data = training_data(train, split.panel)
    values = data.centred()
    results = {}
    for patches in test:
        section = patches.section
        features = features_of(embedder, patches)
        image = embedder.project_patches(features, section.xy_um)
        own = spots_of(embedder, section)
        predictions = {
            "retrieval": retrieve(image, spot_keys, values) + data.profile,
            "retrieval, image to image": retrieve(image, patch_keys, values) + data.profile,
            "retrieval, slide centred": data.profile
            + retrieve(image - image.mean(axis=0), spot_keys, values),
            **own_head(embedder, features, split.panel),
        }
        results[section.meta.section] = {
            "image to expression": recalls(image, own),
            "expression to image": recalls(own, image),
            **{name: split.score(values, section) for name, values in predictions.items()},
        }
    return results


def own_head(embedder: Embedder, features: np.ndarray, panel: list[str]) -> dict[str, np.ndarray]:
    """Return the prediction of M2OST's own regression head; NaN where it has no output."""
    if (
        not isinstance(embedder, M2ostEmbedder)
        or embedder.to_config()["objective"] == "contrastive"
    ):
        return {}
    predicted = embedder.predict_expression(features)
    where = {gene: i for i, gene in enumerate(embedder.gene_names)}
    full = np.full((len(features), len(panel)), np.nan)
    for column, gene in enumerate(panel):
        if gene in where:
            full[:, column] = predicted[:, where[gene]]
    return {"own head": full}


def training_data(
    train: list[SectionPatches], genes: list[str], features: np.ndarray | None = None
) -> TrainingData:
    """Return features (or none) and expression of the training spots."""
    sections = [p.section for p in train]
    n_spots = sum(s.n_spots for s in sections)
    return TrainingData.build(
        np.zeros((n_spots, 1)) if features is None else features,
        np.concatenate([truth(s, genes) for s in sections]),
        np.concatenate([[s.meta.section] * s.n_spots for s in sections]),
        groups=np.concatenate([[s.meta.patient] * s.n_spots for s in sections]),
    )


def baselines(
    embedder: Embedder, split: Split, train: list[SectionPatches], test: list[SectionPatches]
) -> dict[str, Any]:
    """Score the simple lines on the backbone features of an embedder."""
    inputs = np.concatenate([features_of(embedder, p) for p in train])
    fitted = {
        name: fit(training_data(train, split.panel, inputs)) for name, fit in BASELINES.items()
    }
    return {
        p.section.meta.section: {
            name: split.score(line.predict(features_of(embedder, p)), p.section)
            for name, line in fitted.items()
        }
        for p in test
    }


def plan(only: list[str], folds: Sequence[Fold]) -> Iterator[tuple[str, int, str, Fold]]:
    """Yield (variant, seed, control, fold), in the order of the table, quick ones first."""
    for name, variant in VARIANTS.items():
        if only and name not in only:
            continue
        for seed, fold in product(variant.seeds, folds):
            yield name, seed, "", fold
        for seed, fold in product(variant.shuffles, folds):
            if variant.control is None or fold.name in variant.control:
                yield name, seed, SHUFFLED, fold


def run(
    args: argparse.Namespace, name: str, split: Split, *, seed: int, control: str
) -> dict[str, Any]:
    """Fit one variant on a fold and score it."""
    variant = VARIANTS[name]
    embedder = make(variant, args.weights, seed)
    cache = args.out / "patches"
    train = [patches_of(s, embedder.spec, cache=cache) for s in split.train]
    test = [patches_of(s, embedder.spec, cache=cache) for s in split.test]
    if control == SHUFFLED:
        train = [shuffled(p, seed=100 * seed + i) for i, p in enumerate(train)]
    start = time.monotonic()
    settings = TrainSettings(seed=seed, device="cpu", **variant.train)
    report = fit_embedder(embedder, train, settings=settings)
    seconds = time.monotonic() - start
    result = {
        "trained": as_trainable(embedder) is not None,
        "epochs": report.epochs,
        "held_out": list(report.held_out),
        "recall on held-out patients": [[r.epoch, r.recall, r.chance] for r in report.history],
        "seconds": round(seconds, 1),
        "sections": evaluate(embedder, split, train, test),
    }
    if not control and seed == 0:
        if name in BASELINE_FEATURES:
            result["baselines"] = baselines(embedder, split, train, test)
        blank = [noise(p, seed=i) for i, p in enumerate(test)]
        result["noise patches"] = evaluate(embedder, split, train, blank)
    return result


def header() -> str:
    """Return how the tables were made."""
    packages = ("stretrieve", "torch", "timm", "numpy", "scipy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        "`python benchmarks/embedders.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER`, "
        f"seeds {', '.join(map(str, SEEDS))} where something is trained or drawn (`m2ost`: 0), on CPU.\n"
        f"Python {platform.python_version()}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", default=[], help="variants, all without")
    parser.add_argument("--tissue", choices=sorted(FOLDS), action="append", default=[])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for tissue in args.tissue or FOLDS:
        sections = read_all(args.data, tissue)
        splits = {fold.name: Split.of(fold, sections) for fold in FOLDS[tissue]}
        for name, seed, control, fold in plan(args.only, FOLDS[tissue]):
            label = f"{tissue} {name} {fold.name} {seed} {control}".strip().replace(" ", "_")
            path = args.out / "runs" / f"{label}.json"
            if path.exists():
                continue
            with kept_features(args.out / "features"):
                result = run(args, name, splits[fold.name], seed=seed, control=control)
            facts = {"variant": name, "fold": fold.name, "seed": seed, "control": control}
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({**facts, **result}, indent=1))
            print(f"{label}: {result['seconds']} s, {result['epochs']} epochs", flush=True)
        text = f"{header()}\n\n{render(args.out / 'runs', tissue)}"
        (args.out / f"embedders_{tissue}.md").write_text(text)


if __name__ == "__main__":
    main()
