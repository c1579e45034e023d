"""Reading of small text files that nobody vouches for: bounded, one kind of error."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stretrieve.errors import InputNotFoundError, SectionError, explain

MAX_TEXT_BYTES: Final = 4 << 30
_MAX_LINE: Final = 64 << 20


def read_lines(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> Iterator[str]:
    """Yield the lines of a text file, gzipped or not, without their ends.

    Parameters
    ----------
    path
        The file; compression is told by its first bytes, not by its name.
    max_bytes
        Largest size after decompression.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    SectionError
        When the file is not text, is damaged or is larger than ``max_bytes``.
    """
    if not path.is_file():
        raise InputNotFoundError(explain("file", got=f"no file {path}"))
    total = 0
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            first = True
            while line := stream.readline(_MAX_LINE):
                total += len(line)
                if total > max_bytes or len(line) >= _MAX_LINE:
                    raise SectionError(
                        explain(path.name, got="too much text", expected=f"up to {max_bytes} bytes")
                    )
                text = line.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
                first = False
                yield text
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SectionError(
            explain(path.name, got=str(error), expected="a readable text file")
        ) from error


def unquote(cell: str) -> str:
    """Return a cell without surrounding blanks and double quotes."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1]
    return cell
