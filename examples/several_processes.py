"""Train on scikit-learn's digits with several processes, and go on from the last checkpoint.

    torchrun --nproc-per-node 2 examples/several_processes.py            # DistributedDataParallel
    torchrun --nproc-per-node 2 examples/several_processes.py --shard    # fully_shard (FSDP2)

Needs the extra ``experiments`` for the data. Two processes on a CPU take about 10 seconds. With
``--folder runs/digits`` a checkpoint is written after each epoch, which any number of processes,
sharded or not, resumes from.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from nysact import NysAct
from nysact.experiments.data.small_images import load_digits
from nysact.experiments.models import digits_network


def restore(model: nn.Module, optimizer: NysAct, folder: Path) -> int:
    """Take over the newest checkpoint; return the number of epochs it was taken after."""
    epochs = max((int(path.parent.name) for path in folder.glob("*/.metadata")), default=0)
    if epochs:
        weights, state = get_state_dict(model, optimizer)
        saved = {"model": weights, "optimizer": state}
        dcp.load(saved, checkpoint_id=folder / str(epochs))
        set_state_dict(
            model,
            optimizer,
            model_state_dict=saved["model"],
            optim_state_dict=saved["optimizer"],
        )
    return epochs


def save(model: nn.Module, optimizer: NysAct, folder: Path, epochs: int) -> None:
    """Write a checkpoint: all processes together."""
    # What each process has seen since the last refresh belongs into it, added up.
    optimizer.consolidate()
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / str(epochs))


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Percentage of right answers; every process takes part, as shards must be gathered."""
    model.eval()
    right = (model(images).argmax(1) == labels).float().mean()
    model.train()
    return 100 * float(right)


def fit(epochs: int, *, shard: bool = False, folder: Path | None = None) -> float:
    """Train, and return the accuracy on the test images in percent."""
    torch.manual_seed(0)
    data = load_digits()
    network = digits_network()
    model = fully_shard(network) if shard else DistributedDataParallel(network)
    # The wrapped model: it says which processes share its batches.
    optimizer = NysAct(model, lr=0.1)
    done = restore(model, optimizer, folder) if folder else 0

    train = TensorDataset(data.train.images, data.train.labels)
    sampler = DistributedSampler(train, seed=0)
    loader = DataLoader(train, batch_size=64 // dist.get_world_size(), sampler=sampler)
    reached = 0.0
    for epoch in range(done, epochs):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        reached = accuracy(model, data.test.images, data.test.labels)
        if dist.get_rank() == 0:
            print(f"epoch {epoch + 1}: {reached:.2f} % of the test images are right", flush=True)
        if folder:
            save(model, optimizer, folder, epoch + 1)
    return reached


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--shard", action="store_true", help="fully_shard instead of replicas")
    parser.add_argument("--folder", type=Path, help="checkpoints, to be gone on from")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    fit(args.epochs, shard=args.shard, folder=args.folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
