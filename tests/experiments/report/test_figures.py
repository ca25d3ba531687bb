"""Figures: what is in them, their labels, their legends, their files."""

import numpy as np
import pytest
from matplotlib.image import imread

from nysact.experiments.metrics import METRICS
from nysact.experiments.report.figures import (
    curve_figure,
    heatmap_figure,
    norm_figure,
    search_figure,
    varied_figure,
)
from nysact.experiments.report.style import KNOWN, save, styles

from .stored import results_of as results
from .stored import write_run, write_table

ACCURACY, LOSS = METRICS["test_accuracy"], METRICS["train_loss"]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def check(figure, tmp_path):
    """Every panel has labelled axes, and no panel lies under the legend."""
    figure.savefig(tmp_path / "drawn.png")  # the layout is known once the figure is drawn
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            assert axes.get_xlabel()
        assert axes.get_ylabel()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for legend in figure.legends:
        assert not any(box.overlaps(legend.get_tightbbox()) for box in boxes)


def test_curves_are_means_over_seeds_in_a_band_of_extremes(tmp_path):
    for seed, level in enumerate((50.0, 60.0, 70.0)):
        write_run(tmp_path, "SGD", seed, accuracies=[level, level + 10], losses=[2.0, 0.1])
    figure = curve_figure(results(tmp_path), [LOSS, ACCURACY], by="epoch")
    loss, accuracy = figure.axes
    check(figure, tmp_path)
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    line = lines(accuracy)["SGD"]
    assert np.allclose(line.get_xdata(), [1, 2])
    assert np.allclose(line.get_ydata(), [60, 70])
    (band,) = accuracy.collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (
        *(50, 80),
    )


def test_curves_of_runs_of_so_many_steps_are_by_step(tmp_path):
    write_run(tmp_path, accuracies=[50, 60], steps=20, epochs=None)
    (axes,) = curve_figure(results(tmp_path), [ACCURACY], by="epoch").axes
    assert axes.get_xlabel() == "step"
    assert np.allclose(lines(axes)["SGD"].get_xdata(), [10, 20])


def test_curves_by_time_use_the_seconds_of_training(tmp_path):
    write_run(tmp_path, accuracies=[50, 60], step_seconds=0.5)
    figure = curve_figure(results(tmp_path), [ACCURACY], by="time")
    assert np.allclose(lines(figure.axes[0])["SGD"].get_xdata(), [5, 10])
    assert figure.axes[0].get_xlabel() == "training time (s)"


def test_diverged_losses_leave_gaps_and_unfinished_runs_are_left_out(tmp_path):
    write_run(tmp_path, "SGD", accuracies=[50, 60], losses=[None, 1.0])
    write_run(tmp_path, "NysAct", accuracies=[50, 60], finished=False)
    figure = curve_figure(results(tmp_path), [LOSS], by="epoch")
    assert list(lines(figure.axes[0])) == ["SGD"]
    assert np.isnan(lines(figure.axes[0])["SGD"].get_ydata()[0])


def test_there_is_no_figure_without_runs_for_it(tmp_path):
    write_run(tmp_path, finished=False)
    found = results(tmp_path)
    assert curve_figure(found, [LOSS, ACCURACY], by="epoch") is None
    assert curve_figure(found, [METRICS["bits_per_byte"]], by="epoch") is None
    assert varied_figure(found, ACCURACY, time=True) is None
    assert search_figure(found, ACCURACY) is None
    assert norm_figure(found) is None
    assert heatmap_figure(found) is None


def write_varied(root):
    for row in ("FOOF", "NysAct"):
        for seed in range(2):
            for rate in (0.1, 1.0, 0.01):
                failure = "diverged" if (row, rate) == ("FOOF", 1.0) else None
                sweep = {"optimizer.options.lr": rate}
                accuracies = [80 + 2 * seed + rate]
                write_run(root, row, seed, sweep=sweep, accuracies=accuracies, failure=failure)
    for seed in range(2):
        write_run(root, "SGD", seed, accuracies=[70 + 2 * seed])


def test_varied_setting_is_on_the_x_axis_and_references_are_levels(tmp_path):
    write_varied(tmp_path)
    found = results(tmp_path)
    figure = varied_figure(found, ACCURACY, time=True)
    check(figure, tmp_path)
    accuracy, time = figure.axes
    assert accuracy.get_xlabel() == "learning rate"
    assert time.get_ylabel() == "training time (s)"
    assert [tick.get_text() for tick in accuracy.get_xticklabels()] == ["0.01", "0.1", "1"]
    bars = {container.get_label(): container for container in accuracy.containers}
    assert np.allclose(bars["NysAct"].lines[0].get_ydata(), [81.01, 81.1, 82])
    assert len(bars["FOOF"].lines[0].get_ydata()) == 2
    assert np.allclose(lines(accuracy)["SGD"].get_ydata(), [71, 71])
    crosses = [line for line in accuracy.lines if line.get_marker() == "x"]
    assert len(crosses) == 1
    assert round(float(crosses[0].get_xdata()[0])) == 2


def test_every_trial_of_a_search_is_a_point(tmp_path):
    for rate, damping in ((0.01, 1), (0.1, 1), (1.0, 2)):
        sweep = {"optimizer.options.lr": rate, "optimizer.options.damping": damping}
        write_run(tmp_path, "NysAct", sweep=sweep, accuracies=[80 + damping])
    figure = search_figure(results(tmp_path), ACCURACY)
    check(figure, tmp_path)
    damping, rate = figure.axes
    assert (rate.get_xscale(), damping.get_xscale()) == ("log", "linear")
    assert np.allclose(rate.lines[0].get_xdata(), [0.01, 0.1, 1.0])
    assert np.allclose(damping.lines[0].get_ydata(), [81, 81, 82])


def test_metrics_that_are_never_finite_have_no_panel(tmp_path):
    write_run(tmp_path, "SGD", accuracies=[50, 60], losses=[None, None])
    (axes,) = curve_figure(results(tmp_path), [LOSS, ACCURACY], by="epoch").axes
    assert axes.get_ylabel() == ACCURACY.title


def test_norms_are_drawn_by_layer(tmp_path):
    norms = [{"conv.1": 2.0 + epoch, "head": 5.0} for epoch in range(3)]
    write_run(tmp_path, norms=norms)
    figure = norm_figure(results(tmp_path))
    check(figure, tmp_path)
    assert np.allclose(lines(figure.axes[0])["conv.1"].get_xdata(), [10, 20, 30])
    assert np.allclose(lines(figure.axes[0])["conv.1"].get_ydata(), [2, 3, 4])


def test_heat_maps_share_a_scale_and_state_the_error(tmp_path):
    exact = np.diag([4.0, 2.0, 0.0])
    arrays = {"conv/rank 1": np.diag([4.0, 0, 0]), "conv/covariance": exact}
    write_run(tmp_path, arrays=arrays)
    figure = heatmap_figure(results(tmp_path))
    check(figure, tmp_path)
    first, second = figure.axes[:2]
    assert first.get_title() == "conv: exact covariance"
    assert second.get_title() == f"conv: rank 1\nrelative error {2 / np.sqrt(20):.2f}"
    assert first.images[0].get_clim() == second.images[0].get_clim()


def test_known_optimizers_look_alike_in_every_figure_and_differ_in_each():
    everywhere = styles([*KNOWN, "another", "a third"])
    assert len({str(style) for style in everywhere.values()}) == len(everywhere)
    assert styles(["NysAct", "new"])["NysAct"] == everywhere["NysAct"]
    # Those of figure 7 differ in colour too.
    assert len({styles(KNOWN)[r]["color"] for r in ("SGD", "FOOF", "NysAct-G", "NysAct-S")}) == 4


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_same_runs_give_the_same_bytes(tmp_path, suffix):
    write_table(tmp_path / "runs", seeds=2, columns=["LeNet-5"])
    files = []
    for attempt in ("a", "b"):
        figure = curve_figure(results(tmp_path / "runs"), [ACCURACY], by="epoch")
        paths = save(figure, tmp_path / attempt)
        files.append(next(path for path in paths if path.suffix == f".{suffix}"))
    assert files[0].read_bytes() == files[1].read_bytes()
    if suffix == "png":
        assert imread(files[0]).shape[2] == 4
    else:
        assert files[0].read_text().startswith("<?xml")
