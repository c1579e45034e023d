"""The lines of the table: baselines, embedders in every form, engine, oracles, controls."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Final

from stretrieve.embedders import EMBEDDERS
from stretrieve.errors import UnknownNameError, explain
from stretrieve.evaluation.lines.base import Family, Fitted, Line, Prediction, Training
from stretrieve.evaluation.lines.control import Control, ControlLine
from stretrieve.evaluation.lines.embedder import (
    COMPAT,
    REGRESSION,
    EmbedderLine,
    default_configuration,
)
from stretrieve.evaluation.lines.engine import EngineLine
from stretrieve.evaluation.lines.regression import RegressionLine, has_regression
from stretrieve.evaluation.settings import EvaluationSettings, Query
from stretrieve.registry import Registry

__all__ = [
    "LINES",
    "Control",
    "ControlLine",
    "Family",
    "Fitted",
    "Line",
    "Prediction",
    "Training",
    "choose_lines",
    "embedder_lines",
]

_ALWAYS: Final = {
    "mean-profile": "stretrieve.evaluation.lines.simple:mean_profile",
    "random": "stretrieve.evaluation.lines.simple:RandomLine",
    "depth": "stretrieve.evaluation.lines.simple:DepthLine",
    "colour-ridge": "stretrieve.evaluation.lines.simple:colour_ridge",
    "ridge": "stretrieve.evaluation.lines.simple:query_ridge",
    "knn": "stretrieve.evaluation.lines.simple:query_knn",
    "rrr": "stretrieve.evaluation.lines.simple:reduced_rank_ridge",
    "ridge-retrieval": "stretrieve.evaluation.lines.joint:JointLine",
    "average": "stretrieve.evaluation.lines.average:AverageLine",
    "average-smoothed": "stretrieve.evaluation.lines.average:SmoothedAverageLine",
    "molecular-oracle": "stretrieve.evaluation.lines.oracle:OracleLine",
}

LINES: Registry[Callable[[], Line]] = Registry("line", builtin=_ALWAYS, group="stretrieve.lines")
"""Lines that are always in the table, by name; other packages add theirs through the entry-point
group. Embedders need none: every registered embedder is a line."""

_IMAGES_ONLY: Final = frozenset({"colour-ridge"})
_CONTROLLED: Final = "average"
OURS: Final = "ours"
"""Form of an embedder that is not its published one, as in ``bleep-ours``."""


def choose_lines(settings: EvaluationSettings) -> tuple[Line, ...]:
    """Return the lines of an evaluation in the order of the table.

    Raises
    ------
    UnknownNameError
        When no embedder (or form of one) has a name that was asked for.
    """
    images = settings.query is Query.IMAGE
    names = [*_ALWAYS, *(name for name in LINES.names() if name not in _ALWAYS)]
    lines = [LINES.get(name)() for name in names if images or name not in _IMAGES_ONLY]
    if images:
        lines += _embedders(settings)
    if settings.engine:
        lines.append(EngineLine(settings))
    if settings.controls:
        base = LINES.get(_CONTROLLED)()
        lines += [
            ControlLine(control, base) for control in Control if images or _molecular(control)
        ]
    return tuple(lines)


def _molecular(control: Control) -> bool:
    return control is not Control.NOISE


def _embedders(settings: EvaluationSettings) -> list[Line]:
    chosen: dict[str, Line] = {}
    for asked in settings.embedders:
        if asked in EMBEDDERS:
            found: Sequence[Line] = embedder_lines(asked, settings)
        else:
            found = _one_form(asked, settings)
        if not found:
            raise _unknown(asked)
        chosen |= {line.name: line for line in found}
    return list(chosen.values())


def _one_form(asked: str, settings: EvaluationSettings) -> Sequence[Line]:
    embedder, _, form = asked.rpartition("-")
    if embedder not in EMBEDDERS:
        return ()
    wanted = embedder if form == OURS else asked
    return [line for line in embedder_lines(embedder, settings) if line.name == wanted]


def embedder_lines(embedder: str, settings: EvaluationSettings) -> tuple[Line, ...]:
    """Return an embedder's lines: ours, its regression head, and its published form.

    Parameters
    ----------
    embedder
        Registered name.
    settings
        Settings of the evaluation.
    """
    lines: list[Line] = [EmbedderLine(embedder, settings)]
    regresses = has_regression(EMBEDDERS.get(embedder))
    if regresses:
        lines.append(RegressionLine(embedder, settings, form=REGRESSION))
    if COMPAT in default_configuration(embedder):
        published = RegressionLine if regresses else EmbedderLine
        lines.append(published(embedder, settings, form=COMPAT))
    return tuple(lines)


def _unknown(asked: str) -> UnknownNameError:
    names = EMBEDDERS.names()
    near = difflib.get_close_matches(asked, names, n=1)
    return UnknownNameError(
        explain(
            "embedder",
            got=repr(asked),
            expected=f"{', '.join(names)}, or one form such as bleep-ours or bleep-compat",
            remedy=f"did you mean {near[0]!r}?" if near else "",
        )
    )
