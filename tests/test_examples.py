import contextlib
import io
import runpy
import sys
from pathlib import Path

import anndata as ad
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RETRIEVAL = {
    "image_to_expression.py": ("image->expression", "donor1_a/"),
    "image_to_image.py": ("image->image", "wrote look-alikes.png"),
    "expression_to_image.py": ("expression->image", "wrote patch.jpg"),
    "expression_to_expression.py": ("expression->expression", "median correlation"),
    "gene_signature.py": ("p_value", "n_neighbours"),
    "similar_sections.py": ("similarity", "donor2_a"),
}


def run(name, folder):
    """Run an example as a program would be and return what it prints."""
    before, printed = sys.argv, io.StringIO()
    sys.argv = [name, str(folder)]
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before
    return printed.getvalue()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    (folder / "printed.txt").write_text(run("build_and_query.py", folder))
    return folder


def test_build_and_query(built):
    printed = (built / "printed.txt").read_text()
    prediction = ad.read_h5ad(built / "prediction.h5ad")
    assert f"{prediction.n_obs} patches x {prediction.n_vars} genes" in printed
    assert "donor1_a/" in printed or "donor2_a/" in printed


@pytest.mark.parametrize("name", RETRIEVAL)
def test_retrieval(name, built):
    printed = run(name, built)
    assert all(text in printed for text in RETRIEVAL[name])
    assert "donor3_a/" not in printed  # the donor asked with is never an answer


def test_expression_to_expression_finds_the_same_genes(built):
    assert float(run("expression_to_expression.py", built).split()[-1]) > 0.3


def test_every_example_has_a_test():
    tested = {"build_and_query.py", *RETRIEVAL}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
