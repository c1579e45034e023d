"""Check our modules against arrays that the published methods computed.

``python -m stretrieve.testing.parity FOLDER`` reads ``bleep.npz``, ``stgchb.npz``, ``m2ost.npz`` and
``mclstexp.npz``, loads the published weights in them into our modules, recomputes every output array
and prints one JSON object ``{file: {array: largest absolute difference}}`` (relative for losses and
other scalars; ``null`` where the shapes differ or a value is not finite). The exit code is 5 when an
array differs by more than the tolerance and 3 when a file or an array is missing or unusable.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stretrieve.errors import (
    ExitCode,
    InputError,
    InputNotFoundError,
    MismatchError,
    StretrieveError,
    explain,
)
from stretrieve.testing._parity_methods import METHODS, Array, Arrays

TOLERANCE = 1e-5
_FLOOR = 1e-3
"""Scalars smaller than this are compared as if they were as large, for float32 resolves no finer."""

Differences = dict[str, dict[str, float | None]]


def check_parity(folder: Path) -> Differences:
    """Recompute every output array of the four files in a folder.

    Parameters
    ----------
    folder
        Folder of ``bleep.npz``, ``stgchb.npz``, ``m2ost.npz``, ``mclstexp.npz``.

    Returns
    -------
    dict
        File to array to largest absolute difference; relative for scalars; ``None`` where shapes
        differ or a value is not finite.

    Raises
    ------
    InputNotFoundError
        When a file is missing.
    InputError
        When an array is missing or unusable.
    """
    return {name: _check_file(folder / name) for name in METHODS}


def failures(differences: Differences, *, tolerance: float = TOLERANCE) -> list[str]:
    """Return ``"file: array"`` of everything that differs by more than the tolerance."""
    return [
        f"{file}: {array}"
        for file, arrays in differences.items()
        for array, difference in arrays.items()
        if difference is None or difference > tolerance
    ]


def _check_file(path: Path) -> dict[str, float | None]:
    arrays = Arrays(_read(path), where=path.name)
    with torch.inference_mode():
        recomputed = METHODS[path.name](arrays)
    return {name: _difference(value, arrays[name]) for name, value in recomputed.items()}


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise InputNotFoundError(explain("parity file", got=f"no {path}", expected="a file"))
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            explain(f"parity file {path.name}", got=str(error), expected="an npz of plain arrays")
        ) from error


def _difference(ours: Array, theirs: Array) -> float | None:
    if ours.shape != theirs.shape or not theirs.size:
        return None
    first, second = ours.astype(np.float64), theirs.astype(np.float64)
    difference = float(np.max(np.abs(first - second)))
    if not ours.ndim:
        difference /= max(abs(float(second)), _FLOOR)
    return difference if math.isfinite(difference) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stretrieve.testing.parity")
    parser.add_argument("folder", type=Path, help="folder of the four npz files")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="largest difference that passes"
    )
    options = parser.parse_args(arguments)
    try:
        differences = check_parity(options.folder)
        sys.stdout.write(json.dumps(differences, indent=2, allow_nan=False) + "\n")
        wrong = failures(differences, tolerance=options.tolerance)
        if wrong:
            expected = f"differences up to {options.tolerance:g}"
            raise MismatchError(explain("parity", got=", ".join(wrong), expected=expected))
    except StretrieveError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
