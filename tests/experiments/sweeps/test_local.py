"""Runs in processes of this machine: crashes stay theirs, and they end with who started them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nysact.experiments.run.failure import FAILURE
from nysact.experiments.run.store import load_run, write_json
from nysact.experiments.sweeps.local import LocalExecutor
from nysact.experiments.sweeps.outcome import LOG, Outcome, folder_of

from ..configs import config


def finish(config, root):
    """Write the folder of a finished run."""
    path = folder_of(config, root)
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
    started = []
    executor = LocalExecutor(tmp_path, jobs=2)
    outcomes = list(executor.execute([bad, finished, good], started.append))
    assert started == [bad, good]
    by_id = {outcome.config.run_id(): outcome for outcome in outcomes}
    assert by_id[finished.run_id()] == Outcome(finished, path)
    assert by_id[good.run_id()].failure is None
    assert load_run(by_id[good.run_id()].path).result["steps"] == 8
    failure = by_id[bad.run_id()].failure
    assert failure.splitlines()[-1] == "the process ended with status 2"
    assert "nowhere: expected the files" in failure
    stored = load_run(by_id[bad.run_id()].path)
    assert stored.result is None
    assert stored.config == bad.model_dump()
    assert (stored.path / FAILURE).read_text().strip() == failure
    assert "nowhere" in (stored.path / LOG).read_text()


def test_processes_tell_trackers_and_know_of_their_neighbours(tmp_path):
    executor = LocalExecutor(tmp_path, jobs=3, trackers=["tensorboard"])
    (outcome,) = executor.execute([config("sgd")])
    assert any((outcome.path / "tensorboard").iterdir())
    assert load_run(outcome.path).environment["side_by_side"] == 3


def test_processes_get_the_runs_threads_and_take_turns_on_devices(tmp_path):
    executor = LocalExecutor(tmp_path, jobs=3, devices=["4", "7"])
    variables = [executor.variables(config("sgd"), slot) for slot in range(3)]
    assert {v["OMP_NUM_THREADS"] for v in variables} == {"1"}
    assert [v["CUDA_VISIBLE_DEVICES"] for v in variables] == ["4", "7", "4"]
    alone = LocalExecutor(tmp_path).variables(config("sgd"), 0)
    assert alone.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


STARTER = """
import sys
from pathlib import Path
from nysact.experiments.sweeps.local import LocalExecutor
from tests.experiments.configs import config
executor = LocalExecutor(Path(sys.argv[1]))
list(executor.execute([config("sgd", epochs=100_000)]))
"""


@pytest.mark.slow
def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    folder = folder_of(config("sgd", epochs=100_000), tmp_path)
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)]) as starter:
        wait_for(lambda: (folder / "metrics.jsonl").is_file())
        starter.send_signal(signal.SIGKILL)
    # The lock is free, and the files stay as they are.
    wait_for(lambda: not processes_of(tmp_path))
    before = (folder / "metrics.jsonl").read_bytes()
    time.sleep(2)
    assert (folder / "metrics.jsonl").read_bytes() == before


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_of(root):
    """List the workers whose command names a folder."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [
        line for line in listed.stdout.splitlines() if "sweeps.worker" in line and str(root) in line
    ]
