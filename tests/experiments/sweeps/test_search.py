"""What a sweep varies: reading it, drawing from it, setting it."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nysact.experiments.errors import ExperimentError
from nysact.experiments.sweeps.search import draws, grid, parse_space, varied

from ..configs import config

LR = "optimizer.options.lr"


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("0.1,1", CategoricalDistribution((0.1, 1))),
        (" 3 ", CategoricalDistribution((3,))),
        ("true,false", CategoricalDistribution((True, False))),
        ("columns, gaussian", CategoricalDistribution(("columns", "gaussian"))),
        ("log:1e-3:10", FloatDistribution(1e-3, 10, log=True)),
        ("uniform:-1:0.5", FloatDistribution(-1, 0.5)),
        ("int:4:32", IntDistribution(4, 32)),
        ("logint:1:64", IntDistribution(1, 64, log=True)),
    ],
)
def test_values_and_ranges_are_read(text, space):
    assert parse_space(f"{LR}={text}") == (LR, space)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "expected NAME=VALUE, such as"),
        ("=1,2", "expected NAME=VALUE"),
        ("lr=", "expected NAME=VALUE"),
        ("lr=lgo:1:2", "expected a range uniform:LOW:HIGH, log:LOW:HIGH"),
        ("lr=log:1", "expected a range"),
        ("lr=log:0:1", "expected two numbers above 0 after log:, the lower first"),
        ("lr=uniform:2:1", "expected two numbers after uniform:, the lower first"),
        ("lr=uniform:a:1", "expected two numbers after uniform:"),
        ("lr=int:1.5:2", "expected two whole numbers after int:"),
        ("lr=uniform:0:inf", "expected two numbers after uniform:"),
    ],
)
def test_what_cannot_be_read_is_an_error(text, message):
    with pytest.raises(ExperimentError, match=f"--vary {text}: {message}"):
        parse_space(text)


def test_a_grid_has_every_combination():
    spaces = {"a": CategoricalDistribution((1, 2)), "b": CategoricalDistribution(("x", "y", "z"))}
    found = grid(spaces)
    assert len(found) == len({tuple(trial.items()) for trial in found}) == 6
    with pytest.raises(ExperimentError, match="--vary b: a grid needs values"):
        grid({**spaces, "b": FloatDistribution(0, 1)})


def test_more_trials_keep_the_first_ones():
    spaces = {"a": FloatDistribution(0, 1), "b": CategoricalDistribution((1, 2))}
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
