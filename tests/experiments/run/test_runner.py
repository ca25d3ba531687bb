import json
import random

import pytest
import torch
from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.run import problem
from nysact.experiments.run.display import Display, LiveDisplay
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.configs import config
from tests.experiments.run.kills import (
    KillAfter,
    Killed,
    assert_same,
    results,
    weights,
)


def test_run_leaves_a_folder_with_all_that_is_to_be_known(tmp_path):
    path = run(config(), tmp_path)
    assert path == tmp_path / "test" / config().run_id()
    (found,) = load_runs(tmp_path)
    assert found.config == config().model_dump()
    assert [line["step"] for line in found.metrics] == [4, 8]
    assert [line["epoch"] for line in found.metrics] == [1, 2]
    assert [line["step"] for line in found.timing] == [4, 8]
    assert 0 < found.timing[0]["seconds"] < found.timing[1]["seconds"]
    last = {k: v for k, v in found.metrics[-1].items() if k not in ("step", "epoch")}
    assert set(last) == {"train_loss", "test_loss", "test_accuracy"}
    assert found.result["metrics"]["final"] == last
    assert (found.result["steps"], found.result["epochs"]) == (8, 2)
    best = found.result["metrics"]["best"]
    assert best["test_accuracy"] == max(line["test_accuracy"] for line in found.metrics)
    assert best["train_loss"] == min(line["train_loss"] for line in found.metrics)
    assert found.timings["training_seconds"] == pytest.approx(found.timing[-1]["seconds"])
    environment = json.loads((path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["threads"] == 1


def test_losses_fall(tmp_path):
    run(config(epochs=4), tmp_path)
    losses = [line["train_loss"] for line in load_runs(tmp_path)[0].metrics]
    assert losses[-1] < 0.8 * losses[0]


def test_finished_run_is_not_run_again(tmp_path):
    path = run(config(), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert run(config(), tmp_path, display=KillAfter(1)) == path
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_run_leaves_random_streams_and_threads_alone(tmp_path):
    before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
    run(config(threads=before[2] + 1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]


def test_equal_configurations_give_equal_results_and_seeds_differ(tmp_path):
    first, second = run(config(), tmp_path / "a"), run(config(), tmp_path / "b")
    assert_same(first, second)
    other = run(config(seed=1), tmp_path / "b")
    assert results(other)["metrics.jsonl"] != results(first)["metrics.jsonl"]


def test_optimizers_see_the_same_batches_and_start_from_the_same_weights(tmp_path):
    # Without a learning rate nothing but weights and batches decides on the losses.
    lines = []
    for name in ("sgd", "adam", "nysact"):
        still = config(name, optimizer={"name": name, "options": {"lr": 0.0}})
        lines.append(results(run(still, tmp_path))["metrics.jsonl"])
    assert lines[0] == lines[1] == lines[2]


def test_interval_and_end_decide_on_evaluations(tmp_path):
    run(config(epochs=None, steps=7, evaluation_interval=3), tmp_path)
    (found,) = load_runs(tmp_path)
    assert [line["step"] for line in found.metrics] == [3, 6, 7]
    assert found.metrics[-1]["epoch"] == 7 / 4


def test_train_loss_is_the_mean_since_the_last_evaluation(tmp_path):
    losses = []

    class Note(Display):
        def on_step(self, step, loss):
            losses.append(float(loss))

    run(config(evaluation_interval=3), tmp_path, display=Note())
    (found,) = load_runs(tmp_path)
    expected = [sum(losses[:3]) / 3, sum(losses[3:6]) / 3, sum(losses[6:]) / 2]
    assert [line["train_loss"] for line in found.metrics] == pytest.approx(expected)


def test_finished_run_says_so_and_how_to_have_it_anew(tmp_path):
    path = run(config(), tmp_path)
    for kind in (Display, LiveDisplay):
        console = Console(width=40)
        with console.capture() as capture:
            run(config(), tmp_path, display=kind(console))
        said = f"nysact, digits, seed 0: already finished: {path}; delete that folder to rerun it"
        assert capture.get() == f"{said}\n"


def test_weight_decay_leaves_vectors_out_where_asked(tmp_path):
    found = config("sgd").override(["optimizer.decay_vectors=false", "optimizer.options.lr=0"])
    path = run(found, tmp_path)
    groups = torch.load(path / "checkpoint.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [5e-4, 0]


def test_optimizer_without_groups_says_so(tmp_path):
    found = config("muon").override(["optimizer.decay_vectors=false"])
    with pytest.raises(ExperimentError, match=r"set optimizer\.decay_vectors=true"):
        run(found, tmp_path)


MISFITS = {
    "model.options.classes=3": r"has a target \d: set model.options.classes",
    "model.options.in_channels=3": "digits has images of 1 channels: set model.options.in_channels",
    "batch_size=65": "batch_size=65: the training set has 64 samples",
    "data.train_size=1001": "train size 1001",
    "data.test_size=798": "test size 798: the test set has 797 samples",
}


@pytest.mark.parametrize(("assignment", "message"), MISFITS.items(), ids=MISFITS)
def test_what_does_not_fit_is_an_error(tmp_path, assignment, message):
    with pytest.raises(ExperimentError, match=message):
        run(config().override([assignment]), tmp_path)


def test_bf16_trains_with_parameters_in_fp32(tmp_path):
    path = run(config(precision="bf16"), tmp_path)
    assert {w.dtype for w in weights(path).values() if w.is_floating_point()} == {torch.float32}
    plain = run(config(), tmp_path)
    assert results(path)["metrics.jsonl"] != results(plain)["metrics.jsonl"]


def test_precision_that_the_device_lacks_is_an_error(tmp_path):
    with pytest.raises(ExperimentError, match="precision=fp16: cpu has no such arithmetic"):
        run(config(precision="fp16"), tmp_path, cpu=True)


def test_display_ends_when_the_run_is_stopped(tmp_path):
    ends = []
    display = KillAfter(2)
    display.stop = ends.append
    with pytest.raises(Killed):
        run(config(), tmp_path, display=display)
    assert ends == ["stopped; the same command resumes from the last checkpoint"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "the nearest is 'tensorboard'"),
        ("trackio", r'the tracker trackio is not installed; .* pip install "nysact\[trackio\]"'),
    ],
)
def test_tracker_that_cannot_be_used_is_an_error(tmp_path, monkeypatch, name, message):
    monkeypatch.setattr("nysact.experiments.run.tracking.find_spec", lambda _: None)
    with pytest.raises(ExperimentError, match=message):
        run(config(), tmp_path, trackers=(name,))


def test_images_are_loaded_once_for_several_runs(tmp_path, monkeypatch):
    problem.load_images.cache_clear()
    run(config(), tmp_path)
    monkeypatch.setattr(problem, "load_digits", None)
    run(config(seed=1), tmp_path)
