"""Fashion-MNIST: training loss and test accuracy of SGD and NysAct, on the same batches.

A ResNet-20 trains on 20,000 images for 5 epochs (batch 128, random flips), the learning rate
falling from 0.1 to 0 along half a cosine. Runs of one seed start from the same weights and see the
same batches; each run is reported when it ends.

    python benchmarks/fashion_mnist.py        # SGD and NysAct, 2 seeds: about 15 minutes on 2 cores
    python benchmarks/fashion_mnist.py --optimizers subspace columns+tail exact --seeds 0
    python benchmarks/fashion_mnist.py --optimizers nysact --rank 20 --damping 0.3

An optimizer is `sgd`; `nysact` with its defaults; a sketch (`columns`, `gaussian`, `subspace`),
with the tail if `+tail` follows; `exact`, whose rank is that of the covariance; or
`released-columns` and `released-gaussian`, the authors' released code.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Optimizer

from nysact import NysAct
from nysact.experiments.baselines.released import ReleasedNysAct
from nysact.experiments.data.fashion_mnist import load_fashion_mnist
from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.demo.train import EVALUATION_BATCH, Run, train_in_turns
from nysact.experiments.models import CifarResNet
from nysact.experiments.randomness import seeded_model
from report import markdown, write_json

SKETCHES = ("columns", "gaussian", "subspace")
# Above the largest covariance, so that none is approximated.
FULL_RANK = 10_000


def optimizer_for(name: str, args: argparse.Namespace) -> Callable[[nn.Module], Optimizer]:
    """Find out how to build an optimizer that the user named.

    Raises:
        ValueError: If there is none of this name.
    """
    common = {"lr": args.lr, "momentum": 0.9, "weight_decay": 5e-4}
    chosen = {n: getattr(args, n) for n in ("rank", "damping", "subsample")}
    given = {n: value for n, value in chosen.items() if value is not None}
    released = {n: value for n, value in given.items() if n != "subsample"}
    sketch, _, tail = name.partition("+")
    if name == "sgd":
        return lambda model: SGD(model.parameters(), **common)
    if name == "nysact":
        return lambda model: NysAct(model, **common, **given)
    if name == "exact":
        return lambda model: NysAct(model, **common, **{**given, "rank": FULL_RANK})
    if name in ("released-columns", "released-gaussian"):
        kind = name.removeprefix("released-")
        return lambda model: ReleasedNysAct(model, sketch=kind, **common, **released)
    if sketch in SKETCHES and tail in ("", "tail"):
        return lambda model: NysAct(model, sketch=sketch, tail=bool(tail), **common, **given)
    raise ValueError(f"--optimizers {name}: no such optimizer, see --help")


def train(name: str, seed: int, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Train from the seed's weights on the seed's batches, and sum up."""
    model = seeded_model(lambda: CifarResNet(20, in_channels=1), seed)
    model.to(memory_format=torch.channels_last)  # trains faster on a CPU
    steps = args.epochs * (len(data.train) // args.batch_size)
    run = Run(name, model, optimizer_for(name, args)(model), steps)
    for epoch in train_in_turns([run], data, args.epochs, args.batch_size, seed):
        print(
            f"seed {seed}, {name}, epoch {epoch}: loss {run.losses[-1]:.4f}, "
            f"test accuracy {run.accuracies[-1]:.2f}%",
            flush=True,
        )
    return {
        "optimizer": name,
        "seed": seed,
        "last_epoch_loss": run.losses[-1],
        "train_loss": evaluated_loss(model, data.train),
        "test_accuracy": run.accuracies[-1],
        "losses": run.losses,
        "accuracies": run.accuracies,
    }


@torch.no_grad()
def evaluated_loss(model: nn.Module, data: ImageSet) -> float:
    """Mean loss of the trained model on a set, in evaluation mode, without flips."""
    model.eval()
    total = sum(
        F.cross_entropy(model(images), labels, reduction="sum")
        for images, labels in zip(
            data.images.split(EVALUATION_BATCH), data.labels.split(EVALUATION_BATCH), strict=True
        )
    )
    return float(total) / len(data)


def table(results: Sequence[dict[str, Any]]) -> str:
    headings = [
        "optimizer", "seed", "loss, mean of last epoch", "loss, evaluated", "test accuracy, %",
    ]  # fmt: skip
    lines = [
        [
            of["optimizer"],
            str(of["seed"]),
            f"{of['last_epoch_loss']:.4f}",
            f"{of['train_loss']:.4f}",
            f"{of['test_accuracy']:.2f}",
        ]
        for of in results
    ]
    return markdown(headings, lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--optimizers", nargs="+", default=["sgd", "nysact"], metavar="NAME", help="see below")
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add("--train-size", type=int, default=20_000)
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=128)
    add("--lr", type=float, default=0.1)
    add("--rank", type=int, help="default: the optimizer's own, as for the next two")
    add("--damping", type=float)
    add("--subsample", type=lambda text: text if text == "auto" else int(text))
    add("--folder", type=Path, help="folder of Fashion-MNIST's files, if not found otherwise")
    add("--json", type=Path, default=Path("runs/fashion_mnist.json"), help="where results go")
    args = parser.parse_args(argv)
    for name in args.optimizers:
        try:
            optimizer_for(name, args)
        except ValueError as error:
            parser.error(str(error))
    return args


def main() -> None:
    args = parse()
    data = load_fashion_mnist(args.folder).with_train_size(args.train_size)
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    results: list[dict[str, Any]] = []
    for seed in args.seeds:
        for name in args.optimizers:
            results.append(train(name, seed, data, args))
            write_json(args.json, {"settings": settings, "results": results})
    print("\n" + table(results))


if __name__ == "__main__":
    main()
