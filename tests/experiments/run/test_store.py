import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.store import RunFolder, load_runs, write_atomically
from tests.experiments.configs import config


def started(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "test" / "run")
    with folder.locked():
        folder.start(config(), {"device": "cpu"})
    return folder


def line(step: int) -> dict[str, float]:
    return {"step": step, "train_loss": step / 7}


def test_run_is_read_back_as_it_was_written(tmp_path):
    folder = started(tmp_path)
    for step in (1, 2):
        folder.append(line(step), {"step": step, "seconds": step / 3})
    (unfinished,) = load_runs(tmp_path)
    assert (unfinished.result, unfinished.timings) == (None, None)
    assert not folder.finished
    folder.finish({"steps": 2}, {"training_seconds": 1.5}, {"a/b": numpy.arange(3)})
    assert folder.finished
    (found,) = load_runs(tmp_path)
    assert found.path == folder.path
    assert found.config == config().model_dump()
    assert found.metrics == [line(1), line(2)]
    assert found.timing == [{"step": 1, "seconds": 1 / 3}, {"step": 2, "seconds": 2 / 3}]
    assert (found.result, found.timings) == ({"steps": 2}, {"training_seconds": 1.5})
    with numpy.load(folder.path / "arrays.npz") as arrays:
        assert arrays["a/b"].tolist() == [0, 1, 2]


def test_runs_of_several_recipes_are_found_in_order(tmp_path):
    for name in ("b/x", "a/z", "a/y"):
        RunFolder(tmp_path / name).path.mkdir(parents=True)
        RunFolder(tmp_path / name).start(config(), {})
    assert [str(run.path.relative_to(tmp_path)) for run in load_runs(tmp_path)] == [
        *("a/y", "a/z", "b/x")
    ]


def test_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ExperimentError, match="nowhere: no such folder"):
        load_runs(tmp_path / "nowhere")


def test_numbers_that_are_not_finite_are_null(tmp_path):
    folder = started(tmp_path)
    folder.append({"step": 1, "a": math.nan, "b": {"c": math.inf}}, {"step": 1})
    assert load_runs(tmp_path)[0].metrics == [{"step": 1, "a": None, "b": {"c": None}}]


def test_cutting_back_takes_later_lines_and_a_torn_one(tmp_path):
    folder = started(tmp_path)
    for step in (5, 10, 15):
        folder.append(line(step), {"step": step})
    whole = (folder.path / "metrics.jsonl").read_bytes()
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 20, "tr')
    folder.cut_back(15)
    assert (folder.path / "metrics.jsonl").read_bytes() == whole
    folder.cut_back(10)
    folder.append(line(15), {"step": 15})
    assert (folder.path / "metrics.jsonl").read_bytes() == whole
    folder.cut_back(0)
    assert (folder.path / "metrics.jsonl").read_bytes() == b""


def test_damaged_line_in_the_middle_is_an_error(tmp_path):
    folder = started(tmp_path)
    (folder.path / "metrics.jsonl").write_text('{"step"\n{"step": 1}\n')
    with pytest.raises(ExperimentError, match=r"metrics\.jsonl: not a JSON object a line"):
        load_runs(tmp_path)


def test_checkpoint_is_read_back_and_replaced(tmp_path):
    folder = started(tmp_path)
    assert folder.load_checkpoint() is None
    for step in (1, 2):
        folder.save_checkpoint({"step": step, "weight": torch.full((2,), step)})
    state = folder.load_checkpoint()
    assert state["step"] == 2
    assert state["weight"].tolist() == [2, 2]


def test_damaged_checkpoint_is_an_error_with_a_remedy(tmp_path):
    folder = started(tmp_path)
    folder.save_checkpoint({"weight": torch.zeros(1000)})
    path = folder.path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ExperimentError, match=r"checkpoint\.pt: not a whole checkpoint .*delete"):
        folder.load_checkpoint()


def test_failed_write_leaves_the_former_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"former"))

    def fails(file):
        file.write(b"half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"former"


def test_remains_of_killed_writes_are_removed_and_nothing_else(tmp_path):
    folder = started(tmp_path)
    folder.save_checkpoint({"step": 1})
    script = (
        "import os, sys; from pathlib import Path\n"
        "from nysact.experiments.run.store import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), 9))"
    )
    command = [sys.executable, "-c", script, str(folder.path / "checkpoint.pt")]
    assert subprocess.run(command, check=False).returncode == -9
    (folder.path / ".notes.txt").touch()
    names = {path.name for path in folder.path.iterdir()}
    with folder.locked():
        left = {path.name for path in folder.path.iterdir()}
    (removed,) = names - left
    assert removed.startswith(".checkpoint.pt.")
    assert left >= {".notes.txt", ".lock", "checkpoint.pt", "config.json"}


def test_name_of_a_file_is_synced_after_it_is_there(tmp_path, monkeypatch):
    synced = []
    path = tmp_path / "file"

    def note(number: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(number).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    write_atomically(path, lambda file: file.write(b"x"))
    assert synced == [(False, False), (True, True)]


def test_other_data_is_refused_and_unknown_data_is_not(tmp_path):
    folder = started(tmp_path)
    folder.check_data("one")
    folder.start(config(), {}, "one")
    for digest in ("one", None):
        folder.check_data(digest)
    with pytest.raises(ExperimentError, match=r"made with other data .*one, now two.* --runs, or"):
        folder.check_data("two")


def test_another_place_is_noted_once(tmp_path):
    folder = started(tmp_path)
    for device in ("cuda", "cuda", "cpu"):
        folder.start(config(), {"device": device})
    found = json.loads((folder.path / "environment.json").read_text())
    assert found == {"device": "cpu", "resumed": [{"device": "cuda"}]}


HOLDER = """
import sys, pathlib, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_run_of_another_process_is_left_alone_until_that_dies(tmp_path):
    folder = started(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path / ".lock")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ExperimentError, match="another process is running"), folder.locked():
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with folder.locked():
        pass


def test_folder_that_cannot_be_made_is_an_error():
    with (
        pytest.raises(ExperimentError, match="/dev/null/x: cannot be written to"),
        RunFolder(Path("/dev/null/x")).locked(),
    ):
        pass
