"""A build by several processes, as a user starts it."""

import subprocess
import sys

import numpy as np
import torch
from safetensors.torch import load_file

from stretrieve.reference import Reference
from tests.tissue import write_cohort

_BUILD = (
    "-m", "stretrieve", "build-ref", "--embedder", "bleep", "--backbone", "test_resnet",
    "--weights", "none", "--patch-px", "32", "--patch-um", "160", "--no-calibrate", "--quiet",
    "--set", "train.early_stopping=false", "--epochs", "2",
    "--set", "embedder_config.start='random'", "--set", "embedder_config.dropout=0.0",
    "--set", "train.device='cpu'",
)  # fmt: skip
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def build(sheet, out, *start):
    command = [sys.executable, *start, *_BUILD, str(sheet), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return Reference.open(out), done


def test_two_processes_build_what_one_builds(tmp_path):
    write_cohort(tmp_path)
    sheet = tmp_path / "sheet.csv"
    one, _ = build(sheet, tmp_path / "ONE")
    two, done = build(sheet, tmp_path / "TWO", *_TORCHRUN)
    assert done.stdout.count("next: stretrieve query") == 1
    assert not list(tmp_path.glob(".*"))
    weights = [load_file(r.layout.embedder / "model.safetensors") for r in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-5)
    vectors = [r.embeddings("image") for r in (one, two)]
    np.testing.assert_allclose(vectors[1], vectors[0], atol=1e-4)


def test_a_refused_input_ends_all_processes(tmp_path):
    command = [sys.executable, *_TORCHRUN, *_BUILD, str(tmp_path / "none.csv"), "--out", "REF"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode != 0
    assert "none.csv" in done.stderr
    assert not list(tmp_path.iterdir())
