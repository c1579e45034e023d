"""What an embedder wants to see of a slide: fields of view at a physical size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stretrieve.errors import ConfigError, explain

MAX_VIEWS = 4


@dataclass(frozen=True, slots=True)
class PatchView:
    """One square field of view.

    Parameters
    ----------
    patch_px
        Side of the patch in pixels, as the embedder sees it.
    mpp
        Microns per patch pixel.
    """

    patch_px: int
    mpp: float

    def __post_init__(self) -> None:
        if self.patch_px < 1:
            raise ConfigError(explain("patch_px", got=self.patch_px, expected="1 or more"))
        if not 0 < self.mpp < 1000:
            raise ConfigError(explain("patch mpp", got=self.mpp, expected="a number above 0"))

    @property
    def side_um(self) -> float:
        """Side of the field of view in microns."""
        return self.patch_px * self.mpp


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """The fields of view around one centre, finest first, and whether grid neighbours are needed.

    Parameters
    ----------
    views
        One to four fields of view that share their centre.
    n_neighbors
        Spatial neighbours that the embedder looks at beside the spot itself; 0 for none.
    """

    views: tuple[PatchView, ...]
    n_neighbors: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.views) <= MAX_VIEWS:
            raise ConfigError(
                explain("patch views", got=len(self.views), expected=f"1 to {MAX_VIEWS}")
            )
        if self.n_neighbors < 0:
            raise ConfigError(explain("n_neighbors", got=self.n_neighbors, expected="0 or more"))

    @classmethod
    def single(cls, patch_px: int, *, side_um: float) -> PatchSpec:
        """Return a spec with one view of ``patch_px`` pixels that covers ``side_um`` microns."""
        return cls((PatchView(patch_px, side_um / patch_px),))

    @property
    def primary(self) -> PatchView:
        """The finest view; grids and thumbnails follow it."""
        return self.views[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        return {
            "views": [{"patch_px": v.patch_px, "mpp": v.mpp} for v in self.views],
            "n_neighbors": self.n_neighbors,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PatchSpec:
        """Rebuild a spec from :meth:`to_dict`."""
        views = tuple(PatchView(int(v["patch_px"]), float(v["mpp"])) for v in data["views"])
        return cls(views, int(data.get("n_neighbors", 0)))
