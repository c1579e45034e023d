"""Patches side by side: every query in a row, its answers after it, as PNG or as one HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd

from stretrieve import keys
from stretrieve._files import atomic_path
from stretrieve.errors import ConfigError, OutputExistsError, explain

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

TILE_PX: Final = 96
GAP_PX: Final = 8
TEXT_PX: Final = 11
MAX_STRIPS: Final = 40
_LINES: Final = 2
_QUERY_INK: Final = (0, 110, 220)
_INK: Final = (30, 30, 30)
_STYLE: Final = (
    "body{font:13px sans-serif;margin:1em}table{border-spacing:8px}td{vertical-align:top}"
    "img{width:96px;height:96px;display:block}.query img{outline:3px solid #006edc}"
)


@dataclass(frozen=True)
class Tile:
    """One patch.

    Parameters
    ----------
    image
        JPEG; empty for none.
    caption
        Up to two lines.
    is_query
        Drawn with a frame.
    """

    image: bytes
    caption: str
    is_query: bool = False


def answer_strips(
    table: pd.DataFrame, *, queries: dict[str, bytes] | None = None, width: int = 10
) -> list[list[Tile]]:
    """Return the rows of a contact sheet for a table of answers with thumbnails.

    Parameters
    ----------
    table
        Has ``score``, ``spot_uid``, ``thumbnail`` and, for answers to several queries, ``query``.
    queries
        Image of each query by name; a query without one is shown by name only.
    width
        Answers in a row; those to one query beyond it are left out, a list of answers goes on in the
        next row.
    """
    tiles = [
        Tile(row[keys.THUMBNAIL], f"{row['score']:.3f}\n{row[keys.SPOT_UID]}")
        for row in table.to_dict(orient="records")
    ]
    if "query" not in table:
        return [tiles[start : start + width] for start in range(0, len(tiles), width)]
    strips = []
    places = table.reset_index(drop=True).groupby("query", sort=False).indices
    for name in table["query"].unique():
        image = (queries or {}).get(name, b"")
        asked = Tile(image, f"query\n{name}", is_query=True)
        strips.append([asked, *(tiles[i] for i in places[name][:width])])
    return strips


def write_contact_sheet(
    path: Path, strips: Sequence[Sequence[Tile]], *, title: str, overwrite: bool = False
) -> int:
    """Draw rows of patches and return how many rows were left out.

    Parameters
    ----------
    path
        ``.png`` or ``.html``; appears complete or not at all.
    strips
        The rows; the first 40 are drawn.
    title
        Heading.
    overwrite
        Replace an existing file.

    Raises
    ------
    ConfigError
        When the ending is another.
    OutputExistsError
        When the file exists and is not to be replaced.
    """
    check_sheet_path(path, overwrite=overwrite)
    shown = strips[:MAX_STRIPS]
    with atomic_path(path) as temporary:
        if path.suffix == ".png":
            _draw(shown, title).save(temporary, format="PNG")
        else:
            temporary.write_text(_page(shown, title), encoding="utf-8")
    return len(strips) - len(shown)


def check_sheet_path(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written; errors as in :func:`write_contact_sheet`."""
    if path.suffix not in (".png", ".html"):
        raise ConfigError(
            explain("contact sheet", got=path.name, expected="a name ending in .png or .html")
        )
    if path.exists() and not overwrite:
        raise OutputExistsError(
            explain("contact sheet", got=f"{path} exists", remedy="choose another or --overwrite")
        )


def _draw(strips: Sequence[Sequence[Tile]], title: str) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    columns = max((len(strip) for strip in strips), default=1)
    step_x, step_y = TILE_PX + GAP_PX, TILE_PX + GAP_PX + _LINES * (TEXT_PX + 3)
    top = 2 * GAP_PX + TEXT_PX + 3
    size = (max(columns, 4) * step_x + GAP_PX, top + max(len(strips), 1) * step_y)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(TEXT_PX)
    draw.text((GAP_PX, GAP_PX), _fitted(draw, title, font, size[0] - 2 * GAP_PX), _INK, font)
    for row, strip in enumerate(strips):
        for column, tile in enumerate(strip):
            x, y = GAP_PX + column * step_x, top + row * step_y
            _draw_tile(picture, tile, x, y)
            for line, text in enumerate(tile.caption.split("\n")[:_LINES]):
                at = (x, y + TILE_PX + 2 + line * (TEXT_PX + 2))
                draw.text(at, _fitted(draw, text, font, TILE_PX), _INK, font)
    return picture


def _draw_tile(picture: Image, tile: Tile, x: int, y: int) -> None:
    from PIL import Image, ImageDraw

    if tile.image:
        with Image.open(io.BytesIO(tile.image)) as opened:
            patch = opened.convert("RGB").resize((TILE_PX, TILE_PX))
        picture.paste(patch, (x, y))
    if tile.is_query:
        box = (x - 2, y - 2, x + TILE_PX + 1, y + TILE_PX + 1)
        ImageDraw.Draw(picture).rectangle(box, outline=_QUERY_INK, width=3)


def _fitted(draw: ImageDraw, text: str, font: object, width: int) -> str:
    """Shorten a line from its left end: what tells spots apart stands at the right."""
    if draw.textlength(text, font=font) <= width:  # type: ignore[arg-type]
        return text
    while text and draw.textlength(f"…{text}", font=font) > width:  # type: ignore[arg-type]
        text = text[1:]
    return f"…{text}"


def _page(strips: Sequence[Sequence[Tile]], title: str) -> str:
    rows = "\n".join(f"<tr>{''.join(map(_cell, strip))}</tr>" for strip in strips)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1><table>\n{rows}\n</table></body></html>\n"
    )


def _cell(tile: Tile) -> str:
    caption = "<br>".join(html.escape(line) for line in tile.caption.split("\n"))
    data = base64.b64encode(tile.image).decode()
    image = f'<img alt="" src="data:image/jpeg;base64,{data}">' if tile.image else ""
    return f"<td{' class=query' if tile.is_query else ''}>{image}{caption}</td>"
