"""Jobs of submitit, on a SLURM cluster where there is one."""

import shutil
import subprocess
from functools import partial

import pytest
import submitit

from nysact.experiments.errors import ExperimentError
from nysact.experiments.options import BatchOptions
from nysact.experiments.run.store import folder_of, load_run
from nysact.experiments.sweeps.executor import JOB_FILE, Executor, executor_for
from nysact.experiments.sweeps.jobs import JOB, Job, cluster_submitter, prefixed

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
    assert not (good.path / JOB_FILE).exists()


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
    check(Executor(tmp_path, 2, cluster=OPTIONS, cpu=True), tmp_path)


@pytest.mark.slow
@needs_slurm
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_later_start_finds_the_job_of_an_earlier_one(tmp_path):
    executors = [Executor(tmp_path, 1, cluster=OPTIONS, cpu=True) for _ in range(2)]
    first, second = (
        each.start(config("sgd"), 0, partial(each.cluster.submit, JOB)) for each in executors
    )
    number = (folder_of(config("sgd"), tmp_path).path / JOB_FILE).read_text()
    assert first.job_id == second.job_id == number
    second.wait()
    assert executors[1].outcome(config("sgd"), second).failure is None


def test_a_job_that_is_preempted_is_queued_again():
    again = JOB.checkpoint(print, {})
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert isinstance(again.function, Job)
    assert again.args == (print, {})


def test_settings_that_only_slurm_knows_get_its_prefix():
    assert [prefixed(name) for name in ("partition", "timeout_min", "slurm_qos")] == [
        *("slurm_partition", "timeout_min", "slurm_qos"),
    ]


def test_a_setting_needs_a_value(tmp_path):
    with pytest.raises(ExperimentError, match="--slurm gpu: expected NAME=VALUE"):
        executor_for([], BatchOptions(runs=tmp_path, slurm=["gpu"], cpu=True))


@pytest.mark.parametrize("option", ["tasks_per_node", "nodes", "slurm_ntasks"])
def test_a_job_is_one_process(tmp_path, option):
    with pytest.raises(ExperimentError, match=f"--slurm {option}=8: .* parallel runs with --jobs"):
        cluster_submitter(tmp_path, {option: 8})
    assert not list(tmp_path.iterdir())


def test_settings_that_do_not_exist_are_an_error(tmp_path):
    with pytest.raises(ExperimentError, match=r"--slurm gpus=1: .*expected settings of submitit"):
        cluster_submitter(tmp_path, {"gpus": 1})
