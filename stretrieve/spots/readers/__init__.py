"""One module a vendor's layout; each hands a :class:`~stretrieve.spots.raw.RawSection` over."""
