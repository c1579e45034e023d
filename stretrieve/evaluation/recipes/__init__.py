"""Samplesheets for the data sets of the papers, from the folders as they are downloaded."""

from __future__ import annotations

from stretrieve.errors import UnknownNameError, explain
from stretrieve.evaluation.recipes.base import Recipe, Sheet, build_sheet
from stretrieve.evaluation.recipes.legacy import CSCC, HER2ST, STNET
from stretrieve.evaluation.recipes.visium import DLPFC, LIVER

RECIPES: dict[str, Recipe] = {r.name: r for r in (LIVER, DLPFC, HER2ST, CSCC, STNET)}
"""Recipes by name."""


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises
    ------
    UnknownNameError
        When there is none.
    """
    if name not in RECIPES:
        raise UnknownNameError(
            explain("recipe", got=repr(name), expected=f"one of {', '.join(RECIPES)}")
        )
    return RECIPES[name]


__all__ = ["RECIPES", "Recipe", "Sheet", "build_sheet", "get_recipe"]
