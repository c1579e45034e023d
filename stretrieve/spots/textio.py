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
_MAX_RATIO: Final = 400
_SMALL_BYTES: Final = 64 << 20


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
        When the file is not text, is damaged, is larger than ``max_bytes``, or grows in decompression
        as no table of counts does.
    """
    if not path.is_file():
        raise InputNotFoundError(explain("file", got=f"no file {path}"))
    total = 0
    try:
        most = max(_SMALL_BYTES, _MAX_RATIO * path.stat().st_size)
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
                if zipped and total > most:
                    raise SectionError(
                        explain(
                            path.name,
                            got=f"over {total >> 20} MB of text in {path.stat().st_size} bytes",
                            expected=f"up to {_MAX_RATIO} times its size",
                        )
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
