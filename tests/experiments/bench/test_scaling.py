from math import isnan

import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from nysact.experiments.bench.options import ScalingOptions
from nysact.experiments.bench.scaling import (
    Point,
    Scaling,
    draw,
    exponent,
    measure_point,
    measure_scaling,
    tables,
    too_much,
)
from nysact.experiments.report.style import save, styles

from .subjects import CPU

SMALL = {"dims": [64, 128], "ranks": [2, 4], "rank": 4, "dim": 32, "rows": 5, "outputs": 3}
OPTIONS = ScalingOptions(**SMALL)


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


def test_memory_grows_as_it_must():
    """FOOF holds d x d matrices, NysAct d x r ones."""
    ours, larger = (measure_point("nysact", d, 4, OPTIONS, CPU) for d in (64, 128))
    dense, denser = (measure_point("foof", d, 4, OPTIONS, CPU) for d in (64, 128))
    assert denser.state / dense.state == pytest.approx(4, rel=0.05)
    assert larger.state / ours.state == pytest.approx(2, rel=0.05)


def test_memory_of_phases_grows_as_it_must():
    """Exact, for allocations are counted; the released code inverts d x d matrices."""
    dense, denser = (measure_point("released-columns", d, 4, OPTIONS, CPU) for d in (64, 128))
    assert denser.bytes["capture"] / dense.bytes["capture"] < 2.2
    assert denser.bytes["refresh"] / dense.bytes["refresh"] > 3.5


def test_memory_of_the_librarys_phases_grows_as_it_must():
    ours, larger = (measure_point("nysact", d, 4, OPTIONS, CPU) for d in (64, 128))
    dense, denser = (measure_point("foof", d, 4, OPTIONS, CPU) for d in (64, 128))
    for part in ("capture", "refresh", "apply"):
        assert 0 < larger.bytes[part] < 2.2 * ours.bytes[part]
    assert denser.bytes["refresh"] > 3.5 * dense.bytes["refresh"]


def test_an_optimizer_that_stops_leaves_the_others_to_go_on():
    options = ScalingOptions(**SMALL, most_gib=5 * 4 * 64 * 64 / 2**30)
    said = []
    found = measure_scaling(options, CPU, said.append)
    assert {of.optimizer: of.dim for of in found.by_dim} == {
        "nysact": 128,
        "foof": 64,
        "released-columns": 64,
    }
    assert len(found.stops) == 2
    assert found.stops[0].startswith("FOOF stops at d = 64: a step at 128 could take")
    assert set(found.stops) <= set(said)
    assert [(of.optimizer, of.rank) for of in found.by_rank] == [
        *(("nysact", 2), ("nysact", 4), ("foof", 2)),
        *(("released-columns", 2), ("released-columns", 4)),
    ]


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
