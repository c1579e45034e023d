import importlib
import pkgutil
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from enum import Enum, StrEnum

import numpy as np
import pytest

import stretrieve
from stretrieve import QuerySettings
from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.errors import ConfigError
from stretrieve.indexes import ExactIndex
from stretrieve.indexes.recipes import IndexKind, Recipe
from stretrieve.training.settings import TrainSettings


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    count: int = 1
    colour: Colour = Colour.RED
    inner: Inner = field(default_factory=Inner)
    sizes: tuple[int, ...] = (1,)
    pair: tuple[float, float] = (0.0, 1.0)
    limit: float | None = None
    flag: bool = False


def test_round_trip():
    settings = Outer(3, Colour.BLUE, Inner(0.5), (1, 2), (2.0, 3.0), 4.0, flag=True)
    assert settings_from_dict(Outer, settings_to_dict(settings)) == settings


def test_whole_numbers_serve_as_floats():
    assert settings_from_dict(Outer, {"inner": {"rate": 1}, "limit": 2}).inner.rate == 1.0


def test_every_fault_is_reported_at_once_with_its_path():
    data = {
        "cuont": 1, "colour": "green", "inner": {"rate": "x"}, "sizes": [1, 2.5], "pair": [1], "flag": 1,
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        settings_from_dict(Outer, data)
    text = str(caught.value)
    for part in ("did you mean 'count'", "'colour'", "red, blue", "'inner.rate'", "'sizes[1]'",
                 "a list of 2", "'flag'"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("value", [True, "1", 1.5, None])
def test_wrong_type_for_a_whole_number(value):
    with pytest.raises(ConfigError, match="count"):
        settings_from_dict(Outer, {"count": value})


def _settings_with_choices():
    """Return every class of settings of the package, with its choices."""
    for module in pkgutil.walk_packages(stretrieve.__path__, "stretrieve."):
        if module.name.endswith("__main__"):
            continue
        for name, cls in vars(importlib.import_module(module.name)).items():
            if not (isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == module.name):
                continue
            if name.endswith("Settings"):
                chosen = {f.name: f.default for f in fields(cls) if isinstance(f.default, Enum)}
                if chosen:
                    yield cls, chosen


def test_names_of_choices_serve_as_choices():
    """They are compared by identity."""
    classes = list(_settings_with_choices())
    assert len(classes) >= 13
    for cls, chosen in classes:
        for name, default in chosen.items():
            made = cls(**{name: default.value})
            assert getattr(made, name) is default, (cls, name)
            with pytest.raises(
                ConfigError, match=f"'{name}'.*'nonsense'.*one of .*{default.value}"
            ):
                cls(**{name: "nonsense"})


def test_every_wrong_name_is_reported_at_once():
    with pytest.raises(ConfigError, match=r"'modality'.*fused.*'centring'.*none, section, both"):
        QuerySettings(centring="slide", modality="text", compat="bleep")


def test_settings_of_a_plugin_whose_types_are_unknown_here():
    added = [("folder", "Unknown", None)]
    mine = make_dataclass("Mine", added, bases=(TrainSettings,), frozen=True)
    assert mine(monitor=TrainSettings().monitor.value).monitor is TrainSettings().monitor
    with pytest.raises(ConfigError, match="'monitor'"):
        mine(monitor="nonsense")


def test_indexes_take_names():
    assert Recipe(kind="flat", description="mine").kind is IndexKind.FLAT
    vectors = np.eye(4, dtype=np.float32)
    assert ExactIndex(3 * vectors, metric="cosine").search(vectors, 1).scores.max() == 1
    with pytest.raises(ConfigError, match=r"metric.*'cos'.*cosine, dot, euclidean"):
        ExactIndex(vectors, metric="cos")
