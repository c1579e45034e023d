"""Tables of what `embedders.py` has written so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

Run = dict[str, Any]
Value = Callable[[dict[str, Any]], float]

LINES = {
    "mean_profile": "mean profile",
    "ridge": "ridge",
    "reduced_rank_ridge": "reduced-rank ridge",
    "knn": "kNN",
}
BASELINE_FEATURES = {
    "colour": "colour",
    "frozen": "image",
    "m2ost": "M2OST",
    "m2ost, regression": "M2OST regression",
}
"""Variants whose backbone features the baselines are fitted on; all others share ``frozen``'s."""
SETS = ("HVG50", "LOG50")
PREDICTIONS = (
    "retrieval",
    "retrieval, image to image",
    "retrieval, slide centred",
    "own head",
)
DIRECTIONS = ("image to expression", "expression to image")


def render(folder: Path, tissue: str) -> str:
    """Return the tables of a tissue as Markdown; the header is the caller's."""
    files = sorted(folder.glob(f"{tissue}_*.json"), key=lambda path: path.stat().st_mtime)
    runs = [json.loads(path.read_text()) for path in files]
    plain = [r for r in runs if not r["control"]]
    tables = (
        *(prediction(plain, genes) for genes in SETS),
        *(recall(plain, direction) for direction in DIRECTIONS),
        controls(runs),
    )
    return "\n".join(tables)


def variants(runs: Iterable[Run]) -> list[str]:
    """Return the names of variants in the order of their first run."""
    return list(dict.fromkeys(r["variant"] for r in runs))


def mean(runs: list[Run], value: Value) -> float:
    """Average over the sections of a fold, then folds (patients), then seeds."""
    return float(np.mean(by_seed(runs, value))) if runs else float("nan")


def by_seed(runs: list[Run], value: Value) -> list[float]:
    """Return one mean over patients for each seed."""
    seeds = sorted({r["seed"] for r in runs})
    return [float(np.mean([of_run(r, value) for r in runs if r["seed"] == s])) for s in seeds]


def of_run(run: Run, value: Value) -> float:
    """Return the mean over the sections that a run was scored on."""
    return float(np.mean([value(section) for section in run["sections"].values()]))


def prediction(runs: list[Run], genes: str) -> str:
    """Return mean per-gene Pearson by patient left out; what a method does not beat is named."""
    folds = list(dict.fromkeys(r["fold"] for r in runs))
    lines = [
        f"| prediction, {genes} | "
        + " | ".join(f"{fold} out" for fold in folds)
        + " | mean | sd of seeds | not above |",
        "|---|" + "---|" * (len(folds) + 3),
    ]
    lines += [_row(label, values) for label, values in _baselines(runs, folds, genes).items()]
    for variant in variants(runs):
        own = [r for r in runs if r["variant"] == variant]
        for key in PREDICTIONS:
            if all(key in s for r in own for s in r["sections"].values()):
                value = _getter(key, genes)
                values = [mean([r for r in own if r["fold"] == fold], value) for fold in folds]
                rivals = _rivals(runs, folds, genes, variant)
                above = [name for name, line in rivals.items() if np.mean(line) >= np.mean(values)]
                spread = f"{np.std(by_seed(own, value)):.3f}" if _n_seeds(own) > 1 else ""
                lines.append(_row(f"`{variant}`: {key}", values, spread, ", ".join(above) or "–"))
    return "\n".join(lines) + "\n"


def _baselines(runs: list[Run], folds: list[str], genes: str) -> dict[str, list[float]]:
    """Return the scores of every baseline by fold."""
    table: dict[str, list[float]] = {}
    for variant, features in BASELINE_FEATURES.items():
        own = {
            r["fold"]: r["baselines"] for r in runs if r["variant"] == variant and "baselines" in r
        }
        for key, label in LINES.items():
            full = label if key == "mean_profile" else f"{features} {label}"
            if set(own) == set(folds):
                table[full] = [
                    float(np.mean([s[key][genes] for s in own[fold].values()])) for fold in folds
                ]
    return table


def _rivals(runs: list[Run], folds: list[str], genes: str, variant: str) -> dict[str, list[float]]:
    """Return the baselines on a variant's own features, mean profile and colour ridge."""
    features = BASELINE_FEATURES.get(variant, BASELINE_FEATURES["frozen"])
    wanted = {"mean profile", "colour ridge", *(f"{features} {x}" for x in LINES.values())}
    table = _baselines(runs, folds, genes)
    return {name: values for name, values in table.items() if name in wanted}


def _n_seeds(runs: list[Run]) -> int:
    return len({r["seed"] for r in runs})


def recall(runs: list[Run], direction: str) -> str:
    """Return recall of the own partner, as a multiple of chance in brackets."""
    keys = [k for k in next(iter(runs[0]["sections"].values()))[direction] if k.startswith("@")]
    lines = [
        f"| {direction} | " + " | ".join(f"recall{key}" for key in keys) + " | epochs |",
        "|---|" + "---|" * (len(keys) + 1),
    ]
    first = [r for r in runs if r["variant"] == runs[0]["variant"]]
    chances = [mean(first, lambda s, key=key: _chance(s[direction], key)) for key in keys]
    lines.append("| chance | " + " | ".join(f"{c:.3f}" for c in chances) + " | |")
    for variant in variants(runs):
        own = [r for r in runs if r["variant"] == variant]
        found = [mean(own, lambda s, key=key: s[direction][key]) for key in keys]
        cells = [f"{f:.3f} ({f / c:.1f}×)" for f, c in zip(found, chances, strict=True)]
        epochs = ", ".join(str(r["epochs"]) for r in own)
        lines.append(f"| `{variant}` | " + " | ".join(cells) + f" | {epochs} |")
    return "\n".join(lines) + "\n"


def controls(runs: list[Run]) -> str:
    """Return what must be at chance: recall@10 over chance and correlation, with their spread."""
    lines = [
        "| control | runs | recall@10 / chance | HVG50, retrieval | LOG50, retrieval |",
        "|---|---|---|---|---|",
    ]
    for variant in variants(runs):
        own = [r for r in runs if r["variant"] == variant]
        shuffled = [r for r in own if r["control"]]
        noise = [{**r, "sections": r["noise patches"]} for r in own if "noise patches" in r]
        for label, group in (("shuffled pairing", shuffled), ("noise patches", noise)):
            if group:
                over = [of_run(r, _over_chance) for r in group]
                scores = [[of_run(r, _getter("retrieval", g)) for r in group] for g in SETS]
                cells = [f"{np.mean(over):.2f} ± {np.std(over):.2f}"]
                cells += [f"{np.mean(x):+.3f} ± {np.std(x):.3f}" for x in scores]
                lines.append(f"| `{variant}`, {label} | {len(group)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _getter(key: str, genes: str) -> Value:
    return lambda section: section[key][genes]


def _over_chance(section: dict[str, Any]) -> float:
    recalls = section[DIRECTIONS[0]]
    return recalls["@10"] / _chance(recalls, "@10")


def _chance(recalls: dict[str, float], key: str) -> float:
    n = recalls["n"]
    if key.endswith("%"):
        return max(1, round(float(key[1:-1]) / 100 * n)) / n
    return min(1.0, int(key[1:]) / n)


def _row(label: str, values: list[float], spread: str = "", above: str = "") -> str:
    cells = " | ".join(f"{value:+.3f}" for value in (*values, float(np.mean(values))))
    return f"| {label} | {cells} | {spread} | {above} |"
