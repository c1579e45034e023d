"""The inside of a reading process: answers requests on standard input until it closes."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from stretrieve.errors import MissingDependencyError, StretrieveError

_MIN_BYTES: Final = 8 << 30


def main() -> None:
    """Serve requests, one JSON object a line, until standard input closes."""
    _protect()
    answers = os.fdopen(os.dup(1), "w", buffering=1)  # C libraries may write to descriptor 1
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request says; return how it went as plain JSON data."""
    try:
        _serve(request, Path(request["folder"]))
    except MissingDependencyError as error:
        return {"missing": [error.module, error.extra]}
    except StretrieveError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception:  # noqa: BLE001 (whatever it is, the other side has to hear of it)
        return {"bug": traceback.format_exc()}
    return {"done": True}


def _protect() -> None:
    """Ignore Ctrl-C, keep quiet, write no core, take no more memory than the machine has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    if sys.platform == "linux":
        import resource

        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = max(memory, _MIN_BYTES)
        limit = limit if hard == resource.RLIM_INFINITY else min(hard, limit)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(request: dict[str, Any], folder: Path) -> None:
    from stretrieve.spots.formats import READERS
    from stretrieve.spots.transport import row_from_dict, save_names, save_section, save_table

    if request["what"] == "section":
        reader = READERS.get(request["format"])
        save_section(reader.read(row_from_dict(request["row"])), folder)
    elif request["what"] == "positions":
        from stretrieve.spots.parquet import read_positions_parquet

        save_table(read_positions_parquet(Path(request["path"])), folder)
    else:
        from stretrieve.spots.gene_files import read_names_here

        save_names(read_names_here(Path(request["path"])), folder)
