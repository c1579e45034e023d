"""What single settings of the engine are worth, as its choice on training patients has scored them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stretrieve.report.table import MAX_FOLDS, Table, signed, spread

Summary = Mapping[str, Any]


def ablation_table(summary: Summary) -> Table:
    """Return what single changes of the engine's settings do on held-out *training* patients."""
    rows: dict[str, dict[str, float]] = {}
    for column, fact in _choices(summary):
        scores = {_changes(c["changes"]): c["mean"] for c in fact["candidates"]}
        for change, score in scores.items():
            if change and ", " not in change:
                rows.setdefault(change, {})[column] = score - scores[""]
    return _by_fold(
        "Ablation of the engine: one change to its defaults",
        "change",
        rows,
        "Change in mean correlation on the 200 most variable genes of training patients that were held "
        "out, by fold; the choice saw these figures and never the test patient.",
    )


def without_table(summary: Summary) -> Table:
    """Return what the engine loses when one thing that was chosen is as in its defaults."""
    rows: dict[str, dict[str, float]] = {}
    for column, fact in _choices(summary):
        chosen = _settings(fact["changes"])
        scores = {tuple(_settings(c["changes"]).items()): c["mean"] for c in fact["candidates"]}
        best = scores[tuple(chosen.items())]
        for name, value in chosen.items():
            left = tuple((other, v) for other, v in chosen.items() if other != name)
            if left in scores:
                rows.setdefault(f"without {value}", {})[column] = scores[left] - best
    return _by_fold(
        "Ablation of the engine: one choice undone",
        "change to what was chosen",
        rows,
        "As above, against the settings that the fold chose; only what the search has scored.",
    )


def _choices(summary: Summary) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what each fold of the engine chose and what it chose from, by the fold's name."""
    return [
        (f"{fact['fold']}, seed {fact['seed']}", fact)
        for line in summary["lines"]
        if line["family"] == "engine"
        for fact in line["fits"]["facts"]
        if "candidates" in fact
    ]


def _by_fold(title: str, first: str, rows: dict[str, dict[str, float]], note: str) -> Table:
    """Return differences by fold; mean and range where there are many folds."""
    columns = list(dict.fromkeys(column for found in rows.values() for column in found))
    if len(columns) > MAX_FOLDS:
        rows = {change: spread(found) for change, found in rows.items()}
        columns = list(spread({"": 0.0}))
    cells = [
        (change, *(signed(found.get(column)) for column in columns))
        for change, found in sorted(rows.items())
    ]
    return Table(title, (first, *columns), tuple(cells), note)


def _changes(changes: Mapping[str, Any]) -> str:
    """Return changed settings as text."""
    return ", ".join(_settings(changes).values())


def _settings(changes: Mapping[str, Any]) -> dict[str, str]:
    """Return each changed setting as text; the softmax is one with its neighbours and width."""
    left = dict(changes)
    found = {}
    if left.get("weights") == "softmax":
        temperature = left.pop("temperature", "default")
        del left["weights"]
        found[""] = f"softmax over {left.pop('top_k', 50)} at temperature {temperature}"
    return found | {name: f"{name} {value}" for name, value in sorted(left.items())}
