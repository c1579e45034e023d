"""The example package: installed beside the core, found by it, and keeping the contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import pytest

from tests.tissue import write_cohort

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "examples" / "stretrieve-embedder-texture"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Install the package into a folder of its own; return what runs Python with it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(folder), str(PACKAGE)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            env=environment, cwd=folder, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    return call


def test_the_core_does_not_know_it():
    assert "texture" not in (ROOT / "stretrieve" / "embedders" / "__init__.py").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "stretrieve", "embedders", "--json"],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "texture" not in [row["name"] for row in json.loads(done.stdout)["embedders"]]


def test_it_is_listed_with_what_it_needs(run):
    done = run("stretrieve", "embedders", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)["embedders"]}
    assert rows["texture"]["needs"] == "nothing; closed form"
    assert "local binary patterns" in rows["texture"]["description"]
    assert all(row["needs"] for row in rows.values())


def test_a_reference_is_built_and_queried_with_it(run, tmp_path):
    sheet = write_cohort(tmp_path / "data", "AAB")
    done = run(
        "stretrieve", "build-ref", sheet, "--out", tmp_path / "ref", "--embedder", "texture",
        "--set", "embedder_config.n_genes=30",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    image = tmp_path / "data" / "s2" / "image.png"
    done = run(
        "stretrieve", "query", image, "--ref", tmp_path / "ref", "--mpp", 5, "--patient", "B",
        "--out", tmp_path / "out.h5ad",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    prediction = ad.read_h5ad(tmp_path / "out.h5ad")
    assert prediction.n_vars == 40
    assert prediction.n_obs > 20


def test_it_keeps_the_contract(run):
    done = run("pytest", "-q", "-p", "no:cacheprovider", PACKAGE / "test_contract.py")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
