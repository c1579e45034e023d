"""What held-out patients said about a reference: settings, interval widths, expected correlations."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve._files import sha256_text
from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.errors import ManifestError, explain
from stretrieve.query.conformal import EPSILON, LEVELS
from stretrieve.query.settings import QuerySettings, RetrievalSettings

FORMAT: Final = 1

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Lower and upper ends ``(n_patches, n_genes)``, log1p CP10k."""

    lower: Matrix
    upper: Matrix


@dataclass(frozen=True)
class Calibration:
    """The outcome of a calibration.

    Parameters
    ----------
    settings
        How to retrieve.
    quantiles
        Level in percent to ``(n_genes,)`` half width of the interval, in units of the spread.
    expected_pcc
        ``(n_genes,)`` mean correlation on patients that had no part in embedder, pool or settings.
    genes_digest
        :func:`digest_genes` of the genes, in order.
    facts
        The numbers that chose the settings, and what they rest on; plain JSON data.
    """

    settings: RetrievalSettings
    quantiles: Mapping[int, Matrix]
    expected_pcc: Matrix
    genes_digest: str
    facts: Mapping[str, Any]

    @property
    def in_sample(self) -> bool:
        """Whether the embedder had seen the held-out patients."""
        return not self.facts.get("embedder_refitted", False)

    def applies_to(self, settings: RetrievalSettings) -> bool:
        """Whether predictions with these settings are the ones that were calibrated."""
        return retrieval_part(settings) == self.settings

    def intervals(
        self,
        mean: Matrix,
        spread: Matrix,
        columns: npt.NDArray[np.int64],
        *,
        levels: Sequence[int] = LEVELS,
    ) -> dict[int, Interval]:
        """Return an interval of each level that was calibrated; ends below 0 become 0.

        Parameters
        ----------
        mean, spread
            ``(n_patches, n_genes)`` of a prediction.
        columns
            ``(n_genes,)`` positions of the genes in the pool.
        levels
            Nominal coverages wanted, in percent.
        """
        found = {}
        for level in (level for level in levels if level in self.quantiles):
            half = self.quantiles[level][columns] * (spread + EPSILON)
            found[level] = Interval(np.maximum(mean - half, 0.0), np.maximum(mean + half, 0.0))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data for the manifest."""
        return {
            "format": FORMAT,
            "settings": settings_to_dict(self.settings),
            "genes_digest": self.genes_digest,
            "quantiles": {str(level): _pack(values) for level, values in self.quantiles.items()},
            "expected_pcc": _pack(self.expected_pcc),
            **self.facts,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """Rebuild a calibration from :meth:`to_dict`.

        Raises
        ------
        ManifestError
            When it is damaged or of an unknown format.
        """
        if data.get("format") != FORMAT:
            raise ManifestError(
                explain(
                    "calibration",
                    got=f"format {data.get('format')!r}",
                    expected=FORMAT,
                    remedy="run `stretrieve ref calibrate`",
                )
            )
        own = {"format", "settings", "genes_digest", "quantiles", "expected_pcc"}
        try:
            return cls(
                settings_from_dict(RetrievalSettings, data["settings"]),
                {int(level): _unpack(text) for level, text in data["quantiles"].items()},
                _unpack(data["expected_pcc"]),
                str(data["genes_digest"]),
                {name: value for name, value in data.items() if name not in own},
            )
        except (KeyError, ValueError, zlib.error) as error:
            raise ManifestError(
                explain("calibration", got=f"damaged data ({error})", remedy="calibrate again")
            ) from error


def retrieval_part(settings: RetrievalSettings) -> RetrievalSettings:
    """Return the retrieval settings among those of a query."""
    names = [f.name for f in fields(RetrievalSettings)]
    return RetrievalSettings(**{name: getattr(settings, name) for name in names})


def recommended_settings(
    calibration: Calibration | None, overrides: Mapping[str, Any] | None = None
) -> QuerySettings:
    """Return the settings to query with: calibrated ones, or the defaults, and what the user says.

    Parameters
    ----------
    calibration
        That of the reference, if any.
    overrides
        Names and values, as read from TOML or a command line, that win over both.

    Raises
    ------
    ConfigError
        When one of the overrides is unknown or wrong.
    """
    base = settings_to_dict(calibration.settings) if calibration is not None else {}
    return settings_from_dict(QuerySettings, {**base, **(overrides or {})})


def digest_genes(genes: Sequence[str]) -> str:
    """Return a digest of gene keys in order."""
    return sha256_text("\n".join(map(str, genes)))


def _pack(values: Matrix) -> str:
    return base64.b64encode(zlib.compress(values.astype("<f4").tobytes(), 6)).decode()


def _unpack(text: str) -> Matrix:
    raw = zlib.decompress(base64.b64decode(text, validate=True))
    return np.frombuffer(raw, dtype="<f4").astype(np.float64)
