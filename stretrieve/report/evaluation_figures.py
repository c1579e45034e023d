"""Figures of an evaluation: genes, maps, calibration, coverage, risk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve._files import atomic_path
from stretrieve.evaluation.runner import TRUTH
from stretrieve.evaluation.summary import RESULTS
from stretrieve.evaluation.workbench import FACTS, MAPS, PARTS
from stretrieve.metrics import pearson_per_gene

Summary = Mapping[str, Any]

_LEVELS: Final = (0.5, 0.8, 0.9)
_MAX_MAP_LINES: Final = 4
_MAX_SECTIONS: Final = 6
_SHORT_NAME: Final = 3
_INK, _GREY, _BLUE, _RED = "#222222", "#9a9a9a", "#3b6ea8", "#b3443c"
_FAMILY_COLOURS: Final = {
    "baseline": _GREY,
    "retrieval": "#4c8c6b",
    "embedder": _BLUE,
    "engine": _RED,
    "oracle": "#c9a33b",
    "control": "#dddddd",
}


def write_figures(out: Path, summary: Summary) -> tuple[Path, ...]:
    """Draw every figure that the results give, as PNG in ``figures/``.

    Parameters
    ----------
    out
        Folder of an evaluation that has been summarised.
    summary
        Its summary.

    Returns
    -------
    tuple of Path
        The files; those without data are left out.
    """
    folder = out / "figures"
    scores = pd.read_parquet(out / RESULTS)
    made = [
        _save(figure, folder / name)
        for name, figure in (
            ("genes.png", gene_figure(scores, summary)),
            ("calibration.png", calibration_figure(summary)),
            ("coverage.png", coverage_figure(summary)),
            ("risk.png", risk_figure(summary)),
        )
        if figure is not None
    ]
    return (*made, *write_map_figures(out, summary, folder))


def _save(figure: Any, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    return path


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def gene_figure(scores: pd.DataFrame, summary: Summary) -> Any | None:
    """Return the distribution over genes of each line's correlation, one box a line."""
    pcc = scores[(scores["metric"] == "pcc_gene") & (scores["gene"] != "")]
    lines = [line for line in summary["lines"] if (pcc["line"] == line["line"]).any()]
    if not lines:
        return None
    by_patient = pcc.groupby(["line", "gene", "patient"], observed=True)["value"].mean()
    by_gene = by_patient.groupby(["line", "gene"], observed=True).mean()
    values = [by_gene.loc[line["line"]].dropna().to_numpy() for line in lines]
    figure = _figure(8.5, 0.34 * len(lines) + 1.4)
    axes = figure.subplots()
    boxes = axes.boxplot(
        values,
        orientation="horizontal",
        showfliers=False,
        patch_artist=True,
        widths=0.65,
        medianprops={"color": _INK},
    )
    for box, line in zip(boxes["boxes"], lines, strict=True):
        box.set_facecolor(_FAMILY_COLOURS.get(line["family"], _GREY))
        box.set_edgecolor(_INK)
    titles = [_wrap(line["title"], 44) for line in lines]
    axes.set_yticks(range(1, len(lines) + 1), titles, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_xlabel("Pearson r of a gene, mean over patients (panel of the folds)")
    _plain(axes)
    return figure


def calibration_figure(summary: Summary) -> Any | None:
    """Return observed against nominal coverage, a curve a line."""
    curves = _coverage(summary)
    if not curves:
        return None
    figure = _figure(4.6, 4.2)
    axes = figure.subplots()
    axes.plot([0.4, 1], [0.4, 1], color=_GREY, linewidth=1, linestyle="--", label="ideal")
    for title, levels in curves.items():
        axes.plot(list(levels), list(levels.values()), marker="o", label=title)
    axes.set_xlabel("nominal level")
    axes.set_ylabel("share of spots inside, unseen patients")
    axes.set_xlim(0.4, 1)
    axes.set_ylim(0.4, 1)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    _plain(axes)
    return figure


def _coverage(summary: Summary) -> dict[str, dict[float, float]]:
    curves: dict[str, dict[float, float]] = {}
    for line in summary["lines"]:
        found = {
            level: line["scores"].get(f"interval_coverage@{level:g} ALL", {}).get("mean")
            for level in _LEVELS
        }
        known = {level: value for level, value in found.items() if value is not None}
        if known:
            curves[line["title"]] = known
    return curves


def coverage_figure(summary: Summary) -> Any | None:
    """Return coverage at 90 % of every patient, a group a line."""
    found = {
        line["title"]: line["scores"]["interval_coverage@0.9 ALL"]["patients"]
        for line in summary["lines"]
        if "interval_coverage@0.9 ALL" in line["scores"]
    }
    if not found:
        return None
    patients = sorted({name for row in found.values() for name in row})
    figure = _figure(max(3.6, 1.6 + 0.35 * len(patients) * len(found)), 3.6)
    axes = figure.subplots()
    width = 0.8 / len(found)
    for i, (title, row) in enumerate(found.items()):
        places = np.arange(len(patients)) + i * width
        axes.bar(places, [row.get(p) or np.nan for p in patients], width * 0.95, label=title)
    axes.axhspan(0.85, 0.95, color=_GREY, alpha=0.25, linewidth=0)
    axes.axhline(0.9, color=_INK, linewidth=0.8)
    slant = {"rotation": 40, "ha": "right"} if max(map(len, patients)) > _SHORT_NAME else {}
    axes.set_xticks(np.arange(len(patients)) + 0.4 - width / 2, patients, fontsize=8, **slant)
    axes.set_ylim(0, 1)
    axes.set_xlabel("held-out patient")
    axes.set_ylabel("coverage of 90 % intervals")
    axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    _plain(axes)
    return figure


def risk_figure(summary: Summary) -> Any | None:
    """Return HVG50 correlation when the most doubtful spots are left out."""
    shares = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    for line in summary["lines"]:
        found = [line["scores"].get(f"risk_coverage@{share:g}", {}).get("mean") for share in shares]
        if any(value is None for value in found):
            continue
        axes.plot(shares, found, marker="o", markersize=3, label=line["title"])
    if not axes.lines:
        return None
    axes.invert_xaxis()
    axes.set_xlabel("share of spots kept, surest first")
    axes.set_ylabel("mean Pearson r, HVG50")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _plain(axes)
    return figure


def write_map_figures(out: Path, summary: Summary, folder: Path) -> tuple[Path, ...]:
    """Draw measured and predicted maps of the most variable gene, one file a section."""
    truth = dict(np.load(out / TRUTH))
    parts = _map_parts(out, summary)
    sections = [row["section"] for row in summary["sections"]][:_MAX_SECTIONS]
    paths = []
    for section in sections:
        shown = {title: maps[section] for title, maps in parts.items() if section in maps}
        if f"{section}/truth" in truth and shown:
            gene = _map_gene(summary, section)
            xy, measured = truth[f"{section}/xy_um"], truth[f"{section}/truth"]
            figure = _map_figure(section, gene, xy, measured[:, 0], shown)
            safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in section)
            paths.append(_save(figure, folder / f"map-{safe}.png"))
    return tuple(paths)


def _map_gene(summary: Summary, section: str) -> str:
    patient = next(row["patient"] for row in summary["sections"] if row["section"] == section)
    names = {fold["held_out"]: fold["map_labels"] for fold in summary["folds"]}
    genes = names.get(patient) or names.get(section) or [""]
    return str(genes[0])


def _map_parts(out: Path, summary: Summary) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Return the maps of the lines that are shown, first seed, by title and section."""
    wanted = _shown_lines(summary)
    seed = summary["settings"]["seeds"][0]
    found: dict[str, dict[str, npt.NDArray[np.float32]]] = {title: {} for title in wanted.values()}
    for name, title in wanted.items():
        for path in sorted((out / PARTS).glob(f"*/{name}-seed{seed}/{FACTS}")):
            with np.load(path.with_name(MAPS)) as arrays:
                found[title] |= {section: arrays[section] for section in arrays.files}
    return found


def _shown_lines(summary: Summary) -> dict[str, str]:
    """Return the best line of each family of rivals, at most four, by title."""
    best: dict[str, tuple[float, str, str]] = {}
    for line in summary["lines"]:
        score = line["scores"].get("pcc_gene HVG50", {}).get("mean")
        if score is None or line["family"] in ("control", "oracle"):
            continue
        if line["family"] not in best or score > best[line["family"]][0]:
            best[line["family"]] = (score, line["line"], line["title"])
    return {name: title for _, name, title in list(best.values())[:_MAX_MAP_LINES]}


def _map_figure(
    section: str,
    gene: str,
    xy: npt.NDArray[np.float32],
    measured: npt.NDArray[np.float32],
    shown: Mapping[str, npt.NDArray[np.float32]],
) -> Any:
    columns = 1 + len(shown)
    extent = np.ptp(xy, axis=0)
    height = 2.9 * float(extent[1] / max(float(extent[0]), 1e-9))
    figure = _figure(2.9 * columns, min(max(height, 2.0), 4.5) + 0.9)
    panels = list(np.atleast_1d(figure.subplots(1, columns)))
    size = (2.9 * 72 / max(np.sqrt(len(xy)), 1)) ** 2 * 0.3
    _draw(panels[0], xy, measured, f"{gene}, measured", size)
    for axes, (title, maps) in zip(panels[1:], shown.items(), strict=True):
        predicted = maps[:, 0]
        r = float(pearson_per_gene(predicted[:, None], measured[:, None])[0])
        _draw(axes, xy, predicted, f"{_wrap(title)}\nr = {r:.2f}", size)
    figure.suptitle(f"section {section}, unseen patient; each map has its own scale", fontsize=9)
    return figure


def _wrap(title: str, width: int = 30) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(title, width))


def _draw(
    axes: Any,
    xy: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    title: str,
    size: float,
) -> None:
    known = np.isfinite(values)
    low, high = np.percentile(values[known], [1, 99]) if known.any() else (0.0, 1.0)
    dots = axes.scatter(
        xy[known, 0],
        xy[known, 1],
        c=values[known],
        s=size,
        cmap="viridis",
        vmin=low,
        vmax=high if high > low else low + 1,
        linewidths=0,
    )
    axes.figure.colorbar(dots, ax=axes, shrink=0.6, pad=0.02).ax.tick_params(labelsize=6)
    axes.set_title(title, fontsize=8)
    axes.margins(0.08)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_axis_off()
