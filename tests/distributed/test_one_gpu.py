"""One process under NCCL: on which stream statistics are taken, and that no step waits."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard

from nysact import NysAct
from nysact.distributed import Processes
from nysact.engine.statistics import CallQueue
from nysact.experiments.models import CifarResNet
from nysact.optim import optimizer as module


@pytest.fixture
def nccl(tmp_path):
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1, device_id=device
    )
    yield device
    dist.destroy_process_group()


@pytest.mark.cuda
def test_statistics_of_shards_are_taken_on_the_stream_of_the_forward(nccl, monkeypatch):
    model = fully_shard(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).to(nccl))
    optimizer = NysAct(model, rank=2)
    streams, whole = [], CallQueue.flush

    def flush(queue):
        if queue._calls:
            streams.append(torch.cuda.current_stream())
        whole(queue)

    monkeypatch.setattr(CallQueue, "flush", flush)
    model(torch.ones(4, 8, device=nccl)).sum().backward()
    optimizer.step()
    assert streams == [torch.cuda.current_stream()]


def with_world(monkeypatch):
    """Let a world of one process count as several."""
    processes = Processes()
    processes.groups, processes.ranks = (dist.group.WORLD,), frozenset({0})
    monkeypatch.setattr(module, "find_processes", lambda *_: processes)


@pytest.mark.cuda
@pytest.mark.parametrize("share_refresh", [False, True])
def test_no_step_of_several_processes_waits_for_the_device(nccl, monkeypatch, share_refresh):
    with_world(monkeypatch)
    model = CifarResNet(8).to(nccl)
    optimizer = NysAct(model, cov_interval=2, inv_interval=4, share_refresh=share_refresh)
    images, labels = torch.randn(4, 3, 32, 32, device=nccl), torch.arange(4, device=nccl)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    for _ in range(5):  # choice of kernels, comparison of settings and first factors
        step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(8):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
