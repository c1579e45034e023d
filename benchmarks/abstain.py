"""At what distance from the reference should a query give no value?

    python benchmarks/abstain.py DATA --weights mobilenetv2_imagenet.safetensors --out FOLDER

DATA holds `her2st/<section>/` (A1, B4, C2-C5 of three patients), `mob_st1k/Rep1` and `mob_st2k/MOB1`.
One patient after the other is left out altogether: the embedder is fitted on the others, whose spots are
the reference. `excess` is a patch's distance to the reference in units of the distance that 99 % of
reference spots keep to other patients; a query abstains above `abstain`, and marks patches whose score
(the share of reference spots that lie nearer to other patients) is above 0.99.

Printed for each embedder and patient: the share of patches that are marked and above each threshold, for
the patient who was left out and for foreign images (mouse olfactory bulb, white noise, plain white,
inverted colours), and the error of the predictions by excess. Writes FOLDER/abstain.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _sections import noise, patches_of, read_all
from calibration import common_genes, image_pool
from scipy.stats import spearmanr

from stretrieve.embedders import SectionPatches, create_embedder
from stretrieve.query import ArrayPool, Predictor
from stretrieve.query.choose import variable_genes
from stretrieve.query.ood import Familiarity
from stretrieve.query.rows import OOD_LIMIT
from stretrieve.reference.embed import embed_images

THRESHOLDS = (1.0, 1.25, 1.5, 2.0, 3.0)
BINS = (0.0, 0.5, 1.0, 1.5, np.inf)


def pixels(patches: SectionPatches, change: str) -> SectionPatches:
    """Return the patches of something that is no stained tissue."""
    if change == "noise":
        return noise(patches, seed=0)
    views = {
        "white": tuple(np.full_like(view, 244) for view in patches.views),
        "inverted": tuple(255 - view for view in patches.views),
    }[change]
    return SectionPatches(patches.section, views)


def errors(pool: ArrayPool, known: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Root mean squared error ``(n_own,)`` over the 200 most variable genes of the reference."""
    genes = list(variable_genes(ArrayPool.of(pool, np.flatnonzero(known))))
    predictor = Predictor(pool, allowed=known, score_ood=False)
    mean = predictor.predict(pool.embeddings("image", own), genes).mean
    truth = pool.log_expression(own, genes).toarray()
    return np.sqrt(np.nanmean((mean - truth) ** 2, axis=1))


def by_excess(excess: np.ndarray, error: np.ndarray) -> str:
    """Return mean error and number of patches in bins of excess."""
    cells = []
    for low, high in itertools.pairwise(BINS):
        inside = (excess > low) & (excess <= high)
        cells.append(f"{error[inside].mean():.3f} ({inside.sum()})" if inside.any() else "none")
    return " | ".join(cells)


def judge(name: str, config: Mapping, data: Path, out: Path) -> list[str]:
    """Return the rows of one embedder: shares above thresholds, and errors."""
    spec = create_embedder(name, config).spec
    human = {
        k: patches_of(s, spec, cache=out / "patches") for k, s in read_all(data, "her2st").items()
    }
    bulb = read_all(data, "bulb")
    mouse = {k: patches_of(bulb[k], spec, cache=out / "patches") for k in ("Rep1", "MOB1")}
    genes = common_genes([p.section for p in human.values()])
    shares, curves = [], []
    for patient in "ABC":
        fit_on = [p for p in human.values() if p.section.meta.patient != patient]
        embedder = create_embedder(name, config)
        embedder.fit(fit_on)
        pool = image_pool(config, name, fit_on, list(human.values()), genes)
        donors = pool.spots["patient"].to_numpy()
        known, own = donors != patient, np.flatnonzero(donors == patient)
        familiar = Familiarity.fit(pool, known)
        foreign = {f"mouse {k}": p for k, p in mouse.items()}
        first = next(p for p in human.values() if p.section.meta.patient == patient)
        foreign |= {change: pixels(first, change) for change in ("noise", "white", "inverted")}
        asked = {f"patient {patient}": pool.embeddings("image", own)} | {
            what: embed_images(embedder, patches, batch_size=64)
            for what, patches in foreign.items()
        }
        for what, vectors in asked.items():
            unlike = familiar.unlikeness(vectors)
            excess = unlike.excess
            marked = f"{np.mean(unlike.score > OOD_LIMIT):.1%}"
            over = " | ".join(f"{np.mean(excess > t):.1%}" for t in THRESHOLDS)
            shares.append(
                f"| {name}, without {patient} | {what} | {len(vectors)} | {marked} | {over} |"
            )
            if what == f"patient {patient}":
                error = errors(pool, known, own)
                rho = spearmanr(excess, error).statistic
                curves.append(f"| {name}, {what} | {rho:+.2f} | {by_excess(excess, error)} |")
    return [*shares, "", *curves, ""]


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
        shares, curves = "\n".join(judge(name, configs[name], args.data, args.out)).split("\n\n")[
            :2
        ]
        tables += [
            f"| reference | asked | patches | marked | {heads} |",
            "|" + "---|" * (4 + len(THRESHOLDS)),
            shares, "",
            f"| patient left out | rank correlation | error at excess {bins} |",
            "|" + "---|" * (1 + len(BINS)), curves.strip(), "",
        ]  # fmt: skip
    text = "\n".join(tables)
    (args.out / "abstain.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
