from math import isnan

import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from nysact.experiments.bench.candidate import candidate
from nysact.experiments.bench.options import ScalingOptions
from nysact.experiments.bench.profiled import memory_of_parts
from nysact.experiments.bench.scaling import (
    PARTS,
    Point,
    Scaling,
    draw,
    exponent,
    tables,
    too_much,
)
from nysact.experiments.bench.workload import Workload
from nysact.experiments.report.style import save, styles

from .subjects import CPU


def point(optimizer="nysact", dim=64, rank=10, seconds=1.0, memory=100.0, state=50) -> Point:
    parts = ("capture", "refresh", "apply")
    return Point(
        optimizer, dim, rank, dict.fromkeys(parts, seconds), dict.fromkeys(parts, memory), state
    )


def test_exponent_is_the_slope_over_the_upper_half_of_the_sizes():
    sizes = [1, 2, 4, 8, 16]
    # Constant up to 2, quadratic from 4 on, which is the middle on a logarithmic scale.
    assert exponent(pd.Series([3.0, 3.0, 16.0, 64.0, 256.0], sizes)) == pytest.approx(2.0)
    assert exponent(pd.Series([5.0] * 5, sizes)) == pytest.approx(0.0)
    for values in (pd.Series([1.0, 2.0], [4, 8]), pd.Series([0.0] * 5, sizes)):
        assert isnan(exponent(values))
    assert isnan(exponent(pd.Series([], dtype=float)))


def test_mean_step_weighs_parts_by_the_papers_intervals():
    assert point(seconds=1.0).step == pytest.approx(1 / 5 + 1 / 50 + 1)


def test_a_next_size_out_of_bounds_is_foretold_by_a_dense_matrixs_growth():
    options = ScalingOptions(most_seconds=24.0, most_gib=600 / 2**30)
    assert too_much(point(seconds=1.0), 128, options) is None  # 3 s x 8 and 150 bytes x 4
    assert "at 128 could take 27 s, over the bound of 24 s" in too_much(
        point(seconds=1.125), 128, options
    )
    assert "GiB" in too_much(point(seconds=0.1, memory=101), 128, options)


def memory(name, dim):
    workload = Workload("mlp", {"in_features": dim, "depth": 1, "classes": 3}, 5, CPU)
    return memory_of_parts(workload, candidate(name, {"rank": 4}, {"lr": 0.0}), PARTS)


def test_memory_grows_as_it_must():
    """Exact, for allocations are counted: FOOF holds d x d matrices, NysAct d x r ones."""
    (ours, our_state), (larger, larger_state) = (memory("nysact", dim) for dim in (64, 128))
    (dense, dense_state), (denser, denser_state) = (memory("foof", dim) for dim in (64, 128))
    assert denser_state / dense_state == pytest.approx(4, rel=0.05)
    assert larger_state / our_state == pytest.approx(2, rel=0.05)
    for part in ("capture", "refresh", "apply"):
        assert 0 < larger[part] < 2.2 * ours[part]
    assert denser["refresh"] > 3.5 * dense["refresh"]


def test_memory_of_the_released_code_grows_as_it_must():
    """It inverts d x d matrices."""
    (dense, _), (denser, _) = (memory("released-columns", dim) for dim in (64, 128))
    assert denser["capture"] / dense["capture"] < 2.2
    assert denser["refresh"] / dense["refresh"] > 3.5


def test_table_has_a_dash_where_nothing_was_measured():
    found = Scaling([point(dim=d) for d in (64, 128)] + [point("foof")], [point()], ["FOOF stops."])
    lines = tables(found).splitlines()
    assert "| d = | 64 | 128 | exponent |" in lines
    assert "| NysAct: capture, ms | 1e+03 | 1e+03 | – |" in lines
    assert "| FOOF: state beside momentum, MiB | 4.77e-05 | – | – |" in lines
    assert "FOOF stops." in lines


def test_picture_shows_each_optimizer_in_its_colour(tmp_path):
    points = [
        point(name, d, seconds=scale * d, memory=scale * d, state=scale * d)
        for scale, name in ((1, "nysact"), (2, "foof"), (3, "released-columns"))
        for d in (64, 128, 256)
    ]
    file, _ = save(draw(points, "dim", "title"), tmp_path / "growth")
    pixels = imread(file)[:, :, :3].reshape(-1, 3)
    for look in styles(["NysAct", "FOOF", "released NysAct-S"]).values():
        rgb = to_rgb(look["color"])
        assert (abs(pixels - rgb).max(axis=1) < 0.01).sum() > 100
