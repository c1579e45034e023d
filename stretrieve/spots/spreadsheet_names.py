"""Gene names that a spreadsheet has turned into dates, and what they may have been."""

from __future__ import annotations

import re
from typing import Final

_DAY_FIRST: Final = re.compile(r"^0?(\d{1,2})[-./ ]([A-Za-z]{3})$")
_MONTH_FIRST: Final = re.compile(r"^([A-Za-z]{3})[-./ ]0?(\d{1,2})$")
_STEMS: Final = {
    "feb": ("FEB",),
    "mar": ("MARCH", "MARC"),
    "apr": ("APR",),
    "sep": ("SEPT", "SEP"),
    "oct": ("OCT",),
    "nov": ("NOV",),
    "dec": ("DEC",),
}


def original_names(name: str, *, species: str) -> tuple[str, ...]:
    """Return the symbols that a spreadsheet would have turned into ``name``; none for other names.

    Parameters
    ----------
    name
        A gene name, for example ``"1-Mar"`` or ``"Sep-02"``.
    species
        Mouse symbols are spelt with one capital.
    """
    day, month = _DAY_FIRST.match(name), _MONTH_FIRST.match(name)
    if day:
        number, text = day[1], day[2]
    elif month:
        number, text = month[2], month[1]
    else:
        return ()
    stems = _STEMS.get(text.lower(), ())
    spelt = (stem.capitalize() if species == "mouse" else stem for stem in stems)
    return tuple(f"{stem}{int(number)}" for stem in spelt)
