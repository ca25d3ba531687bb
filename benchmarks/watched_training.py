"""One training that everything which is to be compared watches, and that nothing changes."""

import argparse
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from covariance import Average, ExactCovariances
from nysact import NysAct, Preconditioner
from nysact.experiments.data.augmentation import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.data.loaders import DeviceLoader, Share
from nysact.experiments.models import CifarResNet
from nysact.experiments.randomness import seeded_model
from released import ReleasedSketch

SKETCHES = ("columns", "gaussian", "subspace")
RELEASED = ("columns", "gaussian")


class Watch:
    """All that watches one training.

    Args:
        model: The model in training.
        args: The command line.
        seed: Seed of the test matrices.

    Attributes:
        observers: (sketch, rank, subsample) to the library's preconditioner.
        released: (sketch, rank) to the released code's sketch of each layer.
        window: Exact covariances, averaged over the batches of the current window.
        running: Exact covariances, averaged over all batches.
    """

    def __init__(self, model: nn.Module, args: argparse.Namespace, seed: int) -> None:
        self.model, self.args, self.seed = model, args, seed
        self.exact = ExactCovariances(model)
        self.window = Average(args.stat_decay)
        self.running = Average(args.stat_decay)
        wanted = set(itertools.product(SKETCHES, args.ranks, [args.subsample]))
        wanted |= {("subspace", args.subsample_rank, n) for n in args.subsamples}
        self.observers = {key: self.observer(*key) for key in wanted}
        self.released: dict[tuple[str, int], dict[str, ReleasedSketch]] = {
            key: {} for key in itertools.product(RELEASED, args.ranks)
        }
        self.generator = torch.Generator().manual_seed(seed)
        # These remember nothing of earlier windows, so that it is enough if they watch the last.
        self.forgetful = [of for (sketch, *_), of in self.observers.items() if sketch != "subspace"]
        self.asleep = ExitStack()

    def observer(
        self, sketch: str, rank: int, subsample: Any, *, tail: bool = True
    ) -> Preconditioner:
        return Preconditioner(
            self.model,
            sketch=sketch,
            rank=rank,
            subsample=subsample,
            tail=tail,
            damping=self.args.damping,
            stat_decay=self.args.stat_decay,
            cov_interval=self.args.cov_interval,
            inv_interval=self.args.inv_interval,
            seed=self.seed,
        )

    def before_forward(self, step: int) -> None:
        if step == 1:
            for observer in self.forgetful:
                self.asleep.enter_context(observer.paused())
        if step == self.args.steps - self.args.inv_interval + 1:
            self.asleep.close()
        self.exact.listening = step % self.args.cov_interval == 0
        if step % self.args.inv_interval == 1 % self.args.inv_interval:
            self.window.restart()

    def after_backward(self) -> None:
        gradients = {p: p.grad.clone() for p in self.model.parameters() if p.grad is not None}
        for observer in self.observers.values():
            observer.step()
            # Each leaves its directions in their place.
            for param, gradient in gradients.items():
                param.grad.copy_(gradient)
        if self.exact.listening:
            self.window.update(self.exact.batch)
            self.running.update(self.exact.batch)
            self.update_released()

    def update_released(self) -> None:
        for (kind, rank), sketches in self.released.items():
            for name, covariance in self.exact.batch.items():
                if name not in sketches:
                    sketches[name] = ReleasedSketch(
                        kind, len(covariance), rank, self.args.stat_decay, self.generator
                    )
                sketches[name].update(covariance)

    def without_tail(self, key: tuple[str, int, Any]) -> Preconditioner:
        """The same preconditioner as an observer's, but for the tail."""
        state = self.observers[key].state_dict()
        for group in state["param_groups"]:
            group["tail"] = False
        twin = self.observer(*key, tail=False)
        twin.load_state_dict(state)
        return twin

    def gradients(self) -> dict[str, Tensor]:
        """The layers' gradients as matrices in float64, the bias's last."""
        modules = {name: self.model.get_submodule(name) for name in self.exact.batch}
        return {name: gradient_matrix(module) for name, module in modules.items()}


def gradient_matrix(module: nn.Module) -> Tensor:
    params = [param for param in (module.weight, module.bias) if param is not None]
    return torch.cat([param.grad.reshape(len(param), -1).double() for param in params], dim=1)


def train(data: ImageSet, args: argparse.Namespace, seed: int) -> Watch:
    """Train, watched; stop after the backward of one more batch, where factors are fresh."""
    model = seeded_model(lambda: CifarResNet(20, in_channels=1), seed)
    model.to(memory_format=torch.channels_last)  # trains faster on a CPU
    optimizer = driver(model, args)
    watch = Watch(model, args, seed)
    stream = forever(data, args.batch_size, seed)
    for step, (images, labels) in zip(range(args.steps + 1), stream, strict=False):
        watch.before_forward(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        watch.after_backward()
        if step == args.steps:
            break
        optimizer.step()
        if step % 10 == 0:
            print(f"seed {seed}, step {step}/{args.steps}: loss {loss.item():.3f}", flush=True)
    return watch


def driver(model: nn.Module, args: argparse.Namespace) -> Optimizer:
    if args.driver == "nysact":
        return NysAct(model, lr=args.lr, momentum=0.9, weight_decay=5e-4, damping=args.damping)
    return SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)


def forever(data: ImageSet, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DeviceLoader(data, batch_size, seed, Augmentation(), Share())
    for epoch in itertools.count():
        yield from loader.epoch(epoch)
