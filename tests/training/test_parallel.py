"""Two processes on halves of each batch are one process on the whole."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

_WORKER = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from safetensors.torch import save_file
from stretrieve.training import TrainSettings, fit_embedder
from tests.training.toys import HEADS, PIXELS, make, sections_of
out, micro = Path(sys.argv[1]), int(sys.argv[2])
rank = os.environ.get("RANK", "alone")
for kind, config in (("heads", HEADS), ("pixels", PIXELS)):
    embedder = make(config, start="random")
    settings = TrainSettings(
        epochs=2, batch_size=30, micro_batch=micro, device="cpu", early_stopping=False
    )
    report = fit_embedder(embedder, sections_of(embedder), settings=settings)
    save_file(dict(embedder.network.state_dict()), out / f"{kind}-{rank}.safetensors")
    (out / f"{kind}-{rank}.txt").write_text(repr([record.loss for record in report.history]))
"""


def _start(folder, micro, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(folder), str(micro)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=Path(__file__).parents[2],
    )


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port(), "WORLD_SIZE": "2"}
    processes = [_start(tmp_path, 4, RANK=str(rank), **shared) for rank in range(2)]
    processes.append(_start(tmp_path, 0))
    assert [process.wait(timeout=250) for process in processes] == [0, 0, 0]
    for kind in ("heads", "pixels"):
        alone, first, second = (
            load_file(tmp_path / f"{kind}-{name}.safetensors") for name in ("alone", "0", "1")
        )
        for name, tensor in alone.items():
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-5)
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        losses = [
            ast.literal_eval((tmp_path / f"{kind}-{name}.txt").read_text())
            for name in ("alone", "0", "1")
        ]
        assert losses[1] == losses[2] == pytest.approx(losses[0], abs=1e-5)
