"""The protocol of the suite: which rates are tried, and which runs judge the best."""

import math

import pytest

from nysact.experiments.files import write_json, write_text
from nysact.experiments.run.store import folder_of
from nysact.experiments.sweeps.evaluations import evaluations
from nysact.experiments.sweeps.tuning import RATE, Cell, Tuning

from ..configs import config


def tried(tuning, start, cost):
    """Ask for rates until none is left, and give each round of them."""
    rounds, costs = [], {}
    while rates := tuning.next_rates(start, costs):
        rounds.append(rates)
        costs |= {rate: cost(rate) for rate in rates}
    return rounds, costs


def bowl(best):
    """A cost that is lowest at a rate."""
    return lambda rate: abs(math.log(rate / best))


def test_the_grid_has_four_rates_and_the_best_gets_two_neighbours():
    rounds, _ = tried(Tuning(), 0.1, bowl(0.1))
    assert rounds == [[0.0111, 0.0333, 0.1, 0.3], [0.0588, 0.17]]


@pytest.mark.parametrize(("best", "beyond"), [(2.5, [[0.9], [2.7], [8.1]]), (1e-3, None)])
def test_the_grid_is_extended_while_the_best_lies_at_an_end(best, beyond):
    rounds, costs = tried(Tuning(), 0.1, bowl(best))
    if beyond:
        assert rounds[1:-1] == beyond
    grid = sorted(rate for rates in rounds[:-1] for rate in rates)
    found = min(costs, key=costs.get)
    assert grid[0] < found < grid[-1]
    assert abs(math.log(found / best)) <= math.log(1.7) / 2 + 0.02


def test_where_every_rate_fails_lower_ones_are_tried():
    rounds, costs = tried(Tuning(), 0.1, lambda r: math.inf if r > 1e-3 else bowl(1e-3)(r))
    assert min(costs, key=costs.get) < 1e-3 < max(costs)
    assert [len(rates) for rates in rounds[1:]] == [1] * (len(rounds) - 2) + [2]


def test_extensions_end_and_equal_budgets_have_none():
    rounds, _ = tried(Tuning(), 0.1, lambda rate: math.inf)
    assert [len(rates) for rates in rounds] == [4, *[1] * 8]
    equal = Tuning(factor=2.0, rates=5, extensions=0, refinement=None)
    for best in (0.1, 9.0, 1e-6):
        assert tried(equal, 0.1, bowl(best))[0] == [[0.025, 0.05, 0.1, 0.2, 0.4]]


def finish(run, root, **more):
    """Write the result of a run, whose validation accuracy is best at a rate of 0.17."""
    folder = folder_of(run, root)
    folder.path.mkdir(parents=True)
    write_json(folder.path / "config.json", run.model_dump())
    accuracy = 90 - bowl(0.17)(run.optimizer.options["lr"])
    line = f'{{"step": 1, "epoch": 1, "validation_accuracy": {accuracy}, "test_accuracy": 1}}\n'
    write_text(folder.path / "metrics.jsonl", line)
    write_text(folder.path / "timing.jsonl", '{"step": 1, "seconds": 2.5}\n')
    write_json(folder.path / "timing.json", {"mean_step_seconds": 0.5})
    write_json(folder.path / "result.json", {"steps": 1, **more})


def test_runs_follow_from_those_that_are_stored(tmp_path):
    cell = Cell(config("sgd"), Tuning(), (1, 2), tmp_path)
    lefts, order = [], []
    while runs := cell.plan()[1]:
        lefts.append(cell.left())
        for run in runs:
            order.append((run.sweep[RATE], run.seed))
            finish(run, tmp_path)
    assert lefts == [8, 4, 2]
    assert order == [
        *((0.0111, 0), (0.0333, 0), (0.1, 0), (0.3, 0)),
        *((0.0588, 0), (0.17, 0), (0.17, 1), (0.17, 2)),
    ]
    ended, missing = cell.plan()
    assert ([(run.sweep[RATE], run.seed) for run in ended], missing) == (order, [])
    table = evaluations([cell])
    assert list(table["part"]) == ["tuning"] * 6 + ["test"] * 2
    assert list(table["learning_rate"]) == [rate for rate, _ in order]
    assert set(table["seconds"]) == {2.5}


def test_runs_that_failed_are_not_the_best_and_not_repeated(tmp_path):
    cell = Cell(config("sgd"), Tuning(refinement=None), (1,), tmp_path)
    grid = {run.sweep[RATE]: run for run in cell.plan()[1]}
    finish(grid[0.0333], tmp_path)
    finish(grid[0.0111], tmp_path)
    finish(grid[0.1], tmp_path, failure="step 3: the training loss is not finite")
    crashed = {grid[0.3].run_id()}
    assert [run.sweep[RATE] for run in cell.plan()[1]] == [0.3]
    (judged,) = cell.plan(crashed)[1]
    assert (judged.sweep[RATE], judged.seed) == (0.0333, 1)
    assert cell.left(crashed) == 1
