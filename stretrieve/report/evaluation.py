"""The pages of an evaluation: ``report.md`` and ``report.html`` with figures."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stretrieve._files import atomic_path
from stretrieve.report.evaluation_figures import write_figures
from stretrieve.report.evaluation_tables import all_tables, subject
from stretrieve.report.table import Table, markdown

MARKDOWN: Final = "report.md"
HTML: Final = "report.html"
OPTIMISTIC: Final = (
    "OPTIMISTIC: sections of the test patient were in training (leave one section out). "
    "Every figure below flatters; none may be compared with leave-one-patient-out."
)
_CAPTIONS: Final = {
    "genes": "Correlation of each gene with the truth, one box a line.",
    "calibration": "Observed against nominal coverage on unseen patients.",
    "coverage": "Coverage of 90 % intervals by patient; grey: 85 to 95 %.",
    "risk": "Does correlation rise when a line's most doubtful spots are left out?",
    "map": "Measured and predicted expression of the most variable training gene.",
}
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.5em; } h3 { margin: 2em 0 .3em; font-size: 1.1em; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right;
  font-variant-numeric: tabular-nums; }
th { vertical-align: bottom; } th:first-child, td:first-child { text-align: left; }
p.note { color: #666; margin: .2em 0 .6em; max-width: 70em; }
p.warning { background: #fbe9e7; border-left: 4px solid #b3443c; padding: .6em 1em; }
figure { margin: 1.5em 0; } figure img { max-width: 100%; } figcaption { color: #666; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 12px; }
"""


def write_report(out: Path, summary: Mapping[str, Any], *, command: str = "") -> tuple[Path, Path]:
    """Write both pages and all figures.

    Parameters
    ----------
    out
        Folder of an evaluation that has been summarised.
    summary
        Its summary.
    command
        How the evaluation was called, to repeat it.

    Returns
    -------
    tuple of Path
        The Markdown and the HTML page.
    """
    figures = write_figures(out, summary)
    tables = all_tables(summary)
    pages = {
        MARKDOWN: markdown_page(summary, tables, figures, command=command),
        HTML: html_page(summary, tables, figures, command=command),
    }
    for name, text in pages.items():
        with atomic_path(out / name) as path:
            path.write_text(text, encoding="utf-8")
    return out / MARKDOWN, out / HTML


def headline(summary: Mapping[str, Any]) -> str:
    """Say in one sentence what was evaluated."""
    sections, patients = summary["sections"], {s["patient"] for s in summary["sections"]}
    settings = summary["settings"]
    spots = sum(s["spots"] for s in sections)
    return (
        f"{len(sections)} sections of {len(patients)} patients, {spots} spots; leave one "
        f"{settings['leave_out']} out; query: {settings['query']}; seeds "
        f"{', '.join(map(str, settings['seeds']))}; truth: log1p CP10k of raw counts."
    )


def plain_words(summary: Mapping[str, Any]) -> str:
    """Say what the compared line beats and what beats it, by how much, and what its intervals cover."""
    first = subject(summary)
    titles = {line["line"]: line["title"] for line in summary["lines"]}
    oracles = {line["line"] for line in summary["lines"] if line["family"] == "oracle"}
    rows = [
        row
        for row in summary["comparisons"]
        if row["first"] == first and row["second"] not in oracles and row["difference"] is not None
    ]
    rows.sort(key=lambda row: abs(row["difference"]))
    above = [_difference(row, titles) for row in rows if row["difference"] > 0]
    below = [_difference(row, titles) for row in rows if row["difference"] < 0]
    parts = [f"On HVG50 {titles[first]} is above: {'; '.join(above) or 'nothing'}."]
    parts.append(f"It is below: {'; '.join(below) or 'nothing'}.")
    sure = [r for r in rows if r["p_value"] is not None and r["p_value"] < 0.05]
    parts.append(
        f"In brackets: 95 % over patients; * p < 0.05 over patients ({len(sure)} of {len(rows)})."
    )
    return " ".join([*parts, _coverage(summary, first)]).strip()


def _difference(row: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """Return a line with how far it is away, such as ``image kNN by 0.037* [+0.018, +0.075]``."""
    sure = row["p_value"] is not None and row["p_value"] < 0.05
    text = f"{titles[row['second']]} by {abs(row['difference']):.3f}{'*' if sure else ''}"
    if row["low"] is None:
        return text
    return text + f" [{row['low']:+.3f}, {row['high']:+.3f}]".replace("-", "−")


def _coverage(summary: Mapping[str, Any], name: str) -> str:
    """Say what the 90 % intervals of a line cover; nothing for a line without intervals."""
    (line,) = [line for line in summary["lines"] if line["line"] == name]
    found = line["scores"].get("interval_coverage@0.9 ALL")
    if not found:
        return ""
    each = sorted(found["patients"].values())
    return (
        f"Its 90 % intervals cover {found['mean']:.3f} of the measured values, from {each[0]:.3f} "
        f"to {each[-1]:.3f} by patient."
    )


def markdown_page(
    summary: Mapping[str, Any], tables: Sequence[Table], figures: Sequence[Path], *, command: str
) -> str:
    """Return the Markdown page."""
    parts = ["# Evaluation", ""]
    if summary["optimistic"]:
        parts += [f"**{OPTIMISTIC}**", ""]
    parts += [headline(summary), "", plain_words(summary), ""]
    parts += [text for table in tables for text in (markdown(_labelled(table, summary)), "")]
    parts += ["### Figures", ""]
    parts += [f"![{_caption(path)}](figures/{path.name})\n" for path in figures]
    parts += ["### To repeat it", ""]
    parts += [f"    {command}", ""] if command else []
    parts += ["```json", _recipe(summary), "```", ""]
    return "\n".join(parts)


def html_page(
    summary: Mapping[str, Any], tables: Sequence[Table], figures: Sequence[Path], *, command: str
) -> str:
    """Return the HTML page; it needs nothing but the figures beside it."""
    warning = f'<p class="warning">{OPTIMISTIC}</p>' if summary["optimistic"] else ""
    pictures = "".join(
        f'<figure><img src="figures/{html.escape(path.name)}" alt="{_caption(path)}">'
        f"<figcaption>{_caption(path)}</figcaption></figure>"
        for path in figures
    )
    body = "".join(_html_table(_labelled(table, summary)) for table in tables)
    called = f"<pre>{html.escape(command)}</pre>" if command else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head><body><h1>Evaluation</h1>{warning}"
        f"<p>{html.escape(headline(summary))}</p><p>{html.escape(plain_words(summary))}</p>"
        f"{body}<h3>Figures</h3>{pictures}<h3>To repeat it</h3>{called}"
        f"<pre>{html.escape(_recipe(summary))}</pre></body></html>\n"
    )


def _labelled(table: Table, summary: Mapping[str, Any]) -> Table:
    """Mark every table of a run that holds out sections only."""
    if not summary["optimistic"]:
        return table
    return Table(
        f"OPTIMISTIC, sister sections: {table.title}", table.columns, table.rows, table.note
    )


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f"<h3>{html.escape(table.title)}</h3>{note}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _caption(path: Path) -> str:
    stem = path.stem.partition("-")[0]
    section = path.stem.partition("-")[2]
    return _CAPTIONS.get(stem, stem) + (f" Section {section}." if section else "")


def _recipe(summary: Mapping[str, Any]) -> str:
    kept = {name: summary[name] for name in ("stretrieve", "settings", "versions", "seconds")}
    return json.dumps(kept, indent=1, ensure_ascii=False)
