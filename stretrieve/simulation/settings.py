"""What a simulated section is made of."""

from __future__ import annotations

from dataclasses import dataclass

from stretrieve.errors import ConfigError, explain

PITCH_UM = 100.0
"""Centre-to-centre distance of Visium spots."""

SPOT_UM = 55.0
"""Diameter of a Visium spot."""


@dataclass(frozen=True, slots=True)
class TissueSettings:
    """Settings of one simulated section; the defaults make the demo.

    Parameters
    ----------
    width_um, height_um
        Size of the slide in microns.
    mpp
        Microns per level-0 pixel.
    library_size
        Median counts of a spot.
    library_sigma
        Standard deviation of the natural logarithm of a spot's capture efficiency.
    dispersion
        Overdispersion φ of the negative binomial, variance = μ + φ μ².
    donor_sigma
        Standard deviation of a donor's log expression offset of each gene.
    stain_shift
        How far donors' stains lie from each other: 0 for one stain, 0.4 for one laboratory on
        different days, 1 for different laboratories.
    panel_seed
        Seed of the expression programmes, shared by all sections that are to be compared.
    """

    width_um: float = 2400.0
    height_um: float = 2400.0
    mpp: float = 0.75
    library_size: float = 3000.0
    library_sigma: float = 0.35
    dispersion: float = 0.12
    donor_sigma: float = 0.25
    stain_shift: float = 0.4
    panel_seed: int = 7

    def __post_init__(self) -> None:
        self._at_least("width_um", self.width_um, 600.0)
        self._at_least("height_um", self.height_um, 600.0)
        self._at_least("library_size", self.library_size, 1.0)
        for name in ("library_sigma", "dispersion", "donor_sigma", "stain_shift"):
            self._at_least(name, getattr(self, name), 0.0)
        if not 0.2 <= self.mpp <= 4.0:
            raise ConfigError(explain("simulated mpp", got=self.mpp, expected="0.2 to 4 µm/px"))

    @staticmethod
    def _at_least(name: str, value: float, low: float) -> None:
        if not value >= low:
            raise ConfigError(
                explain(f"simulation setting {name!r}", got=value, expected=f"{low:g} or more")
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the slide in level-0 px."""
        return round(self.width_um / self.mpp), round(self.height_um / self.mpp)
