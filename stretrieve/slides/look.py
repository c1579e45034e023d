"""A look at slides before they are used: what the files say, and what counts as tissue on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path
from stretrieve._progress import SILENT, Progress
from stretrieve.errors import InputError
from stretrieve.slides.base import Slide, open_slide
from stretrieve.slides.geojson import Polygon, outlines
from stretrieve.slides.tissue import tissue_mask
from stretrieve.units import PixelSize

_THUMBNAIL_PX: Final = 1600
_LINE: Final = (0, 110, 220)
_LINE_PX: Final = 3


@dataclass(frozen=True)
class SlideLook:
    """What was found out about one slide.

    Parameters
    ----------
    path
        The file.
    kind
        Its format; empty, like all that follows, when it cannot be used.
    dimensions
        (width, height) in level-0 px.
    n_levels
        Resolutions that the file stores.
    objective_power
        Magnification, where the file states it.
    mpp, mpp_source
        Microns per pixel (mean of both axes) and where the figure comes from.
    tissue_mm2
        Area of the tissue.
    tissue_fraction
        Its share of the slide, 0 to 1.
    picture
        PNG of the slide with the outlines of the tissue.
    regions
        The same outlines as GeoJSON.
    error
        Why the slide cannot be used; empty when it can.
    """

    path: Path
    kind: str = ""
    dimensions: tuple[int, int] = (0, 0)
    n_levels: int = 0
    objective_power: float | None = None
    mpp: float | None = None
    mpp_source: str = ""
    tissue_mm2: float = 0.0
    tissue_fraction: float = 0.0
    picture: Path | None = None
    regions: Path | None = None
    error: str = ""

    columns: ClassVar = (
        "slide", "format", "pixels", "levels", "power", "µm/px", "from", "tissue mm²", "tissue",
        "state",
    )  # fmt: skip

    def row(self) -> tuple[object, ...]:
        """Return one row of a table of :attr:`columns`."""
        if self.error:
            return (self.path.name, *[""] * (len(self.columns) - 2), "failed")
        width, height = self.dimensions
        return (
            self.path.name,
            self.kind,
            f"{width} x {height}",
            self.n_levels,
            f"{self.objective_power:g}x" if self.objective_power else "",
            self.mpp,
            self.mpp_source,
            self.tissue_mm2,
            f"{self.tissue_fraction:.0%}",
            "ok" if self.tissue_mm2 else "no tissue",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain JSON data."""
        data = dataclasses.asdict(self)
        for name in ("path", "picture", "regions"):
            data[name] = None if data[name] is None else str(data[name])
        return data


def look_at_slides(
    paths: Sequence[Path],
    out_dir: Path | str,
    *,
    pixel_size: PixelSize | None = None,
    progress: Progress = SILENT,
) -> tuple[SlideLook, ...]:
    """Open slides, find their tissue, and write a picture and the outlines of each.

    Parameters
    ----------
    paths
        The slides.
    out_dir
        Folder for ``slide_001.png`` and ``slide_001.geojson``, numbered as the slides are given.
    pixel_size
        Size of a level-0 pixel of all of them; ``None`` to take what each file states.
    progress
        Receiver of progress.

    Returns
    -------
    tuple
        One entry a slide. One that cannot be used is reported, and the others are still looked at.
    """
    looks = []
    with progress.task("looking at slides", len(paths)) as task:
        for number, path in enumerate(paths, start=1):
            stem = Path(out_dir) / f"slide_{number:03d}"
            try:
                with open_slide(path, pixel_size=pixel_size) as slide:
                    looks.append(_look(slide, stem))
            except InputError as error:
                looks.append(SlideLook(Path(path), error=str(error)))
            task.advance(note=Path(path).name)
    return tuple(looks)


def _look(slide: Slide, stem: Path) -> SlideLook:
    mask = tissue_mask(slide)
    picture, regions = stem.with_suffix(".png"), stem.with_suffix(".geojson")
    found = outlines(mask.mask, mask.px_per_mask_px)
    _draw(picture, slide.thumbnail(_THUMBNAIL_PX), found, dimensions=slide.dimensions)
    mask.to_geojson(regions)
    return SlideLook(
        path=slide.path,
        kind=slide.kind,
        dimensions=slide.dimensions,
        n_levels=len(slide.level_dimensions),
        objective_power=slide.objective_power,
        mpp=float(slide.pixel_size.mean),
        mpp_source=slide.pixel_size.source.value,
        tissue_mm2=mask.area_mm2,
        tissue_fraction=float(mask.mask.mean()),
        picture=picture,
        regions=regions,
    )


def _draw(
    path: Path,
    thumbnail: npt.NDArray[np.uint8],
    polygons: Sequence[Polygon],
    *,
    dimensions: tuple[int, int],
) -> None:
    from PIL import Image, ImageDraw

    picture = Image.fromarray(thumbnail)
    draw = ImageDraw.Draw(picture)
    scale = np.array(picture.size) / np.asarray(dimensions)
    for polygon in polygons:
        for ring in polygon:
            draw.line((ring * scale).ravel().tolist(), fill=_LINE, width=_LINE_PX, joint="curve")
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
