"""Maps and reports of predictions."""

from __future__ import annotations

from stretrieve.report.maps import write_maps

__all__ = ["write_maps"]
