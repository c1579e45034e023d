"""Loggers of the library. Only the command line adds handlers and sets levels."""

from __future__ import annotations

import logging

ROOT = "stretrieve"


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; pass ``__name__``."""
    return logging.getLogger(name if name.startswith(ROOT) else f"{ROOT}.{name}")
