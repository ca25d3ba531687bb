"""Runs in processes of this machine: crashes stay theirs, and they end with who started them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest

from nysact.experiments.files import write_json
from nysact.experiments.run.store import FAILURE, folder_of, load_run
from nysact.experiments.sweeps.executor import LOG, Executor, Outcome
from nysact.experiments.sweeps.jobs import GPUS, local_jobs

from ..configs import config


def finish(config, root):
    """Write the folder of a finished run."""
    path = folder_of(config, root).path
    path.mkdir(parents=True)
    write_json(path / "config.json", config.model_dump())
    write_json(path / "result.json", {"steps": 8, "epochs": 2, "metrics": {}})
    return path


def test_a_run_that_fails_stops_no_other_and_finished_ones_are_left_alone(tmp_path):
    good = config("sgd")
    data = {"name": "fashion-mnist", "folder": str(tmp_path / "nowhere")}
    bad = config("sgd", data=data, model={"name": "lenet5"})
    finished = config("sgd", seed=1)
    path = finish(finished, tmp_path)
    executor = Executor(tmp_path, jobs=2, cpu=True, trackers=["tensorboard"])
    outcomes = list(executor.execute([bad, finished, good]))
    assert not (path / LOG).exists()
    by_id = {outcome.config.run_id(): outcome for outcome in outcomes}
    assert by_id[finished.run_id()] == Outcome(finished, path)
    assert by_id[good.run_id()].failure is None
    run = load_run(by_id[good.run_id()].path)
    assert run.result["steps"] == 8
    assert run.environment["side_by_side"] == 2
    assert any((run.path / "tensorboard").iterdir())
    failure = by_id[bad.run_id()].failure
    assert "nowhere: expected the files" in failure
    stored = load_run(by_id[bad.run_id()].path)
    assert stored.result is None
    assert stored.config == bad.model_dump()
    assert (stored.path / FAILURE).read_text().strip() == failure
    assert "nowhere" in (stored.path / LOG).read_text()


def test_processes_take_turns_on_devices(tmp_path):
    executor = Executor(tmp_path, jobs=3, devices=["4", "7"])
    assert [executor.environment(slot)[GPUS] for slot in range(3)] == ["4", "7", "4"]


@pytest.mark.parametrize(
    ("visible", "asked"),
    [
        ("3", "5"),
        *(pytest.param(visible, None, marks=pytest.mark.slow) for visible in (None, "", "3")),
    ],
)
def test_a_job_sees_the_devices_that_it_is_given_or_those_of_the_command(
    monkeypatch, visible, asked
):
    monkeypatch.delenv(GPUS, raising=False)
    if visible is not None:
        monkeypatch.setenv(GPUS, visible)
    with local_jobs() as submit:
        job = submit(partial(os.getenv, GPUS), {} if asked is None else {GPUS: asked})
        assert job.result() == (visible if asked is None else asked)


@pytest.mark.slow
def test_a_process_that_is_killed_fails_its_run_alone(tmp_path):
    long, good = config("sgd", epochs=100_000), config("sgd")
    path = folder_of(long, tmp_path).path

    def kill():
        if (path / "metrics.jsonl").is_file():
            for process in processes_at(path):
                process.kill()

    executor = Executor(tmp_path, 2, cpu=True)
    failures = {o.config.epochs: o.failure for o in executor.execute([long, good], kill)}
    assert failures[2] is None
    assert "killed or out of memory" in failures[100_000].splitlines()[-1]
    assert (path / FAILURE).is_file()


STARTER = """
import sys
from pathlib import Path
from nysact.experiments.sweeps.executor import Executor
from tests.experiments.configs import config
executor = Executor(Path(sys.argv[1]))
list(executor.execute([config("sgd", epochs=100_000)]))
"""


@pytest.mark.slow
def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    folder = folder_of(config("sgd", epochs=100_000), tmp_path).path
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)]) as starter:
        wait_for(lambda: (folder / "metrics.jsonl").is_file())
        assert processes_at(folder)
        starter.send_signal(signal.SIGKILL)
    # The lock is free, and the files stay as they are.
    wait_for(lambda: not processes_at(folder))
    before = (folder / "metrics.jsonl").read_bytes()
    time.sleep(2)
    assert (folder / "metrics.jsonl").read_bytes() == before


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_at(path):
    """List the processes that train a run: they write to its log."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(path / LOG) in {file.path for file in process.open_files()}:
                found.append(process)
    return found
