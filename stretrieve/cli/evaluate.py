"""``stretrieve evaluate``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stretrieve.cli._options import Json, Quiet, Sheet

if TYPE_CHECKING:
    from stretrieve.evaluation.runner import Outcome, Plan
    from stretrieve.evaluation.settings import EvaluationSettings

_TABLE = ("pcc_gene HVG50", "pcc_gene HVG200", "pcc_gene ALL", "spearman_gene HVG50")


def evaluate(
    sheet: Sheet,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")],
    embedders: Annotated[
        str | None,
        typer.Option(
            help="Embedders in all their forms, or single forms such as bleep-ours or bleep-compat, by "
            "commas. Default: all with --backbone, else colour."
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds. Default: 3.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Metrics, by commas. Default: all.")] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(help="patient (default), or section, which is optimistic and says so."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="image (default), or expression for sheets without images.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Image tower of baselines and embedders: a timm name. Default: colour."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="none, pretrained, a .safetensors file or folder, or hf-hub:ORG/NAME."),
    ] = None,
    patch_um: Annotated[float | None, typer.Option(help="Side of a patch in µm.")] = None,
    patch_px: Annotated[int | None, typer.Option(help="Side of a patch in pixels.")] = None,
    markers: Annotated[
        str | None, typer.Option(help="Genes of interest, scored as a set of their own.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=0, help="Training epochs at most.")] = None,
    compat_epochs: Annotated[
        int | None, typer.Option(min=0, help="Epochs of published forms. Default: 4.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Run negative controls.")
    ] = True,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; options win over it.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, for example train.batch_size=128. Repeatable."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Folds at a time.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished fits.")] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what would be done and write nothing.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Judge embedders on your own sections: patient by patient, beside baselines and controls."""
    from stretrieve.cli._progress import make_progress
    from stretrieve.cli._settings import load_settings, put
    from stretrieve.evaluation.runner import plan, run

    data = load_settings(config, assignments=assignments or ())
    given: dict[str, Any] = {
        "embedders": _listed(embedders),
        "seeds": None if seeds is None else list(range(seeds)),
        "metrics": _listed(metrics),
        "leave_out": leave_out,
        "query": query,
        "backbone.encoder.backbone": backbone,
        "backbone.encoder.weights": weights,
        "backbone.side_um": patch_um,
        "backbone.patch_px": patch_px,
        "markers": _listed(markers),
        "train.epochs": epochs,
        "compat_epochs": compat_epochs,
        "workers": workers,
    }
    for path, value in given.items():
        if value is not None:
            put(data, path, value)
    if not controls:
        data["controls"] = False
    settings = _settings(data)
    if plan_only:
        _show_plan(plan(sheet, out, settings), as_json=json)
        return 0
    outcome = run(sheet, out, settings=settings, resume=resume, progress=make_progress(quiet=quiet))
    return _finish(outcome, as_json=json)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _settings(data: dict[str, Any]) -> EvaluationSettings:
    from stretrieve.config import settings_from_dict
    from stretrieve.embedders import EMBEDDERS
    from stretrieve.evaluation.settings import EvaluationSettings, Query

    if "embedders" not in data and data.get("query", "image") == Query.IMAGE:
        data["embedders"] = list(EMBEDDERS.names()) if "backbone" in data else ["colour"]
    return settings_from_dict(EvaluationSettings, data)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    from stretrieve.cli._output import emit_json, emit_table, emit_text

    if as_json:
        emit_json(plan.to_dict())
        return
    emit_table(plan.folds, columns=("held out", "training sections", "test sections"))
    emit_table(plan.lines, columns=("line", "what it is"))
    emit_text(f"{plan.n_tasks} fits, {plan.n_done} of them done; {plan.n_spots} spots")


def _finish(outcome: Outcome, *, as_json: bool) -> int:
    from stretrieve.cli._output import emit_json, emit_table, emit_text
    from stretrieve.errors import ExitCode
    from stretrieve.evaluation.summary import summarise
    from stretrieve.report.evaluation import OPTIMISTIC, plain_words, write_report

    failures = [(f"{t.line}, fold {t.fold}, seed {t.seed}", why) for t, why in outcome.failures]
    summary = summarise(outcome.out, failures=failures)
    _, page = write_report(outcome.out, summary, command=shlex.join(["stretrieve", *sys.argv[1:]]))
    if as_json:
        emit_json({"output": str(outcome.out), **summary})
    else:
        if summary["optimistic"]:
            emit_text(OPTIMISTIC)
        rows = [
            (line["title"], *(_mean(line, name) for name in _TABLE)) for line in summary["lines"]
        ]
        emit_table(rows, columns=("line", "HVG50", "HVG200", "ALL", "Spearman HVG50"))
        emit_text(plain_words(summary))
        emit_text(f"{outcome.n_tasks} fits, {outcome.n_resumed} kept; report: {page}")
        for fit, reason in failures:
            emit_text(f"failed: {fit}: {reason}")
    return int(ExitCode.PARTIAL if failures else ExitCode.OK)


def _mean(line: dict[str, Any], name: str) -> float | str:
    value = line["scores"].get(name, {}).get("mean")
    return "–" if value is None else float(value)
