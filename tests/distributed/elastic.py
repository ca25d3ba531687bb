"""Training that outlives its processes: run by torchrun, it goes on from its last checkpoint."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from nysact import NysAct

from .training import SETTINGS, network, parts, train, wrap

STEPS, EVERY, KILLED_AT = 14, 3, 10


def newest(folder):
    """The last checkpoint that was finished, and the steps it was taken after."""
    done = [int(path.parent.name) for path in folder.glob("*/.metadata")]
    return max(done, default=0)


def fit(folder, how, *, dies=False):
    """Train, with a checkpoint every few steps, from the newest one on."""
    model = wrap(network(torch.float32), how)
    optimizer = NysAct(model, **SETTINGS)
    start = newest(folder)
    if start:
        weights, state = get_state_dict(model, optimizer)
        loaded = {"model": weights, "optimizer": state}
        dcp.load(loaded, checkpoint_id=folder / str(start))
        set_state_dict(
            model,
            optimizer,
            model_state_dict=loaded["model"],
            optim_state_dict=loaded["optimizer"],
        )
    for step in range(start, STEPS):
        if dies and step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        train(model, optimizer, [step], sizes=[5, 3], dtype=torch.float32)
        if (step + 1) % EVERY == 0:
            optimizer.consolidate()
            weights, state = get_state_dict(model, optimizer)
            state = {"model": weights, "optimizer": state}
            dcp.save(state, checkpoint_id=folder / str(step + 1))
    return parts(optimizer)


def main(folder, how):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, restarts = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    found = fit(Path(folder), how, dies=rank == 1 and restarts == 0)
    torch.save((restarts, found), Path(folder) / f"result{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
