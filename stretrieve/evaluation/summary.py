"""From every number of an evaluation to its tables: genes, sections, patients, lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from stretrieve._files import atomic_path, write_json
from stretrieve.evaluation.judge import CROSS_GENE, OPTIMISTIC, PRIMARY
from stretrieve.evaluation.lines.base import Family
from stretrieve.evaluation.runner import read_run
from stretrieve.evaluation.workbench import FACTS, PARTS, SCORES
from stretrieve.metrics import PatientMean, compare_paired

RESULTS: Final = "results.parquet"
GENES: Final = "genes.csv"
SUMMARY: Final = "summary.json"
MAIN_SET: Final = "HVG50"
CHANCE_LIMIT: Final = 0.05
"""A control counts as chance when its mean is within this, or indistinguishable from 0."""

PERMUTED_GENES: Final = "control-permuted-genes"
_HPG: Final = 50
_COLUMNS: Final = ("patient", "section", "line", "seed", "metric", "gene", "value", "fold")
_RESAMPLES: Final = 10_000


@dataclass(frozen=True)
class Collected:
    """Every number of an evaluation.

    Parameters
    ----------
    run
        Description of the run.
    scores
        Columns ``patient, section, line, seed, metric, gene, value, fold``.
    facts
        What each fit said about itself.
    """

    run: Mapping[str, Any]
    scores: pd.DataFrame
    facts: tuple[Mapping[str, Any], ...]

    def sets(self) -> pd.DataFrame:
        """Return the gene sets of each fold, columns ``fold, set, gene``."""
        names = {
            "hvg50": "HVG50",
            "hvg200": "HVG200",
            "heg50": "HEG50",
            "hmhvg200": "HMHVG200",
            "markers": "markers",
            "panel": "ALL",
        }
        rows = [
            (fold["held_out"], names[name], gene)
            for fold in self.run["folds"]
            for name, genes in fold["sets"].items()
            for gene in genes
        ]
        return pd.DataFrame(rows, columns=["fold", "set", "gene"])

    def family(self, line: str) -> str:
        """Return the family of a line."""
        return str(next(row["family"] for row in self.run["lines"] if row["line"] == line))


def collect(out: Path) -> Collected:
    """Read every finished fit of the lines that the run describes."""
    run = read_run(out)
    known = {row["line"] for row in run["lines"]}
    seeds = set(run["settings"]["seeds"])
    frames, facts = [], []
    for path in sorted((out / PARTS).glob(f"*/*/{FACTS}")):
        fact = json.loads(path.read_text())
        if fact["line"] not in known or fact["seed"] not in seeds:
            continue
        scores = pd.read_parquet(path.with_name(SCORES))
        frames.append(scores.assign(line=fact["line"], seed=fact["seed"], fold=fact["fold"]))
        facts.append(fact)
    if not frames:
        return Collected(run, pd.DataFrame(columns=list(_COLUMNS)), ())
    table = pd.concat(frames, ignore_index=True)[list(_COLUMNS)]
    for name in ("patient", "section", "line", "metric", "gene", "fold"):
        table[name] = table[name].astype("category")
    return Collected(run, table, tuple(facts))


def section_scores(collected: Collected) -> pd.DataFrame:
    """Return scores of sections: gene scores averaged within each gene set.

    Returns
    -------
    DataFrame
        Columns ``line, seed, patient, section, metric, set, value, n_valid, n_zeroed``; ``set`` is
        empty for scores that stand for a section.
    """
    scores = collected.scores
    by_gene = scores[scores["gene"] != ""]
    whole = scores[scores["gene"] == ""]
    keys = ["line", "seed", "patient", "section", "metric", "set"]
    merged = by_gene.astype({"gene": str, "fold": str}).merge(
        collected.sets(), on=["fold", "gene"], how="inner"
    )
    merged["zero"] = (merged["value"] == 0.0) & (merged["metric"] == PRIMARY)
    grouped = merged.groupby(keys, observed=True)
    means = grouped["value"].mean()
    medians = grouped["value"].median()
    is_ratio = means.index.get_level_values("metric") == "variance_ratio"
    table = pd.DataFrame(
        {
            "value": means.where(~is_ratio, medians),
            "n_valid": grouped["value"].count(),
            "n_zeroed": grouped["zero"].sum(),
        }
    ).reset_index()
    rest = whole.assign(set="", n_valid=1, n_zeroed=0)[[*keys, "value", "n_valid", "n_zeroed"]]
    return pd.concat([table, rest, _hpg(by_gene)], ignore_index=True).astype(
        dict.fromkeys(("line", "patient", "section", "metric", "set"), str)
    )


def _hpg(by_gene: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over the genes that a line itself predicted best over all folds (TRIPLEX)."""
    pcc = by_gene[by_gene["metric"] == PRIMARY]
    rows = []
    for (line, seed), part in pcc.groupby(["line", "seed"], observed=True):
        wide = part.pivot_table("value", "gene", "section", observed=True)
        ranks = wide.rank(ascending=False).mean(axis=1)
        best = ranks.sort_values(kind="stable").index[:_HPG]
        patients = part.drop_duplicates("section").set_index("section")["patient"]
        for section, value in wide.loc[best].mean().items():
            rows.append((line, seed, patients[section], section, value))
    table = pd.DataFrame(rows, columns=["line", "seed", "patient", "section", "value"])
    return table.assign(metric=f"{OPTIMISTIC}HPG50", set="", n_valid=_HPG, n_zeroed=0)


def patient_scores(sections: pd.DataFrame) -> pd.DataFrame:
    """Return scores of patients, columns ``line, metric, set, seed, patient, value``."""
    keys = ["line", "metric", "set", "seed", "patient"]
    return sections.groupby(keys, observed=True)["value"].mean().reset_index()


@dataclass(frozen=True)
class Macro:
    """One score of one line over patients.

    Parameters
    ----------
    mean
        Mean over patients of their mean over seeds.
    low, high
        95 % percentile bootstrap over patients; NaN with a single patient.
    seed_sd
        Standard deviation over seeds of the mean over patients; NaN with one seed.
    patients
        Score of each patient, averaged over seeds.
    """

    mean: float
    low: float
    high: float
    seed_sd: float
    patients: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the score as plain JSON data; NaN becomes null."""
        numbers = {"mean": self.mean, "low": self.low, "high": self.high, "seed_sd": self.seed_sd}
        return {
            **{name: _json(value) for name, value in numbers.items()},
            "patients": {name: _json(value) for name, value in self.patients.items()},
        }

    def as_patients(self) -> PatientMean:
        """Return the patients' scores for a paired comparison."""
        names = tuple(sorted(self.patients))
        values = np.array([self.patients[name] for name in names])
        return PatientMean(self.mean, names, values, len(names))


def _json(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def macro_scores(patients: pd.DataFrame) -> dict[tuple[str, str, str], Macro]:
    """Return every (line, metric, set) over patients."""
    known = patients.dropna(subset=["value"])
    found = {}
    for (line, metric, chosen), part in known.groupby(["line", "metric", "set"], observed=True):
        wide = part.pivot(index="seed", columns="patient", values="value")
        means = wide.mean(axis=0)
        over_seeds = wide.mean(axis=1)
        low, high = _bootstrap(means.to_numpy())
        found[(str(line), str(metric), str(chosen))] = Macro(
            mean=float(means.mean()),
            low=low,
            high=high,
            seed_sd=float(over_seeds.std(ddof=1)) if len(over_seeds) > 1 else float("nan"),
            patients={str(name): float(value) for name, value in means.items()},
        )
    return found


def _bootstrap(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def comparisons(
    macros: Mapping[tuple[str, str, str], Macro], lines: Sequence[str]
) -> list[dict[str, Any]]:
    """Compare every two lines on HVG50 correlation, paired over patients."""
    scored = {line: macros.get((line, PRIMARY, MAIN_SET)) for line in lines}
    rows = []
    for first, left in scored.items():
        for second, right in scored.items():
            if first == second or left is None or right is None:
                continue
            test = compare_paired(left.as_patients(), right.as_patients())
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "difference": _json(test.difference),
                    "low": _json(test.low),
                    "high": _json(test.high),
                    "p_value": _json(test.p_value),
                    "n_patients": test.n_patients,
                }
            )
    return rows


def control_verdicts(patients: pd.DataFrame, controls: Sequence[str]) -> list[dict[str, Any]]:
    """Say whether each negative control sits at chance on HVG50 correlation.

    The unit is a patient with one seed. Chance is 0, but for permuted genes it is what the same
    predictions correlate with *other* genes: all genes of a section share some pattern, of depth at
    least. A control fails when it is beyond 0.05 of chance *and* differs from it by a t test at
    the 1 % level: with few folds and one strong pattern of tissue a single random fit can
    correlate by accident, in either direction.
    """
    rows = []
    for line in controls:
        own = patients[patients["line"] == line].dropna(subset=["value"])
        scores = own[(own["metric"] == PRIMARY) & (own["set"] == MAIN_SET)]
        values = scores.set_index(["seed", "patient"])["value"]
        if values.empty:
            continue
        chance = pd.Series(0.0, index=values.index)
        if line == PERMUTED_GENES:
            cross = own[own["metric"] == CROSS_GENE].set_index(["seed", "patient"])["value"]
            chance = cross.reindex(values.index).fillna(0.0)
        rows.append(_verdict(line, values, chance))
    return rows


def _verdict(line: str, values: pd.Series, chance: pd.Series) -> dict[str, Any]:
    n, beyond = len(values), values - chance
    error = float(beyond.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    limit = max(CHANCE_LIMIT, float(stats.t.ppf(0.995, n - 1)) * error) if n > 1 else float("nan")
    return {
        "control": line,
        "mean": _json(float(values.mean())),
        "chance": _json(float(chance.mean())),
        "standard_error": _json(error),
        "limit": _json(limit),
        "n": n,
        "at_chance": bool(abs(float(beyond.mean())) <= limit) if n > 1 else None,
    }


def summarise(out: Path, *, failures: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Write ``results.parquet``, ``genes.csv`` and ``summary.json`` and return the summary.

    Parameters
    ----------
    out
        Folder of an evaluation.
    failures
        Fits that failed, with the reason.
    """
    collected = collect(out)
    with atomic_path(out / RESULTS) as path:
        collected.scores.drop(columns="fold").to_parquet(path, index=False)
    sections = section_scores(collected)
    patients = patient_scores(sections)
    macros = macro_scores(patients)
    lines = [row["line"] for row in collected.run["lines"]]
    controls = [line for line in lines if collected.family(line) == Family.CONTROL]
    rivals = [line for line in lines if line not in controls]
    _write_genes(collected, out / GENES)
    summary = {
        **{k: v for k, v in collected.run.items() if k != "folds"},
        "folds": [
            {k: v for k, v in fold.items() if k != "sets"} for fold in collected.run["folds"]
        ],
        "lines": [
            {**row, "scores": _scores_of(row["line"], macros), "fits": _fits(row, collected)}
            for row in collected.run["lines"]
        ],
        "hvg50_by_section": _section_table(sections),
        "comparisons": comparisons(macros, rivals),
        "controls": control_verdicts(patients, controls),
        "failures": [{"fit": fit, "reason": reason} for fit, reason in failures],
    }
    write_json(out / SUMMARY, summary)
    return summary


def _scores_of(line: str, macros: Mapping[tuple[str, str, str], Macro]) -> dict[str, Any]:
    return {
        f"{metric} {chosen}".strip(): macro.to_dict()
        for (name, metric, chosen), macro in sorted(macros.items())
        if name == line
    }


def _fits(row: Mapping[str, Any], collected: Collected) -> dict[str, Any]:
    own = [fact for fact in collected.facts if fact["line"] == row["line"]]
    return {
        "n": len(own),
        "seconds": round(sum(fact["seconds"] for fact in own), 1),
        "peak_mib": max((fact["peak_mib"] for fact in own), default=0),
        "facts": [{"fold": f["fold"], "seed": f["seed"], **f["facts"]} for f in own if f["facts"]],
    }


def _section_table(sections: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Return HVG50 correlation of every line in every section, averaged over seeds."""
    chosen = sections[(sections["metric"] == PRIMARY) & (sections["set"] == MAIN_SET)]
    means = chosen.groupby(["line", "section"])["value"].mean()
    table: dict[str, dict[str, float | None]] = {}
    for (line, section), value in means.items():
        table.setdefault(str(line), {})[str(section)] = _json(float(value))
    return table


def _write_genes(collected: Collected, path: Path) -> None:
    """Write correlation of every gene and line over patients: whom to trust for which gene."""
    scores = collected.scores
    pcc = scores[scores["metric"] == PRIMARY]
    by_section = pcc.groupby(["gene", "line", "patient", "section"], observed=True)["value"].mean()
    by_patient = by_section.groupby(["gene", "line", "patient"], observed=True).mean()
    table = by_patient.groupby(["gene", "line"], observed=True).mean().unstack("line")
    with atomic_path(path) as temporary:
        table.round(4).to_csv(temporary)
