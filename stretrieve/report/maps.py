"""Maps of predicted genes over the slide, as PNG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.errors import InputError, ShapeError, explain
from stretrieve.metrics import pearson_per_gene
from stretrieve.report._canvas import Canvas, canvas_of, draw_dots, draw_scale_bar, draw_slide

CAPTION = "predicted, research use only"
UNIT = "log1p CP10k"
_PANEL_INCHES = 3.6
_CLIP = (1.0, 99.0)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def write_maps(
    adata: Any,
    genes: Sequence[str],
    folder: Path,
    *,
    truth: npt.ArrayLike | None = None,
    dpi: int = 150,
) -> tuple[Path, ...]:
    """Draw one PNG a gene: the slide, the predicted map and, when given, the true one.

    Both maps of a gene share one colour scale (viridis, 1st to 99th percentile of all values shown),
    so that a prediction that varies less than the truth also looks like it.

    Parameters
    ----------
    adata
        Predictions in the form of the output contract.
    genes
        Gene keys or symbols of ``adata``.
    folder
        Where the files go; made when missing. Each file appears complete or not at all.
    truth
        ``(n_patches, len(genes))`` measured or simulated values at the same positions, in the order
        of ``genes``, log1p CP10k.
    dpi
        Pixels per inch; a panel is 3.6 inches wide.

    Returns
    -------
    tuple of Path
        The files, in the order of ``genes``.

    Raises
    ------
    InputError
        When a gene is not part of ``adata`` or there are no positions.
    ShapeError
        When ``truth`` has another shape.
    """
    columns = [_column(adata, gene) for gene in genes]
    predicted = _dense(adata.X[:, columns])
    measured = None if truth is None else np.asarray(truth, dtype=np.float64)
    if measured is not None and measured.shape != predicted.shape:
        raise ShapeError(explain("true maps", got=measured.shape, expected=predicted.shape))
    canvas = canvas_of(adata)
    names = _file_names([str(adata.var_names[column]) for column in columns])
    paths = []
    for i, name in enumerate(names):
        target = None if measured is None else measured[:, i]
        figure = _figure(canvas, str(genes[i]), predicted[:, i], target)
        path = folder / name
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi)
        paths.append(path)
    return tuple(paths)


def _dense(values: Any) -> npt.NDArray[np.float64]:
    filled = values.toarray() if hasattr(values, "toarray") else values
    return np.asarray(filled, dtype=np.float64)


def _column(adata: Any, gene: str) -> int:
    column = int(adata.var_names.get_indexer([gene])[0])
    if column >= 0:
        return column
    symbols = adata.var.get(keys.GENE_SYMBOL)
    same = np.zeros(0, dtype=bool) if symbols is None else np.asarray(symbols) == gene
    matches = np.flatnonzero(same)
    if len(matches) != 1:
        raise InputError(
            explain("gene to map", got=repr(gene), expected="a gene of the prediction")
        )
    return int(matches[0])


def _file_names(genes: Sequence[str]) -> list[str]:
    """Return safe, unique file names."""
    stems: list[str] = []
    for gene in genes:
        stem = _UNSAFE.sub("_", gene).strip(".") or "gene"
        taken = [other.casefold() for other in stems]
        candidate, n = stem, 2
        while candidate.casefold() in taken:
            candidate, n = f"{stem}_{n}", n + 1
        stems.append(candidate)
    return [f"{stem}.png" for stem in stems]


def _figure(
    canvas: Canvas,
    gene: str,
    predicted: npt.NDArray[np.float64],
    truth: npt.NDArray[np.float64] | None,
) -> Any:
    from matplotlib.figure import Figure

    maps = [("predicted", predicted)] + ([] if truth is None else [("true", truth)])
    left, right, bottom, top = canvas.extent
    height = _PANEL_INCHES * abs(bottom - top) / (right - left) + 0.55
    width = _PANEL_INCHES * (1 + len(maps)) + 0.9
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, 1 + len(maps))
    draw_slide(panels[0], canvas)
    draw_scale_bar(panels[0], canvas)
    panels[0].set_title(f"H&E {canvas.name}".strip(), fontsize=10)
    limits = _limits(np.concatenate([values for _, values in maps]))
    for axes, (label, values) in zip(panels[1:], maps, strict=True):
        draw_slide(axes, canvas, faded=True)
        dots = draw_dots(axes, canvas, values, limits=limits)
        axes.set_title(_title(gene, label, predicted, truth), fontsize=10)
    figure.colorbar(dots, ax=list(panels[1:]), shrink=0.75, label=UNIT, pad=0.02)
    figure.supxlabel(CAPTION, fontsize=8, color="0.35")
    return figure


def _title(
    gene: str,
    label: str,
    predicted: npt.NDArray[np.float64],
    truth: npt.NDArray[np.float64] | None,
) -> str:
    if truth is None or label != "predicted":
        return f"{gene}, {label}"
    r = float(pearson_per_gene(predicted[:, None], truth[:, None])[0])
    return f"{gene}, {label} (r = {r:.2f})"


def _limits(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(known, _CLIP).tolist()
    return (low, high) if high > low else (low - 0.5, high + 0.5)
