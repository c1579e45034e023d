"""A step on parts of a batch is the step on the batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from stretrieve.training.batches import TrainingData, plan_epoch
from stretrieve.training.parallel import World
from stretrieve.training.settings import AugmentSettings
from stretrieve.training.step import Arithmetic, accumulate_gradients
from tests.training.toys import HEADS, PIXELS, make, sections_of


def _gradients(config, micro, **changes):
    embedder = make(config, **changes)
    sections = sections_of(embedder)
    embedder.fit(sections)
    data = TrainingData.collect(embedder, sections, augment=AugmentSettings(), seed=0)
    spots = plan_epoch(data.sizes, unit=embedder.batch_unit, batch_size=24, seed=0, epoch=1)[0]
    parts = [
        partial(data.batch, spots[start : start + micro], epoch=1)
        for start in range(0, len(spots), micro)
    ]
    embedder.train_mode(training=True)
    loss = accumulate_gradients(
        embedder,
        parts,
        seed=3,
        total=len(spots),
        world=World(),
        arithmetic=Arithmetic(torch.device("cpu")),
    )
    groups = embedder.parameter_groups()
    return loss, [p.grad for group in groups for p in group.parameters]


@pytest.mark.parametrize("config", [HEADS, PIXELS], ids=["heads", "pixels"])
@pytest.mark.parametrize("space", ["identity", "post-projection", "pre-projection"])
def test_cached_batches_have_the_gradient_of_the_whole(config, space):
    loss = {"target_space": space, "stop_gradient": False, "tau_target": 0.5}
    whole, expected = _gradients(config, 1000, loss=loss)
    parted, got = _gradients(config, 7, loss=loss)
    assert parted == pytest.approx(whole, rel=1e-5)
    assert any(float(g.abs().max()) > 1e-4 for g in expected)
    for a, b in zip(got, expected, strict=True):
        scale = max(float(b.abs().max()), 1e-3)
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-4)


def test_dropout_is_the_same_in_both_passes():
    # with dropout the parts' masks differ from the whole's, but two equal runs must agree
    _, first = _gradients(HEADS, 7, dropout=0.5)
    _, second = _gradients(HEADS, 7, dropout=0.5)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
