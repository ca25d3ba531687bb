"""Checkpoints: 60 steps equal 30, a new process, and 30 more; what doesn't fit is refused."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nysact import NysAct

from . import resume
from .training import SETTINGS, assert_same, dense, learned, rows, train, trained

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Checkpoints after 60 steps, of runs in one process and of runs resumed in another."""
    folder = tmp_path_factory.mktemp("resume")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    saved, straight = {}, {}
    for name, settings in resume.cases():
        model, optimizer = resume.build(settings)
        resume.run(model, optimizer, 0, resume.SAVED_AT)
        saved[name] = copy.deepcopy(resume.checkpoint(model, optimizer))
        resume.run(model, optimizer, resume.SAVED_AT, resume.STEPS)
        straight[name] = resume.checkpoint(model, optimizer)
    torch.set_num_threads(threads)
    torch.save(saved, folder / "saved.pt")
    command = [sys.executable, "-m", "tests.loops.resume", folder / "saved.pt", folder / "end.pt"]
    subprocess.run(command, cwd=ROOT, check=True)
    return straight, torch.load(folder / "end.pt", weights_only=True), saved


def flat(value, path=""):
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{path}/{key}").items()}
    if isinstance(value, list):
        return flat(dict(enumerate(value)), path)
    return {path: value}


@pytest.mark.parametrize("name", dict(resume.cases()))
def test_a_run_resumed_in_a_new_process_is_equal_bit_for_bit(resumed, name):
    straight, end, saved = (flat(checkpoints[name]) for checkpoints in resumed)
    assert straight.keys() == end.keys()
    for path, expected in straight.items():
        if isinstance(expected, torch.Tensor):
            assert end[path].dtype == expected.dtype, path
            assert torch.equal(end[path], expected), path
        else:
            assert end[path] == expected, path
    # The last branch had seen nothing by the time of the checkpoint.
    unused = [path for path in saved if path.endswith("/refreshed")]
    assert sorted(int(saved[path]) for path in unused)[0] == -1
    assert all(int(end[path]) >= 0 for path in unused)


def test_a_checkpoint_is_read_with_map_location(tmp_path):
    optimizer = trained(dense(), rows(7))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    devices = {}
    for location in ("meta", "cpu"):
        saved = torch.load(tmp_path / "optimizer.pt", weights_only=True, map_location=location)
        devices[location] = {
            value.device.type for state in saved["state"].values() for value in state.values()
        }
    assert devices == {"meta": {"meta"}, "cpu": {"cpu"}}
    fresh = NysAct(dense(), **SETTINGS)
    fresh.load_state_dict(saved)
    before, after = learned(optimizer), learned(fresh)
    assert all(torch.equal(after[key], before[key]) for key in after if "param" not in key)


@pytest.mark.cuda
def test_a_checkpoint_loads_onto_another_device(tmp_path):
    data = rows(9, dtype=torch.float64)
    model = dense(dtype=torch.float64)
    optimizer = trained(model, data[:7])
    torch.save(resume.checkpoint(model, optimizer), tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True, map_location="cpu")
    moved = dense(dtype=torch.float64).cuda()
    fresh = NysAct(moved, **SETTINGS)
    moved.load_state_dict(saved["model"])
    fresh.load_state_dict(saved["optimizer"])
    train(model, optimizer, data[7:])
    train(moved, fresh, [(x.cuda(), y.cuda()) for x, y in data[7:]])
    for name in optimizer.layers:
        assert fresh.inverse(name).device.type == "cuda"
        torch.testing.assert_close(fresh.inverse(name).cpu(), optimizer.inverse(name))


def test_learning_rates_and_schedules_resume_too():
    data = rows(20)
    model, other = dense(), dense()
    optimizer, fresh = NysAct(model, **SETTINGS), NysAct(other, **SETTINGS)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=21)
    for batch in data[:11]:
        train(model, optimizer, [batch])
        scheduler.step()
    resumed = torch.optim.lr_scheduler.OneCycleLR(fresh, 0.1, total_steps=21)
    other.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(scheduler.state_dict())
    for batch in data[11:]:
        train(model, optimizer, [batch])
        train(other, fresh, [batch])
        scheduler.step()
        resumed.step()
    assert_same(fresh, optimizer)
