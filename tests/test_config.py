from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.errors import ConfigError


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
