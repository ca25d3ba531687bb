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
from torch import nn

from nysact.experiments.baselines import BASELINES
from nysact.experiments.config import Config
from nysact.experiments.data.text import read_text
from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.configs import config
from tests.experiments.run.kills import (
    KillAfter,
    Killed,
    assert_same,
    dropout_network,
    run_with_kills,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(config(), tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("kills", [[1], [4], [6], [3, 1, 3], [1] * 7])
def test_killed_run_ends_as_an_undisturbed_one(tmp_path, undisturbed, kills):
    disturbed = run_with_kills(config(), tmp_path / "b", kills, checkpoint_seconds=0)
    assert_same(undisturbed, disturbed)
    (found,) = load_runs(tmp_path / "b")
    assert len(found.timing) == 2


def test_killed_run_without_a_checkpoint_starts_anew(tmp_path, undisturbed):
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


# Of each kind: kept by torch, by this library, by the baselines, and with a closure.
FAST = ("adamw", "kfac", "released-columns", "kbfgs")


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


def test_lower_precision_goes_on_exactly(tmp_path):
    found = config("sgd", precision="bf16")
    undisturbed = run(found, tmp_path / "a")
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [3], checkpoint_seconds=0))


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
