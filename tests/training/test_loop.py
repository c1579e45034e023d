"""The loop learns, stops, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stretrieve.embedders import create_embedder
from stretrieve.errors import ConfigError, InputError, MismatchError
from stretrieve.training import TrainReport, TrainSettings, fit_embedder
from tests.training.toys import HEADS, PIXELS, make, sections_of

SETTINGS = TrainSettings(epochs=3, batch_size=32, device="cpu", patience=5)


def _weights(embedder):
    return {k: v.clone() for k, v in embedder.network.state_dict().items()}


def _same(a, b, atol=0.0):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol)


def test_closed_form_embedders_are_just_fitted():
    embedder = make(head="closed-form")
    report = fit_embedder(embedder, sections_of(embedder))
    assert report == TrainReport()
    assert embedder.gene_names


def test_no_epochs_keep_the_start():
    embedder, plain = make(), make()
    fit_embedder(embedder, sections_of(embedder), settings=TrainSettings(epochs=0))
    plain.fit(sections_of(plain))
    _same(_weights(embedder), _weights(plain))


def test_training_learns_from_a_random_start():
    embedder = make(start="random", rates={"heads": 3e-3})
    settings = TrainSettings(epochs=12, batch_size=32, device="cpu", patience=12, refit=False)
    report = fit_embedder(embedder, sections_of(embedder), settings=settings)
    losses = [record.loss for record in report.history if record.loss is not None]
    assert losses[-1] < 0.8 * losses[0]
    start, best = report.history[0], max(report.history, key=lambda r: r.recall)
    assert best.recall > start.recall
    assert best.recall > 2 * best.chance


def test_best_epoch_decides_and_everything_is_refitted():
    embedder = make(start="random", rates={"heads": 3e-3})
    report = fit_embedder(embedder, sections_of(embedder), settings=SETTINGS)
    select = [r for r in report.history if r.phase == "select"]
    refit = [r for r in report.history if r.phase == "refit"]
    assert report.held_out == ("a",)
    best = max(select, key=lambda r: (r.recall / r.chance, -r.epoch))
    assert report.epochs == best.epoch == len(refit)
    assert select[0].epoch == 0
    assert all(r.recall is None for r in refit)


def test_patience_ends_the_search():
    embedder = make(rates={"heads": 1e-9})
    settings = TrainSettings(epochs=50, batch_size=32, device="cpu", patience=2)
    report = fit_embedder(embedder, sections_of(embedder), settings=settings)
    assert [r.epoch for r in report.history if r.phase == "select"] == [0, 1, 2]
    assert report.epochs == 0


@pytest.mark.parametrize("config", [HEADS, PIXELS], ids=["heads", "pixels"])
def test_two_runs_agree_and_the_seed_matters(config):
    runs = []
    for seed in (0, 0, 1):
        embedder = make(config, dropout=0.2)
        settings = TrainSettings(
            epochs=1, batch_size=16, seed=seed, device="cpu", early_stopping=False
        )
        fit_embedder(embedder, sections_of(embedder), settings=settings)
        runs.append(_weights(embedder))
    _same(runs[0], runs[1])
    assert any(not torch.equal(runs[0][k], runs[2][k]) for k in runs[0])


def test_trained_backbone_changes_only_in_its_last_stage():
    embedder = make(PIXELS)
    sections = sections_of(embedder)
    embedder.fit(sections)
    start = _weights(embedder)
    settings = TrainSettings(epochs=1, batch_size=16, device="cpu", early_stopping=False)
    fit_embedder(embedder, sections, settings=settings)
    end = _weights(embedder)
    changed = {
        k for k in start if k.startswith("image_encoder") and not torch.equal(start[k], end[k])
    }
    assert changed
    assert all(".layer4." in k for k in changed)
    embedder.fit(sections)
    _same(_weights(embedder), start)


def test_the_random_state_of_the_caller_is_left_alone():
    embedder = make()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_embedder(embedder, sections_of(embedder), settings=SETTINGS)
    assert torch.equal(torch.rand(3), expected)


_KILLED = """
import sys
from pathlib import Path
from stretrieve.training import TrainSettings, fit_embedder
from tests.training.toys import PIXELS, make, sections_of
embedder = make(PIXELS, dropout=0.2, start="random")
settings = TrainSettings(epochs=2, batch_size=32, device="cpu", patience=5)
fit_embedder(embedder, sections_of(embedder), settings=settings, checkpoint=Path(sys.argv[1]))
"""


@pytest.mark.parametrize("point", [2, 5])
def test_killed_training_ends_with_the_same_weights(tmp_path, point):
    """Points are numbered two a checkpoint: before it is written, and after."""
    environment = {**os.environ, "STRETRIEVE_CRASH_AT": str(point)}
    script = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n{_KILLED}"
    root = Path(__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, cwd=root, check=False
    )
    assert process.returncode == 99
    settings = TrainSettings(epochs=2, batch_size=32, device="cpu", patience=5)
    reports = []
    trained = []
    for checkpoint in (tmp_path, None):
        embedder = make(PIXELS, dropout=0.2, start="random")
        sections = sections_of(embedder)
        reports.append(fit_embedder(embedder, sections, settings=settings, checkpoint=checkpoint))
        trained.append(_weights(embedder))
    assert reports[0].resumed
    assert not reports[1].resumed
    assert reports[0].history == reports[1].history
    _same(trained[0], trained[1], atol=1e-7)


def test_finished_training_is_not_repeated(tmp_path):
    embedder = make()
    sections = sections_of(embedder)
    first = fit_embedder(embedder, sections, settings=SETTINGS, checkpoint=tmp_path)
    expected = _weights(embedder)
    again = make()
    second = fit_embedder(again, sections, settings=SETTINGS, checkpoint=tmp_path)
    assert second.resumed
    assert second.history == first.history
    _same(_weights(again), expected)


def test_checkpoint_of_another_training_is_refused(tmp_path):
    embedder = make()
    sections = sections_of(embedder)
    fit_embedder(embedder, sections, settings=SETTINGS, checkpoint=tmp_path)
    other = TrainSettings(epochs=4, device="cpu")
    with pytest.raises(MismatchError, match="another training"):
        fit_embedder(make(), sections, settings=other, checkpoint=tmp_path)
    (tmp_path / "training.safetensors").write_bytes(b"broken")
    with pytest.raises(MismatchError, match="unreadable"):
        fit_embedder(make(), sections, settings=SETTINGS, checkpoint=tmp_path)


def test_bad_input_is_one_clear_error():
    embedder = make()
    with pytest.raises(InputError, match="training sections"):
        fit_embedder(embedder, [])
    with pytest.raises(ConfigError, match="device"):
        fit_embedder(embedder, sections_of(embedder), settings=TrainSettings(device="abacus"))
    wild = make(rates={"heads": 1e30}, start="random")
    settings = TrainSettings(
        epochs=5, batch_size=8, device="cpu", early_stopping=False, clip_norm=0.0
    )
    with pytest.raises(ConfigError, match="learning_rate_scale"):
        fit_embedder(wild, sections_of(wild), settings=settings)


def test_progress_shows_loss_and_recall_against_chance():
    class Heard:
        def __init__(self):
            self.notes = []

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def task(self, label, total=None):
            return self

        def advance(self, n=1, *, note=""):
            self.notes.append(note)

    heard = Heard()
    embedder = make()
    fit_embedder(embedder, sections_of(embedder), settings=SETTINGS, progress=heard)
    assert any("loss" in note and "recall" in note and "chance" in note for note in heard.notes)


def test_report_round_trips():
    embedder = make()
    report = fit_embedder(embedder, sections_of(embedder), settings=SETTINGS)
    assert TrainReport.from_dict(report.to_dict()) == report


def test_colour_is_not_trainable():
    embedder = create_embedder("colour", {"patch_px": 32, "n_genes": 10})
    sections = sections_of(embedder)
    assert fit_embedder(embedder, sections) == TrainReport()
    assert np.isfinite(embedder.joint.image_map).all()
