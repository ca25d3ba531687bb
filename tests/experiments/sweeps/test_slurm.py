"""Runs as submitit's jobs: on this machine, and on a SLURM cluster where there is one."""

import json
import shutil
import subprocess

import pytest
import submitit

from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.store import RunFolder, load_run
from nysact.experiments.sweeps.outcome import folder_of
from nysact.experiments.sweeps.slurm import JOB, RunTask, SlurmExecutor, prefixed, slurm_options

from ..configs import config


def bad(root):
    data = {"name": "fashion-mnist", "folder": str(root / "nowhere")}
    return config("sgd", data=data, model={"name": "lenet5"})


def check(executor, root):
    """A run that fails stops no other, and says why."""
    outcomes = {o.config.run_id(): o for o in executor.execute([bad(root), config("sgd")])}
    good = outcomes[config("sgd").run_id()]
    assert good.failure is None
    assert load_run(good.path).result["steps"] == 8
    failure = outcomes[bad(root).run_id()].failure
    assert "nowhere: expected the files" in failure
    assert not (good.path / JOB).exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_runs_are_jobs_of_submitit(tmp_path):
    executor = SlurmExecutor(tmp_path, 2, {}, cpu=True, cluster="local", poll_seconds=0.2)
    check(executor, tmp_path)


def has_slurm() -> bool:
    """Tell whether a cluster answers."""
    if shutil.which("sbatch") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


needs_slurm = pytest.mark.skipif(not has_slurm(), reason="there is no SLURM cluster here")
OPTIONS = {"timeout_min": 10, "cpus_per_task": 1}


@pytest.mark.slow
@needs_slurm
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_runs_are_jobs_of_a_cluster(tmp_path):
    check(SlurmExecutor(tmp_path, 2, OPTIONS, cpu=True, poll_seconds=1), tmp_path)


@pytest.mark.slow
@needs_slurm
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_later_start_finds_the_job_of_an_earlier_one(tmp_path):
    executor = SlurmExecutor(tmp_path, 1, OPTIONS, cpu=True, poll_seconds=1)
    first = executor.start(config("sgd"), 0)
    number = (folder_of(config("sgd"), tmp_path) / JOB).read_text()
    again = SlurmExecutor(tmp_path, 1, OPTIONS, cpu=True, poll_seconds=1)
    second = again.start(config("sgd"), 0)
    assert first.job.job_id == second.job.job_id == number
    second.job.wait()
    assert second.outcome().failure is None


def test_a_job_that_is_preempted_is_queued_again():
    line, root = "{}", "runs"
    again = RunTask().checkpoint(line, root, True)
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert isinstance(again.function, RunTask)
    assert again.args == (line, root, True)


def test_options_are_read():
    assert slurm_options(["partition=gpu", "timeout_min = 60"]) == {
        "partition": "gpu",
        "timeout_min": 60,
    }
    assert [prefixed(name) for name in ("partition", "timeout_min", "slurm_qos")] == [
        *("slurm_partition", "timeout_min", "slurm_qos"),
    ]
    with pytest.raises(ExperimentError, match="--slurm gpu: expected NAME=VALUE"):
        slurm_options(["gpu"])


@pytest.mark.parametrize("option", ["tasks_per_node", "nodes", "slurm_ntasks"])
def test_a_job_is_one_process(tmp_path, option):
    with pytest.raises(ExperimentError, match=f"--slurm {option}=8: .* let --jobs say how many"):
        SlurmExecutor(tmp_path, 1, {option: 8}, cluster="local")
    assert not list(tmp_path.iterdir())


def test_a_job_leaves_a_run_to_the_process_that_is_at_it(tmp_path):
    line = json.dumps(config("sgd").model_dump())
    with RunFolder(folder_of(config("sgd"), tmp_path)).locked():
        assert RunTask()(line, str(tmp_path), True) is False


def test_options_that_do_not_exist_are_an_error(tmp_path):
    with pytest.raises(ExperimentError, match=r"--slurm gpus=1: .*expected settings of submitit"):
        SlurmExecutor(tmp_path, 1, {"gpus": 1}, cluster="slurm" if has_slurm() else "local")
