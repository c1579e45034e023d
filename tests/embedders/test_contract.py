"""Every registered embedder keeps the contract."""

from __future__ import annotations

from types import MappingProxyType

from stretrieve.embedders import EMBEDDERS
from stretrieve.testing.embedders import EmbedderContract

TINY = {"backbone": "test_resnet"}
SMALL = {"n_genes": 20, "joint": {"n_components": 4, "alpha": 10.0}, "patch_px": 32}
TOWER = {"encoder": TINY, "dim": 16, **SMALL}
M2OST = {"width": 12, "depth": 1, "dim_head": 4, "mlp_hidden": 12}


class TestColour(EmbedderContract):
    name = "colour"
    config = SMALL


class TestBleep(EmbedderContract):
    name = "bleep"
    config = TOWER


class TestBleepTrainingItsBackbone(TestBleep):
    config = MappingProxyType({**TOWER, "backbone_stages": 1})


class TestBleepWithExpressionEncoder(TestBleep):
    config = MappingProxyType({**TOWER, "expression_width": 8, "start": "random"})


class TestBleepAsPublished(TestBleep):
    config = MappingProxyType({**TOWER, "compat": True})


class TestFrozen(EmbedderContract):
    name = "frozen"
    config = TOWER


class TestFrozenWithTrainedLinearHead(TestFrozen):
    config = MappingProxyType({**TOWER, "head": "linear"})


class TestFrozenWithKernel(TestFrozen):
    config = MappingProxyType({**TOWER, "joint": {"method": "kernel"}})


class TestFrozenTransformer(TestFrozen):
    config = MappingProxyType(
        {"encoder": {"backbone": "test_vit"}, "patch_px": 32, "joint": {"method": "cca"}}
    )


class TestStgchb(EmbedderContract):
    name = "stgchb"
    config = MappingProxyType({**TOWER, "infomax": {"epochs": 1}})


class TestM2ost(EmbedderContract):
    name = "m2ost"
    config = MappingProxyType({**SMALL, "dim": 16, "network": M2OST})


class TestMclstexp(EmbedderContract):
    name = "mclstexp"
    config = TOWER


def _covered(cls):
    return {cls.name, *(name for child in cls.__subclasses__() for name in _covered(child))}


def test_every_embedder_has_a_contract_run():
    ours = {name for name in EMBEDDERS if EMBEDDERS.get(name).__module__.startswith("stretrieve.")}
    assert ours
    assert ours <= _covered(EmbedderContract)
