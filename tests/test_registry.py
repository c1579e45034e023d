import importlib.metadata

import pytest

from stretrieve.errors import DuplicateNameError, UnknownNameError
from stretrieve.registry import Registry


def test_builtin_parts_are_imported_on_first_use():
    registry = Registry("thing", builtin={"counter": "collections:Counter"})
    assert registry.names() == ("counter",)
    assert registry.get("counter").__name__ == "Counter"
    assert "counter" in registry


def test_decorator_registers_and_refuses_a_taken_name():
    registry = Registry("thing", builtin={"a": "json:dumps"})

    @registry.register("b")
    def part():
        return 1

    assert registry.get("b") is part
    with pytest.raises(DuplicateNameError, match="thing name: got 'a' twice"):
        registry.register("a")(part)


def test_unknown_name_lists_choices_and_the_nearest():
    registry = Registry("embedder", builtin={"bleep": "json:dumps", "colour": "json:loads"})
    with pytest.raises(UnknownNameError, match="bleep, colour; did you mean 'bleep'"):
        registry.get("blep")


def test_entry_points_of_other_packages_are_found(monkeypatch):
    point = importlib.metadata.EntryPoint("extra", "json:loads", "some.group")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    registry = Registry("thing", builtin={"a": "json:dumps"}, group="some.group")
    assert registry.names() == ("a", "extra")
    assert registry.get("extra").__name__ == "loads"


def test_entry_point_may_not_shadow_a_builtin_part(monkeypatch):
    point = importlib.metadata.EntryPoint("a", "json:loads", "some.group")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    with pytest.raises(DuplicateNameError):
        Registry("thing", builtin={"a": "json:dumps"}, group="some.group").names()
