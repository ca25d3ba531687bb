import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from nysact.experiments.baselines import BASELINES
from nysact.experiments.config import Config
from nysact.experiments.data.text import read_text
from nysact.experiments.errors import ExperimentError
from nysact.experiments.run import problem
from nysact.experiments.run.display import Display, LineDisplay, LiveDisplay
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from nysact.experiments.run.training import Training
from tests.experiments.configs import config

# What is the same for equal configurations, byte for byte.
RESULTS = ("config.json", "metrics.jsonl", "result.json")


class Killed(BaseException):
    """Ends a run as a signal would, from the inside."""


class KillAfter(Display):
    """Ends the run after some steps of this process."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step(self, step, loss):
        self.left -= 1
        if self.left == 0:
            raise Killed


def results(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in RESULTS}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoint.pt", weights_only=True)["model"]


def run_with_kills(found, root, kills, **options) -> Path:
    """Run, be killed after so many steps each time, and run on."""
    for steps in kills:
        with pytest.raises(Killed):
            run(found, root, display=KillAfter(steps), **options)
    return run(found, root, **options)


def assert_same(one: Path, other: Path) -> None:
    assert results(one) == results(other)
    for a, b in zip(weights(one).values(), weights(other).values(), strict=True):
        assert torch.equal(a, b)


def dropout_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Dropout(), nn.Linear(20, 10))


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


@pytest.mark.parametrize("kills", [[1], [4], [6], [3, 1, 3], [1] * 7])
def test_killed_run_ends_as_an_undisturbed_one(tmp_path, kills):
    undisturbed = run(config(), tmp_path / "a")
    disturbed = run_with_kills(config(), tmp_path / "b", kills, checkpoint_seconds=0)
    assert_same(undisturbed, disturbed)
    (found,) = load_runs(tmp_path / "b")
    assert len(found.timing) == 2


def test_killed_run_without_a_checkpoint_starts_anew(tmp_path):
    undisturbed = run(config(), tmp_path / "a")
    assert_same(undisturbed, run_with_kills(config(), tmp_path / "b", [3, 3]))


def test_checkpoint_of_more_processes_is_refused(tmp_path):
    with pytest.raises(Killed):
        run(config(), tmp_path, display=KillAfter(3), checkpoint_seconds=0)
    path = tmp_path / "test" / config().run_id() / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "random": state["random"] * 2}, path)
    with pytest.raises(ExperimentError, match="made by 2 processes, and this run has 1"):
        run(config(), tmp_path)


def test_steps_after_the_last_checkpoint_are_done_again(tmp_path):
    # Checkpoints come with evaluations alone; the metrics after the last one are cut off.
    often = config(evaluation_interval=2)
    assert_same(run(often, tmp_path / "a"), run_with_kills(often, tmp_path / "b", [3, 3]))


def test_dropout_goes_on_where_it_was(tmp_path):
    found = config("sgd", model={"name": "own"})
    undisturbed = run(found, tmp_path / "a", build=dropout_network)
    options = {"build": dropout_network, "checkpoint_seconds": 0}
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [3, 2], **options))


FAST = ("sgd", "adamw", "muon", "kfac", "eva", "foof", "skfac", "released-columns", "kbfgs")


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in BASELINES
        if name != "nysact"
    ],
)
def test_every_optimizer_goes_on_exactly(tmp_path, name):
    options = {"inv_interval": 5} if "inv_interval" in BASELINES[name].defaults else {}
    found = config(name, optimizer={"name": name, "options": options})
    undisturbed = run(found, tmp_path / "a")
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [6], checkpoint_seconds=0))


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


def test_diverged_run_ends_with_a_result_that_says_so(tmp_path):
    wild = config("sgd", optimizer={"name": "sgd", "options": {"lr": 1e30}})
    run(wild, tmp_path)
    (found,) = load_runs(tmp_path)
    step = int(found.result["failure"].partition(":")[0].removeprefix("step "))
    assert found.result["failure"] == f"step {step}: the training loss is not finite"
    # That of the first bad step, which is before the evaluation that notices it.
    assert 1 < step < 4
    assert found.result["metrics"]["final"]["train_loss"] is None
    assert found.result["steps"] == 4
    assert run(wild, tmp_path, display=KillAfter(1)), "a failed run was run again"


def breaking(monkeypatch, bad: int) -> None:
    """Have the loss of one step be no number, whichever process does it."""
    real = Training.step

    def step(self, inputs, targets):
        loss = real(self, inputs, targets)
        if self.step_number == bad:
            self._losses[-1] = loss * float("nan")
        return loss

    monkeypatch.setattr(Training, "step", step)


LONG = {"data": {"name": "digits", "test_size": 50}, "model": {"name": "digits"}}


@pytest.mark.parametrize(
    ("bad", "noticed"), [(7, 50), (50, 50), (51, 62), (62, 62), (63, 100), (101, 124)]
)
def test_divergence_ends_a_run_at_the_next_look(tmp_path, monkeypatch, bad, noticed):
    breaking(monkeypatch, bad)
    run(config("sgd", **LONG), tmp_path)
    (found,) = load_runs(tmp_path)
    assert found.result["failure"] == f"step {bad}: the training loss is not finite"
    assert found.result["steps"] == found.metrics[-1]["step"] == noticed


def test_divergence_is_the_same_after_a_kill(tmp_path, monkeypatch):
    breaking(monkeypatch, 13)
    undisturbed = run(config("sgd", **LONG), tmp_path / "a")
    options = {"checkpoint_seconds": 0}
    disturbed = run_with_kills(config("sgd", **LONG), tmp_path / "b", [20], **options)
    assert results(undisturbed) == results(disturbed)


def test_losses_are_looked_at_every_so_many_steps_alone(tmp_path, monkeypatch):
    steps = []
    real = Training.first_failure
    monkeypatch.setattr(
        Training, "first_failure", lambda self: steps.append(self.step_number) or real(self)
    )
    run(config("sgd", **LONG), tmp_path)
    assert steps == [50, 62, 100, 124]


def test_finished_run_says_so_and_how_to_have_it_anew(tmp_path):
    path = run(config(), tmp_path)
    for kind in (LineDisplay, LiveDisplay):
        console = Console(width=40)
        with console.capture() as capture:
            run(config(), tmp_path, display=kind(console))
        said = f"nysact, digits, seed 0: already finished: {path}; delete that folder to rerun it"
        assert capture.get() == f"{said}\n"


def written_text(tmp_path, text: str) -> Config:
    path = tmp_path / "text"
    path.write_text(text * 100)
    read_text.cache_clear()
    data = {"name": "text", "folder": str(path), "context": 8, "test_windows": 4}
    return config("sgd", model={"name": "own"}, data=data, epochs=None, steps=4, batch_size=4)


def language_model() -> nn.Module:
    return nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 256))


@pytest.mark.parametrize("kills", [[], [2]])
def test_run_of_other_text_is_neither_reused_nor_gone_on_with(tmp_path, kills):
    found = written_text(tmp_path, "some text. ")
    options = {"build": language_model, "checkpoint_seconds": 0}
    for steps in kills or [99]:
        with suppress(Killed):
            run(found, tmp_path, display=KillAfter(steps), **options)
    assert len(list(tmp_path.rglob("result.json"))) == 1 - len(kills)
    assert written_text(tmp_path, "some text! ") == found
    with pytest.raises(ExperimentError, match="this run was made with other data"):
        run(found, tmp_path, **options)
    assert run(written_text(tmp_path, "some text. "), tmp_path, **options)


def test_memory_that_runs_out_is_no_result(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("nysact.experiments.run.training.training_step", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(config(), tmp_path)
    assert load_runs(tmp_path)[0].result is None


def test_failed_factorisation_ends_the_run(tmp_path, monkeypatch):
    def fail(*args):
        raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr("nysact.experiments.run.training.training_step", fail)
    run(config(), tmp_path)
    assert load_runs(tmp_path)[0].result["failure"] == "step 1: not positive definite"


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


def test_lower_precision_goes_on_exactly(tmp_path):
    found = config("sgd", precision="bf16")
    undisturbed = run(found, tmp_path / "a")
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [3], checkpoint_seconds=0))


def test_precision_that_the_device_lacks_is_an_error(tmp_path):
    with pytest.raises(ExperimentError, match="precision=fp16: cpu has no such arithmetic"):
        run(config(precision="fp16"), tmp_path, cpu=True)


def test_display_ends_when_the_run_is_stopped(tmp_path):
    ends = []
    display = KillAfter(2)
    display.stop = ends.append
    with pytest.raises(Killed):
        run(config(), tmp_path, display=display)
    assert ends == ["stopped; the same command goes on from the last checkpoint"]


def test_tensorboard_has_the_metrics_once_after_a_kill(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"trackers": ("tensorboard",)}
    path = run_with_kills(config(evaluation_interval=2), tmp_path, [3, 3], **options)
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    (found,) = load_runs(tmp_path)
    for name in ("train_loss", "test_accuracy"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in logged] == [2, 4, 6, 8]
        values = [line[name] for line in found.metrics]
        assert [value for _, value in logged] == pytest.approx(values)


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


KILLED = """
import sys
from pathlib import Path
from nysact.experiments.config import Config
from nysact.experiments.run.runner import run
values = {values!r}
run(Config.checked(values), Path(sys.argv[1]), checkpoint_seconds=0.05)
"""


@pytest.mark.slow
def test_run_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path):
    found = config("nysact", epochs=40, data={"name": "digits", "test_size": 50}, batch_size=32)
    undisturbed = run(found, tmp_path / "a")
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(values=found.model_dump()))
    moments = random.Random(0)
    folder = tmp_path / "b" / "test" / found.run_id()
    kills = 0
    while not (folder / "result.json").is_file():
        process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "b")])
        deadline = time.monotonic() + 120
        # The imports take seconds; what is to be hit is the training.
        start = modified(folder)
        while modified(folder) == start and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1.5))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 3
    assert_same(undisturbed, folder)


def modified(folder: Path) -> int:
    path = folder / "checkpoint.pt"
    return path.stat().st_mtime_ns if path.is_file() else 0
