"""Tests over every combination of several parameters.

The fast tests take a few combinations, in which each two values of two parameters still meet;
the slow ones take the others.
"""

from itertools import combinations, product

import pytest


def pairwise(**axes):
    """Parametrize over the product of the values, most of which are slow."""
    every = list(product(*(range(len(values)) for values in axes.values())))
    missing = set().union(*map(pairs, every))
    params = []
    while every:
        best = max(every, key=lambda each: len(pairs(each) & missing))
        marks = () if pairs(best) & missing else pytest.mark.slow
        values = [list(axis)[i] for axis, i in zip(axes.values(), best, strict=True)]
        params.append(pytest.param(*values, marks=marks, id="-".join(map(name, values))))
        missing -= pairs(best)
        every.remove(best)
    return pytest.mark.parametrize(list(axes), params)


def pairs(indices):
    return set(combinations(enumerate(indices), 2))


def name(value):
    return getattr(value, "__name__", str(value)).replace(" ", "")
