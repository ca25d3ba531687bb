import json
import platform
import subprocess

import pytest
import torch

from nysact.experiments.environment import commit_of, cuda, environment, version_of
from nysact.experiments.run.accelerator import arithmetic


def git(folder, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_environment_says_what_a_result_may_depend_on():
    found = environment(torch.device("cpu"))
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == version_of("torch")
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert found["device_name"]
    assert found["cpu"]
    assert found["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_rounding_to_tf32_is_written_down(precision):
    with arithmetic(precision):
        found = cuda()
    assert (found["matmul_tf32"], found["cudnn_tf32"]) == (precision == "tf32",) * 2
    assert {"cuda", "cudnn", "driver"} < set(found)


@pytest.mark.cuda
def test_versions_of_a_gpu_are_written_down():
    found = environment(torch.device("cuda"))
    assert all(found[name] for name in ("cuda", "cudnn", "driver"))


def test_package_that_is_not_there_has_no_version():
    assert version_of("no-such-package-anywhere") is None


def test_commit_of_a_checkout_tells_whether_files_were_changed(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path / "file") == commit
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path / "file") == f"{commit}-dirty"
    (tmp_path / "installed").write_text("")
    assert commit_of(tmp_path / "installed") is None


def test_outside_of_a_checkout_there_is_no_commit(tmp_path):
    (tmp_path / "file").write_text("")
    assert commit_of(tmp_path / "file") is None
