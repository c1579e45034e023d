"""At what distance from the reference should a query give no value?

    python benchmarks/abstain.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

DATA holds `her2st/<section>/` (A1, B4, C2-C5 of three patients), `mob_st1k/Rep1`, `mob_st2k/MOB1`,
`mob_st2k/MOB2`, `mouse_colon_visium/d14_image_only/image.jpg` and `wsi/aperio/CMU-1-Small-Region.svs`.
One patient after the other is left out altogether: a reference is built from the sections of the others
and asked as a query asks it, by what patches look like beside its thumbnails. `excess` is a patch's
distance to the reference in units of the distance that 99 % of reference spots keep to other patients;
a query abstains above `abstain`, and marks patches whose score (the share of reference spots that lie
nearer to other patients) is above 0.99.

Printed for each embedder and patient: the share of patches that are marked, their median excess and the
shares above each threshold, for the patient who was left out and for foreign images (mouse olfactory
bulb, mouse colon, tissue of another laboratory, white noise, plain white, inverted colours); last the
share that is marked by image embeddings, as for pools without thumbnails; and the error of the
predictions by excess. Writes FOLDER/abstain.md.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _sections import cut_to_shared_genes, patches_of, read_all, truth
from scipy.stats import spearmanr

from stretrieve import BuildSettings, Reference, Section, build_reference
from stretrieve.embedders import Embedder, create_embedder
from stretrieve.query import ArrayPool, Predictor, QuerySettings
from stretrieve.query.choose import variable_genes
from stretrieve.query.locate import locate
from stretrieve.query.look import comparable_px, looks_of_patches
from stretrieve.query.predictor import PoolFacts
from stretrieve.query.rows import OOD_LIMIT
from stretrieve.slides import open_slide, read_patches
from stretrieve.slides.types import PatchBatch
from stretrieve.specs import PatchSpec
from stretrieve.units import MppSource, PixelSize

Pixels = np.ndarray

THRESHOLDS = (1.0, 1.25, 1.5, 2.0, 3.0)
BINS = (0.0, 0.5, 1.0, 1.5, np.inf)
SLIDES = {
    "mouse colon": ("mouse_colon_visium/d14_image_only/image.jpg", 0.97),
    "CMU-1": ("wsi/aperio/CMU-1-Small-Region.svs", None),
}
MAX_PATCHES = 300
BATCH = 64


def on_tissue(path: Path, mpp: float | None, spec: PatchSpec) -> Pixels:
    """Return patches from all over a slide's tissue, at most ``MAX_PATCHES``."""
    size = None if mpp is None else PixelSize.square(mpp, MppSource.GIVEN)
    with open_slide(path, pixel_size=size) as slide:
        xy = locate(slide, spec, settings=QuerySettings(stride_um=100.0)).xy
        chosen = np.unique(np.linspace(0, len(xy) - 1, MAX_PATCHES).astype(int))
        return np.concatenate([b.views[0] for b in read_patches(slide, xy[chosen], spec)])


def no_tissue(patches: Pixels) -> dict[str, Pixels]:
    """Return as many patches of things that are no stained tissue."""
    rng = np.random.default_rng(0)
    return {
        "noise": rng.integers(0, 256, patches.shape, dtype=np.uint8),
        "white": np.full_like(patches, 244),
        "inverted": 255 - patches,
    }


def embed(embedder: Embedder, patches: Pixels) -> np.ndarray:
    """Return image embeddings ``(n_patches, dim)``."""
    features = []
    for start in range(0, len(patches), BATCH):
        view = patches[start : start + BATCH]
        xy, rows = np.zeros((len(view), 2)), np.arange(len(view))
        batch = PatchBatch((view,), xy, xy, rows, np.zeros(len(view), np.uint8))
        features.append(embedder.encode_patches(batch))
    return embedder.project_patches(np.concatenate(features), np.zeros((len(patches), 2)))


def errors(reference: Reference, vectors: np.ndarray, own: Mapping[str, Section]) -> np.ndarray:
    """Root mean squared error ``(n_own,)`` over the 200 most variable genes of the reference."""
    genes = list(variable_genes(ArrayPool.of(reference, np.arange(len(reference.spots)))))
    mean = Predictor(reference, score_ood=False).predict(vectors, genes).mean
    measured = np.concatenate([truth(section, genes) for section in own.values()])
    return np.sqrt(np.nanmean((mean - measured) ** 2, axis=1))


def by_excess(excess: np.ndarray, error: np.ndarray) -> str:
    """Return mean error and number of patches in bins of excess."""
    cells = []
    for low, high in itertools.pairwise(BINS):
        inside = (excess > low) & (excess <= high)
        cells.append(f"{error[inside].mean():.3f} ({inside.sum()})" if inside.any() else "none")
    return " | ".join(cells)


def judge(name: str, config: Mapping, data: Path, out: Path) -> tuple[list[str], list[str]]:
    """Return the rows of one embedder: shares above thresholds, and errors."""
    spec = create_embedder(name, config).spec
    human, bulb = cut_to_shared_genes(read_all(data, "her2st")), read_all(data, "bulb")
    pixels = {
        k: np.asarray(patches_of(s, spec, cache=out / "patches").views[0])
        for k, s in (human | bulb).items()
    }
    foreign = {f"mouse {k}": pixels[k] for k in bulb}
    foreign |= {k: on_tissue(data / path, mpp, spec) for k, (path, mpp) in SLIDES.items()}
    shares, curves = [], []
    for patient in "ABC":
        own = {k: s for k, s in human.items() if s.meta.patient == patient}
        others = [s for k, s in human.items() if k not in own]
        label, folder = f"{name}, without {patient}", out / f"{name}-{patient}"
        shutil.rmtree(folder, ignore_errors=True)
        settings = BuildSettings(embedder=name, embedder_config=config)
        reference = build_reference(others, folder, settings=settings)
        asked = {f"patient {patient}": np.concatenate([pixels[k] for k in own])} | foreign
        asked |= no_tissue(pixels[next(iter(own))])
        facts, everybody = PoolFacts(reference), np.ones(len(reference.spots), np.bool_)
        familiar, joint = facts.familiar_looks(everybody), facts.familiarity(everybody)
        thumbnail_px = comparable_px(reference, spec.primary)
        for what, patches in asked.items():
            looks = looks_of_patches(patches, thumbnail_px=thumbnail_px)
            vectors = embed(reference.embedder, patches)
            unlike, before = familiar.unlikeness(looks), joint.unlikeness(vectors)
            excess = unlike.excess
            marked = f"{np.mean(unlike.score > OOD_LIMIT):.1%}"
            over = " | ".join(f"{np.mean(excess > t):.1%}" for t in THRESHOLDS)
            shares.append(
                f"| {label} | {what} | {len(patches)} | {marked} | {np.median(excess):.2f} | {over} "
                f"| {np.mean(before.score > OOD_LIMIT):.1%} |"
            )
            if what == f"patient {patient}":
                error = errors(reference, vectors, own)
                rho = spearmanr(excess, error).statistic
                curves.append(f"| {label} | {rho:+.2f} | {by_excess(excess, error)} |")
    return shares, curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedders", default="colour,frozen")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    configs = {
        "colour": {"side_um": 200.0},
        "frozen": {
            "encoder": {
                "backbone": "mobilenetv2_100", "weights": str(args.weights.resolve()),
                "model_kwargs": {"pad_type": "same"}, "mean": [0.5] * 3, "std": [0.5] * 3,
            },
            "side_um": 200.0,
        },
    }  # fmt: skip
    heads = " | ".join(f"> {t:g}" for t in THRESHOLDS)
    bins = " | ".join(f"{a:g}-{b:g}" for a, b in itertools.pairwise(BINS))
    tables: list[str] = []
    for name in args.embedders.split(","):
        shares, curves = judge(name, configs[name], args.data, args.out)
        tables += [
            f"| reference | asked | patches | marked | median excess | {heads} | marked by embedding |",
            "|" + "---|" * (6 + len(THRESHOLDS)), *shares, "",
            f"| the patient left out | rank correlation | error at excess {bins} |",
            "|" + "---|" * (1 + len(BINS)), *curves, "",
        ]  # fmt: skip
    text = "\n".join(tables)
    (args.out / "abstain.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
