"""Which values an option takes, as a test and in words."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from torch import Tensor


class Rule(NamedTuple):
    """A test of a value, and what it expects in words."""

    holds: Callable[[Any], bool]
    expected: str


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def of_type(hint: Any) -> Rule:
    """The rule of a type that names its values: a literal, a flag or an optional flag."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return Rule(lambda v: isinstance(v, str) and v in choices, f"one of {choices}")
    if NoneType in get_args(hint):
        return Rule(lambda v: v is None or isinstance(v, bool), "True, False or None")
    return Rule(lambda v: isinstance(v, bool), "True or False")


ANY = Rule(lambda v: True, "anything")
BY_TYPE = Rule(lambda v: False, "the rule of its type")
NOT_NEGATIVE = Rule(lambda v: _is_number(v) and v >= 0, "a number >= 0")
FRACTION = Rule(lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)")
POWER = Rule(
    lambda v: v == "auto" if isinstance(v, str) else _is_number(v) and 0 < v <= 1,
    "a number in (0, 1], or 'auto'",
)
WHOLE = Rule(_is_whole, "an integer")
COUNT = Rule(lambda v: _is_whole(v) and v >= 1, "an integer >= 1")
COUNT_OR_ZERO = Rule(lambda v: _is_whole(v) and v >= 0, "an integer >= 0")
STEPS = Rule(COUNT.holds, "an integer >= 1, in steps")
STRIDE = Rule(
    lambda v: COUNT.holds(v) or (isinstance(v, str) and v == "auto"),
    "'auto', or an integer n >= 1 to take one sample in n",
)
DAMPING = Rule(
    lambda v: _is_number(v) and v > 0, "a number > 0: without damping the inverse may not exist"
)
BOUND = Rule(
    lambda v: v is None or (_is_number(v) and v > 0), "a number > 0, or None for no clipping"
)
RATE = Rule(
    lambda v: (
        v.numel() == 1 and v.is_floating_point() and bool(v.isfinite() and v >= 0)
        if isinstance(v, Tensor)
        else NOT_NEGATIVE.holds(v)
    ),
    "a finite learning rate >= 0 (a number or a tensor with one element)",
)
BETAS = Rule(
    lambda v: isinstance(v, tuple | list) and len(v) == 2 and all(map(FRACTION.holds, v)),
    "two numbers in [0, 1), such as (0.9, 0.99)",
)
PATTERNS = Rule(
    lambda v: (
        isinstance(v, Sequence) and not isinstance(v, str) and all(isinstance(p, str) for p in v)
    ),
    "a list of patterns of module names, such as ['head', '*.mlp']",
)
FUNCTION = Rule(lambda v: v is None or callable(v), "a function such as scaler.get_scale, or None")
