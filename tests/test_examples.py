import runpy
import sys
from pathlib import Path

import anndata as ad

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_build_and_query(tmp_path, monkeypatch, capsys):
    script = EXAMPLES / "build_and_query.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    prediction = ad.read_h5ad(tmp_path / "prediction.h5ad")
    assert f"{prediction.n_obs} patches x {prediction.n_vars} genes" in printed
    assert "donor1_a/" in printed or "donor2_a/" in printed


def test_every_example_has_a_test():
    tested = {"build_and_query.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
