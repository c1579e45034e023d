"""One small evaluation that several tests look at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from stretrieve.evaluation import run, summarise
from stretrieve.evaluation.workbench import Workbench
from tests.evaluation.settings import SETTINGS
from tests.tissue import write_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """Samplesheet of four sections, patients A (two), B and C."""
    return write_cohort(tmp_path_factory.mktemp("evaluation"), "AABC")


@pytest.fixture(scope="session")
def bench(cohort, tmp_path_factory) -> Workbench:
    return Workbench(cohort, tmp_path_factory.mktemp("bench"), SETTINGS)


@pytest.fixture(scope="session")
def evaluated(cohort, tmp_path_factory) -> SimpleNamespace:
    """A finished evaluation: folder, outcome, summary."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    outcome = run(cohort, out, settings=SETTINGS)
    return SimpleNamespace(sheet=cohort, out=out, outcome=outcome, summary=summarise(out))
