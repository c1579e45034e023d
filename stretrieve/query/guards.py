"""What the reader of predictions has to know: every doubt that can be told beforehand, in words."""

from __future__ import annotations

import numpy as np

from stretrieve import keys
from stretrieve.query.calibrate import MIN_PATIENTS
from stretrieve.query.calibration import Calibration
from stretrieve.query.pool import Mask, Pool
from stretrieve.query.settings import Balance, RetrievalSettings


def query_warnings(
    pool: Pool,
    settings: RetrievalSettings,
    *,
    allowed: Mask,
    calibration: Calibration | None,
    patient: str | None = None,
) -> list[str]:
    """Return warnings for a query, most important first.

    Parameters
    ----------
    pool
        The spots.
    settings
        How they are retrieved.
    allowed
        ``(n_spots,)`` spots that may be used.
    calibration
        That of the pool, if any.
    patient
        The query's donor; ``None`` when unknown.
    """
    everybody = set(pool.spots[keys.PATIENT].unique())
    n_patients = pool.spots[keys.PATIENT][allowed].nunique()
    warnings: list[str] = []
    if patient is None:
        warnings.append("patient unknown: spots of the same donor were not excluded")
    elif patient in everybody:
        warnings.append(
            f"patient {patient!r} is in the reference: own spots are left out, but embedder and "
            "calibration have seen them"
        )
    if n_patients < MIN_PATIENTS:
        warnings.append("fewer than three reference patients: expect weak generalisation")
    n_spots = int(np.count_nonzero(allowed))
    if n_spots < settings.top_k and settings.balance is Balance.NONE:
        warnings.append(
            f"only {n_spots} reference spots may be used, fewer than top_k {settings.top_k}"
        )
    return warnings + _calibration_warnings(calibration, settings, len(everybody))


def _calibration_warnings(
    calibration: Calibration | None, settings: RetrievalSettings, n_patients: int
) -> list[str]:
    if calibration is None and n_patients < MIN_PATIENTS:
        return [
            "not calibrated (that takes three patients): default settings, no intervals, no "
            "expected correlations"
        ]
    if calibration is None:
        return [
            "not calibrated: no intervals, no expected correlations; run `stretrieve ref calibrate`"
        ]
    if not calibration.applies_to(settings):
        return ["settings differ from the calibrated ones: no intervals, no expected correlations"]
    if calibration.in_sample:
        return [
            "calibrated with an embedder that had seen the held-out patients: intervals are too "
            "narrow and expected correlations too high"
        ]
    return []
