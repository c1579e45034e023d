"""Tables of an evaluation, from its summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stretrieve.report.evaluation_ablation import ablation_table, without_table
from stretrieve.report.table import MISSING, Table, number, signed

Summary = Mapping[str, Any]

MIN_FOR_TEST: Final = 6
"""Patients below which a Wilcoxon test cannot reach 0.05."""

_SUBJECTS: Final = ("engine", "average")
_MAIN: Final = "pcc_gene HVG50"


def all_tables(summary: Summary) -> tuple[Table, ...]:
    """Return every table of the report that has rows."""
    made = (
        main_table(summary),
        paired_table(summary),
        optimistic_table(summary),
        section_table(summary),
        shape_table(summary),
        retrieval_table(summary),
        uncertainty_table(summary),
        ablation_table(summary),
        without_table(summary),
        control_table(summary),
        audit_table(summary),
        failure_table(summary),
        cost_table(summary),
    )
    return tuple(table for table in made if table.rows)


def subject(summary: Summary) -> str:
    """Return the line that others are compared with: the engine, or what stands for it."""
    names = [line["line"] for line in summary["lines"]]
    return next((name for name in _SUBJECTS if name in names), names[0])


def main_table(summary: Summary) -> Table:
    """Return correlation on the frozen gene sets."""
    sets = ("HVG50", "HVG200", "HEG50", "HMHVG200", "markers", "ALL")
    rows = []
    n = len({section["patient"] for section in summary["sections"]})
    for line in _rivals(summary):
        main = line["scores"].get(_MAIN)
        rows.append(
            (
                _title_of(line, main, n),
                _interval(main),
                _seed_sd(line, main),
                *(_of(line, f"pcc_gene {name}") for name in sets[1:]),
                _of(line, "spearman_gene HVG50"),
                _of(line, "mae HVG50"),
                _of(line, "mse HVG50"),
                _of(line, "pcc_spot"),
                _of(line, "pcc_spot/delta"),
            )
        )
    return Table(
        "Correlation on genes frozen on training patients",
        ("line", "HVG50 [95 %]", "seed sd", *sets[1:], "Spearman HVG50", "MAE", "MSE", "per spot",
         "… minus constant profile"),
        tuple(rows),
        f"Pearson r per gene over the spots of a section; mean over genes, then sections, then {n} "
        "patients. Bootstrap over patients. Lines that see the test spot are references, not rivals.",
    )  # fmt: skip


def _title_of(line: Mapping[str, Any], score: Mapping[str, Any] | None, n_patients: int) -> str:
    """Return a line's title, marked where fits are missing and its mean is over fewer patients."""
    title, known = str(line["title"]), len(score["patients"]) if score else 0
    return title if known == n_patients else f"{title} ({known} of {n_patients} patients)"


def paired_table(summary: Summary) -> Table:
    """Return the paired comparison of one line with every other."""
    first = subject(summary)
    titles = {line["line"]: line["title"] for line in summary["lines"]}
    rows = [
        (
            titles[row["second"]],
            signed(row["difference"]),
            f"{signed(row['low'])} … {signed(row['high'])}",
            number(row["p_value"]),
            str(row["n_patients"]),
            verdict(row),
        )
        for row in summary["comparisons"]
        if row["first"] == first
    ]
    return Table(
        f"{titles[first]} against each line, HVG50, paired over patients",
        ("line", "difference", "95 %", "Wilcoxon p", "patients", "says"),
        tuple(rows),
        "Positive: the first is better. Below six patients the test cannot reach 0.05.",
    )


def verdict(row: Mapping[str, Any]) -> str:
    """Say in words what a paired comparison shows."""
    if row["difference"] is None:
        return "not comparable"
    word = "better" if row["difference"] > 0 else "worse" if row["difference"] < 0 else "equal"
    if row["p_value"] is not None and row["p_value"] < 0.05:
        return f"{word}, p < 0.05"
    if row["low"] is not None and row["low"] * row["high"] > 0:
        few = row["n_patients"] < MIN_FOR_TEST
        return f"{word}, interval beyond 0" + ("; too few patients for a test" if few else "")
    return f"{word}, within uncertainty"


def optimistic_table(summary: Summary) -> Table:
    """Return what published code would report."""
    names = ("HVG50-test", "HEG50-test", "HPG50", "PCC-10", "PCC-50", "PCC-200")
    rows = [
        (line["title"], _of(line, _MAIN), *(_of(line, f"optimistic/{name}") for name in names))
        for line in _rivals(summary)
    ]
    return Table(
        "OPTIMISTIC: the same predictions under published conventions",
        ("line", "HVG50 (frozen)", *(f"{name} (optimistic)" for name in names)),
        tuple(rows),
        "Genes are chosen by the answer: variance or mean of the test section (BLEEP), genes that the "
        "line itself predicted best over all folds (TRIPLEX), or sorted by achieved correlation "
        "(Stem). Never compare these with the frozen column.",
    )


def section_table(summary: Summary) -> Table:
    """Return HVG50 correlation in every section."""
    table = summary["hvg50_by_section"]
    sections = sorted({name for row in table.values() for name in row})
    rows = [
        (line["title"], *(number(table.get(line["line"], {}).get(name)) for name in sections))
        for line in summary["lines"]
    ]
    return Table("HVG50 by section, mean over seeds", ("line", *sections), tuple(rows))


def shape_table(summary: Summary) -> Table:
    """Return variance, patterns and structure of the predictions."""
    columns = {
        "with other genes": "cross_gene",
        "variance ratio": "variance_ratio HVG50",
        "RVD": "rvd HVG50",
        "AUC": "auc HVG50",
        "SSIM": "ssim HVG50",
        "Moran's I agreement": "morans_i_agreement",
        "gene–gene agreement": "gene_gene_agreement",
    }
    rows = [
        (line["title"], *(_of(line, name) for name in columns.values()))
        for line in _rivals(summary)
    ]
    return Table(
        "Variance, patterns, structure",
        ("line", *columns),
        tuple(rows),
        "With other genes: correlation of HVG50 with predictions of other genes, what a line earns "
        "without telling genes apart. Averaging shrinks variance: a ratio of 1 is the truth's. AUC: "
        "chance 0.5.",
    )


def retrieval_table(summary: Summary) -> Table:
    """Return what the search finds."""
    rows = []
    for line in summary["lines"]:
        cells = (
            _against(line, "recall@10"),
            _against(line, "recall@50"),
            _against(line, "recall@10%"),
            _against(line, "mrr"),
            _against(line, "neighbour_overlap"),
            _against(line, "label_precision"),
            _against(line, "label_precision_within@10", "label_precision_within/chance"),
        )
        if any(cell != MISSING for cell in cells):
            rows.append((line["title"], *cells))
    return Table(
        "Retrieval, (chance) in brackets",
        ("line", "recall@10", "recall@50", "recall@10 %", "MRR", "overlap with oracle",
         "label precision, other patients", "label precision, own section"),
        tuple(rows),
        "Recall: a patch finds its own expression among that of its section.",
    )  # fmt: skip


def uncertainty_table(summary: Summary) -> Table:
    """Return coverage, width and what stated doubt is worth."""
    rows = []
    for line in summary["lines"]:
        cells = [_of(line, f"interval_coverage@{level} ALL") for level in ("0.5", "0.8", "0.9")]
        cells += [_of(line, f"interval_width@{level} ALL") for level in ("0.9",)]
        cells += [_of(line, f"width_error_agreement/{across}") for across in ("spots", "genes")]
        cells += [_of(line, f"risk_coverage@{share}") for share in ("1", "0.8", "0.5")]
        if any(cell != MISSING for cell in cells):
            rows.append((line["title"], *cells))
    return Table(
        "Uncertainty",
        ("line", "coverage at 50 %", "at 80 %", "at 90 %", "width at 90 %", "width–error, spots",
         "width–error, genes", "HVG50, all spots", "surest 80 %", "surest 50 %"),
        tuple(rows),
        "Coverage is pooled over the panel. Useful doubt makes the last columns rise.",
    )  # fmt: skip


def control_table(summary: Summary) -> Table:
    """Return the negative controls."""
    titles = {line["line"]: line["title"] for line in summary["lines"]}
    words = {True: "at chance", False: "NOT AT CHANCE", None: "one value: not judged"}
    rows = [
        (
            titles[row["control"]],
            signed(row["mean"]),
            signed(row["chance"]),
            number(row["standard_error"]),
            number(row["limit"]),
            str(row["n"]),
            words[row["at_chance"]],
        )
        for row in summary["controls"]
    ]
    return Table(
        "Negative controls, HVG50",
        ("control", "mean", "chance", "standard error", "limit", "patients × seeds", "says"),
        tuple(rows),
        "Chance of permuted genes: what the predictions correlate with other genes, since all genes of "
        "a section share some pattern. At chance: within the limit of it.",
    )


def audit_table(summary: Summary) -> Table:
    """Return the leak audit: one row a check where every fold is clean, else one a finding."""
    rows = [
        (row["check"], row["fold"], str(row["n"]), row["detail"])
        for row in summary["audit"]
        if row["n"]
    ]
    found = {row[0] for row in rows}
    checks = dict.fromkeys(row["check"] for row in summary["audit"])
    rows += [(check, "all", "0", "clean") for check in checks if check not in found]
    return Table("Leak audit", ("check", "fold", "found", "where"), tuple(rows))


def failure_table(summary: Summary) -> Table:
    """Return the fits that failed."""
    rows = tuple((row["fit"], row["reason"]) for row in summary["failures"])
    return Table("Failed fits", ("fit", "reason"), rows)


def cost_table(summary: Summary) -> Table:
    """Return time and memory."""
    rows = [
        (
            line["title"],
            str(line["fits"]["n"]),
            f"{line['fits']['seconds']:.0f}",
            str(line["fits"]["peak_mib"]),
        )
        for line in summary["lines"]
    ]
    return Table(
        "Cost",
        ("line", "fits", "seconds, all fits", "peak MiB of the process so far"),
        tuple(rows),
        "Patches and backbone features are computed before and not in these figures.",
    )


def _rivals(summary: Summary) -> list[Mapping[str, Any]]:
    return [line for line in summary["lines"] if line["family"] != "control"]


def _of(line: Mapping[str, Any], name: str) -> str:
    return number(line["scores"].get(name, {}).get("mean"))


def _seed_sd(line: Mapping[str, Any], score: Mapping[str, Any] | None) -> str:
    if not line["stochastic"]:
        return "no chance"
    return number(score["seed_sd"]) if score and score["seed_sd"] is not None else "one seed"


def _against(line: Mapping[str, Any], name: str, chance: str = "") -> str:
    value = line["scores"].get(name, {}).get("mean")
    if value is None:
        return MISSING
    level = line["scores"].get(chance or f"{name}/chance", {}).get("mean")
    return f"{value:.3f} ({level:.3f})" if level is not None else f"{value:.3f}"


def _interval(score: Mapping[str, Any] | None) -> str:
    if not score or score["mean"] is None:
        return MISSING
    if score["low"] is None:
        return f"{score['mean']:.3f}"
    return f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
