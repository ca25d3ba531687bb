"""What benchmarks/gpu.sh would run, with an interpreter that only notes its arguments."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
import typer

from nysact.experiments.bench.candidate import candidates, parse_settings
from nysact.experiments.bench.measure import make_workload
from nysact.experiments.bench.options import BenchOptions
from nysact.experiments.commands import app

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def run(folder, status=0, **variables):
    python, log = folder / "python", folder / "log"
    python.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexit {status}\n')
    python.chmod(0o755)
    log.touch()
    environment = {**os.environ, "PYTHON": str(python), **variables}
    done = subprocess.run(
        ["bash", SCRIPT, folder / "out"], capture_output=True, text=True, env=environment
    )
    return done, log.read_text().splitlines()


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    done, lines = run(tmp_path_factory.mktemp("gpu"))
    assert done.returncode == 0, done.stdout + done.stderr
    return lines


def test_the_cuda_tests_are_run_first(lines):
    assert lines[0].startswith("-m pytest")
    assert " -m cuda " in lines[0]
    files = [word for word in lines[0].split() if word.endswith(".py")]
    assert "tests/optim/test_calls.py" in files
    assert "tests/experiments/test_clock.py" in files
    assert "tests/distributed/test_one_gpu.py" in files


def test_what_processes_exchange_is_checked_next(lines):
    words = lines[1].split()
    assert words[:2] == ["-m", "torch.distributed.run"]
    assert int(words[words.index("--nproc-per-node") + 1]) >= 1
    assert (SCRIPT.parents[1] / words[words.index("--json") - 1]).is_file()


def test_every_measurement_is_one_that_the_command_can_make(lines):
    command = typer.main.get_command(app).commands["bench"]
    measured, files = set(), []
    for line in lines[2:]:
        module, name, *words = line.split()[1:]
        assert (module, name) == ("nysact.experiments", "bench")
        given = command.make_context("bench", words).params
        options = BenchOptions(**given)
        settings = parse_settings(options.settings or ())
        chosen = candidates(options.optimizer_names, options.shared, settings)
        assert options.device == "cuda"
        for model in options.models:
            work = make_workload(options, model, torch.device("cuda"))
            refresh = next(of.schedule.refresh for of in chosen if of.name != "sgd")
            measured |= {
                (model, of.name, work.precision, refresh, work.batch_size) for of in chosen
            }
        files.append(given["json_file"])
    assert len(set(files)) == len(files)
    for optimizer in ("nysact", "foof", "kfac", "eva"):
        for model in ("resnet110", "densenet121-cifar"):
            assert (model, optimizer, "fp32", 50, 128) in measured
        for model in ("resnet50", "deit-s"):
            assert (model, optimizer, "fp32", 50, 256) in measured
    for model in ("resnet50", "deit-s"):
        for precision in ("fp32", "bf16"):
            for refresh in (5, 50):
                assert (model, "nysact", precision, refresh, 256) in measured


def test_what_fails_is_said_and_the_rest_goes_on(tmp_path, lines):
    done, noted = run(tmp_path, status=3)
    assert done.returncode == 1
    assert len(noted) == len(lines)
    for name in ("tests", "cifar-fp32", "resnet50-fp32-dense"):
        assert f"not complete: {name}: exit 3" in done.stdout


def test_without_time_nothing_is_begun(tmp_path):
    done, noted = run(tmp_path, BUDGET="10")
    assert done.returncode == 1
    assert noted == []
    assert "resnet50-bf16: no time left" in done.stdout
