"""Simulated genes and the expression programmes that tie them to tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from stretrieve.keys import GENE_ID, GENE_SYMBOL
from stretrieve.simulation._random import generator
from stretrieve.simulation.tissue import REGIONS, STATES, Region, State

N_MARKERS = {
    Region.TUMOUR: 24,
    Region.DUCT: 20,
    Region.STROMA: 24,
    Region.FAT: 16,
    Region.IMMUNE: 24,
}
N_STATE = {State.GRADE: 16, State.FIBROSIS: 16, State.HIDDEN: 10}
N_HOUSEKEEPING = 60
N_NOISE = 40

CELLULARITY = {
    Region.TUMOUR: 1.5,
    Region.DUCT: 1.1,
    Region.STROMA: 0.7,
    Region.FAT: 0.25,
    Region.IMMUNE: 1.2,
}
"""Relative amount of messenger RNA that a region holds per area."""

_STATE_REGION = {State.GRADE: Region.TUMOUR, State.FIBROSIS: Region.STROMA, State.HIDDEN: None}


@dataclass(frozen=True)
class Programmes:
    """Expression of every simulated gene in every region and condition.

    Parameters
    ----------
    genes
        Index = gene key such as ``SIM-TUM-001``; columns ``gene_id`` (empty: these genes exist
        nowhere) and ``gene_symbol``.
    group
        ``(n_genes,)`` what drives the gene: a region, a condition, ``HKG`` (housekeeping) or
        ``RND`` (nothing).
    region_rates
        ``(n_regions, n_genes)`` expression per area of pure tissue.
    state_slopes
        ``(n_states, n_genes)`` log expression gained as a condition goes from 0 to 1.
    """

    genes: pd.DataFrame
    group: npt.NDArray[np.str_]
    region_rates: npt.NDArray[np.float64]
    state_slopes: npt.NDArray[np.float64]

    def rates(
        self, fractions: npt.NDArray[np.floating], states: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.float64]:
        """Return expected expression ``(n_spots, n_genes)``, before depth and donor effects.

        Parameters
        ----------
        fractions
            ``(n_spots, n_regions)`` share of each region under a spot.
        states
            ``(n_spots, n_states)`` mean condition under a spot, 0 to 1.
        """
        content = np.asarray([CELLULARITY[region] for region in REGIONS])
        mixed = (np.asarray(fractions, dtype=np.float64) * content) @ self.region_rates
        return np.asarray(mixed * np.exp(np.asarray(states, dtype=np.float64) @ self.state_slopes))


def _names() -> tuple[list[str], list[str]]:
    groups = [(r.value, n) for r, n in N_MARKERS.items()]
    groups += [(s.value, n) for s, n in N_STATE.items()]
    groups += [("HKG", N_HOUSEKEEPING), ("RND", N_NOISE)]
    names = [f"SIM-{group}-{i:03d}" for group, n in groups for i in range(1, n + 1)]
    return names, [group for group, n in groups for _ in range(n)]


def make_programmes(seed: int) -> Programmes:
    """Return the simulated gene panel and its programmes.

    Parameters
    ----------
    seed
        Sections that are to be compared share it.
    """
    rng = generator("programmes", seed)
    names, groups = _names()
    group = np.asarray(groups)
    n_genes = len(names)
    base = rng.lognormal(0.0, 0.9, n_genes)
    base[group == "HKG"] *= 2.5
    rates = np.tile(base, (len(REGIONS), 1))
    slopes = np.zeros((len(STATES), n_genes))
    for row, region in enumerate(REGIONS):
        mine = group == region.value
        others = np.arange(len(REGIONS)) != row
        leak = rng.uniform(0.04, 0.3, (len(REGIONS) - 1, int(mine.sum())))
        rates[np.ix_(others, mine)] *= leak
    for row, state in enumerate(STATES):
        mine = group == state.value
        slopes[row, mine] = rng.uniform(1.2, 2.4, int(mine.sum()))
        home = _STATE_REGION[state]
        if home is not None:
            others = np.arange(len(REGIONS)) != REGIONS.index(home)
            rates[np.ix_(others, mine)] *= 0.25
    housekeeping = np.ix_(np.arange(len(REGIONS)), group == "HKG")
    rates[housekeeping] *= rng.lognormal(0.0, 0.12, rates[housekeeping].shape)
    genes = pd.DataFrame(
        {GENE_ID: [""] * n_genes, GENE_SYMBOL: names}, index=pd.Index(names, name="gene")
    )
    return Programmes(genes, group, rates, slopes)
