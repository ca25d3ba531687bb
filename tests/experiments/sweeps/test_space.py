"""What a sweep varies: reading it, drawing from it, setting it."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nysact.experiments.errors import ExperimentError
from nysact.experiments.sweeps.search import draws, grid
from nysact.experiments.sweeps.space import Choice, Range, parse_space, varied

from ..configs import config

LR = "optimizer.options.lr"


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("0.1,1", Choice((0.1, 1))),
        (" 3 ", Choice((3,))),
        ("true,false", Choice((True, False))),
        ("columns, gaussian", Choice(("columns", "gaussian"))),
        ("log:1e-3:10", Range(1e-3, 10, log=True, whole=False)),
        ("uniform:-1:0.5", Range(-1, 0.5, log=False, whole=False)),
        ("int:4:32", Range(4, 32, log=False, whole=True)),
        ("logint:1:64", Range(1, 64, log=True, whole=True)),
    ],
)
def test_values_and_ranges_are_read(text, space):
    assert parse_space(f"{LR}={text}") == (LR, space)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "expected NAME=VALUES, such as"),
        ("=1,2", "expected NAME=VALUES"),
        ("lr=", "expected NAME=VALUES"),
        ("lr=lgo:1:2", "expected a range uniform:LOW:HIGH, log:LOW:HIGH"),
        ("lr=log:1", "expected a range"),
        ("lr=log:0:1", "expected a lower and then a higher end above 0"),
        ("lr=uniform:2:1", "expected a lower and then a higher end"),
        ("lr=uniform:a:1", "expected two numbers after uniform:"),
        ("lr=int:1.5:2", "expected two whole numbers after int:"),
        ("lr=uniform:0:inf", "expected a lower and then a higher end"),
    ],
)
def test_what_cannot_be_read_is_an_error(text, message):
    with pytest.raises(ExperimentError, match=f"--vary {text}: {message}"):
        parse_space(text)


@given(st.integers(), st.floats(1e-6, 1e3), st.floats(1.01, 1e3), st.booleans(), st.booleans())
def test_draws_stay_inside(seed, low, ratio, log, whole):
    low = math.ceil(low) if whole else low
    high = low + math.ceil(ratio) if whole else low * ratio
    value = Range(low, high, log, whole).draw(random.Random(seed))
    assert low <= value <= high
    assert isinstance(value, int if whole else float)


def test_logarithmic_draws_are_uniform_in_the_logarithm():
    space, stream = Range(1, 8, log=True, whole=True), random.Random(0)
    drawn = [space.draw(stream) for _ in range(3000)]
    assert set(drawn) == set(range(1, 9))
    expected = math.log(2) / math.log(9)
    assert drawn.count(1) / 3000 == pytest.approx(expected, abs=0.04)


def test_a_grid_has_every_combination():
    spaces = {"a": Choice((1, 2)), "b": Choice(("x", "y", "z"))}
    found = grid(spaces)
    assert len(found) == len({tuple(trial.items()) for trial in found}) == 6
    with pytest.raises(ExperimentError, match="--vary b: a grid needs values"):
        grid({**spaces, "b": Range(0, 1, log=False, whole=False)})


def test_more_trials_keep_the_first_ones():
    spaces = {"a": Range(0, 1, log=False, whole=False), "b": Choice((1, 2))}
    assert draws(spaces, 5, seed=1) == draws(spaces, 9, seed=1)[:5]
    assert draws(spaces, 5, seed=1) != draws(spaces, 5, seed=2)


def test_a_varied_run_has_the_values_and_says_so():
    values = {LR: 1e-05, "optimizer.options.sketch": "columns", "batch_size": 8}
    found = varied(config("nysact"), "mine", values)
    assert (found.recipe, found.sweep) == ("mine", values)
    options = found.optimizer.options
    assert (options["lr"], options["sketch"]) == (1e-05, "columns")
    assert found.batch_size == 8
    assert found.run_id() != varied(config("nysact"), "mine", {**values, LR: 2e-05}).run_id()


def test_a_setting_that_does_not_exist_is_an_error():
    with pytest.raises(ExperimentError, match="nearest is 'batch_size'"):
        varied(config("nysact"), "mine", {"batch_sise": 8})
