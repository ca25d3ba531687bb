"""Recipes: which optimizers train what, with which settings, in files beside this one."""

from nysact.experiments.recipes.recipe import Recipe, find_runs, load, names

__all__ = ["Recipe", "find_runs", "load", "names"]
