"""Settings of the loop."""

from __future__ import annotations

import pytest

from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.errors import ConfigError
from stretrieve.training import TrainSettings


def test_round_trip():
    settings = TrainSettings(epochs=3, validation_patients=("a", "b"))
    assert settings_from_dict(TrainSettings, settings_to_dict(settings)) == settings


@pytest.mark.parametrize(
    "bad",
    [
        {"epoch": 3},
        {"epochs": -1},
        {"batch_size": 1},
        {"learning_rate_scale": 0.0},
        {"validation_fraction": 1.0},
        {"monitor": "loss"},
        {"augment": {"stain": 2.0}},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ConfigError):
        settings_from_dict(TrainSettings, bad)
