"""Recipes: which optimizers train what, with which settings, in files beside this one."""

from nysact.experiments.recipes.recipe import Recipe, load, names
from nysact.experiments.recipes.selection import find_runs

__all__ = ["Recipe", "find_runs", "load", "names"]
