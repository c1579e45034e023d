"""Maps of predictions; :mod:`stretrieve.report.demo` shows the whole path on simulated tissue."""

from __future__ import annotations

from stretrieve.report.maps import write_maps

__all__ = ["write_maps"]
