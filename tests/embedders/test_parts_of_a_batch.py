"""Graph, spot-transformer and multi-scale embedders: gradients of parts are those of the batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from stretrieve.embedders import create_embedder
from stretrieve.testing.toy import toy_sections
from stretrieve.training.batches import TrainingData, plan_epoch
from stretrieve.training.parallel import World
from stretrieve.training.settings import AugmentSettings
from stretrieve.training.step import Arithmetic, accumulate_gradients
from tests.embedders.test_m2ost import CONFIG as M2OST
from tests.embedders.test_mclstexp import CONFIG as MCLSTEXP
from tests.embedders.test_stgchb import CONFIG as STGCHB

CASES = {
    "stgchb": ("stgchb", STGCHB),
    "stgchb, tower trained": ("stgchb", {**STGCHB, "backbone_stages": 1}),
    "mclstexp": ("mclstexp", {**MCLSTEXP, "start": "random"}),
    "m2ost": ("m2ost", {**M2OST, "objective": "both"}),
}


def gradients(name, config, micro):
    embedder = create_embedder(name, config)
    sections = toy_sections(embedder.spec)
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
    return loss, {g.name: [p.grad for p in g.parameters] for g in groups}


@pytest.mark.parametrize("case", CASES)
def test_parts_have_the_gradient_of_the_whole(case):
    whole, expected = gradients(*CASES[case], 1000)
    parted, got = gradients(*CASES[case], 7)
    assert parted == pytest.approx(whole, rel=1e-5, abs=1e-5)  # a difference of terms of about 1
    for group, tensors in expected.items():
        assert any(float(g.abs().max()) > 1e-6 for g in tensors if g is not None), group
        scale = max(float(g.abs().max()) for g in tensors if g is not None)
        for a, b in zip(got[group], tensors, strict=True):
            assert (a is None) == (b is None)
            if b is not None:
                torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=2e-4)
