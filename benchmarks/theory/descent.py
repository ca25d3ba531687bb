"""Runs of NysAct on a problem, and the preconditioners that they use."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from benchmarks.theory.bounds import Spectrum
from benchmarks.theory.problem import Problem
from torch import Tensor, nn

from nysact import NysAct


@dataclass(frozen=True)
class Sketch:
    """How NysAct approximates the covariance; see its arguments of the same names."""

    rank: int = 10
    damping: float = 0.1
    sketch: Literal["columns", "gaussian", "subspace"] = "subspace"
    tail: bool = True
    interval: int = 50  # steps between refreshes


class Descent:
    """NysAct from zero weights without momentum and weight decay, on all rows or on drawn ones.

    Every forward reads all rows, so that the statistics are those of the exact covariance and the
    preconditioner does not depend on the draw: the stochastic gradient, whose rows are weighted by
    how often they were drawn (with replacement), is unbiased given the preconditioner, as the
    theorem assumes. Without a batch size the gradient is exact.
    """

    def __init__(
        self,
        problem: Problem,
        sketch: Sketch,
        rate: float,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.problem, self.sketch, self.batch_size = problem, sketch, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        outputs, dim = problem.targets.shape[1], problem.inputs.shape[1]
        self.model = nn.Linear(dim, outputs, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.model.weight)
        self.optimizer = NysAct(
            self.model, lr=rate, momentum=0.0, weight_decay=0.0, damping=sketch.damping,
            rank=sketch.rank, sketch=sketch.sketch, tail=sketch.tail, subsample=1,
            cov_interval=sketch.interval, inv_interval=sketch.interval,
        )  # fmt: skip

    @property
    def weight(self) -> Tensor:
        """The current weight (outputs, d)."""
        return self.model.weight.detach()

    def step(self) -> None:
        """Take one step."""
        losses = self.problem.losses(self.model(self.problem.inputs), self.problem.targets)
        loss = losses.mean()
        if self.batch_size is not None:
            drawn = torch.randint(len(losses), (self.batch_size,), generator=self.generator)
            counts = torch.bincount(drawn, minlength=len(losses)).to(losses.dtype)
            loss = counts @ losses / self.batch_size
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def preconditioner(self) -> Tensor:
        """Return the current preconditioner P, (d, d)."""
        return self.optimizer.inverse("")


def squared_norms(descent: Descent, steps: int) -> Iterator[tuple[float, float]]:
    """Yield |exact gradient|^2 and the variance of the stochastic one before each step."""
    size = descent.batch_size
    for _ in range(steps):
        weight = descent.weight
        variance = 0.0 if size is None else descent.problem.variance(weight, size)
        yield float(descent.problem.gradient(weight).square().sum()), variance
        descent.step()


def rehearse(problem: Problem, sketch: Sketch, steps: int) -> Spectrum:
    """Find the extremes of the preconditioners of a run in advance: its learning rate needs them.

    The covariance of the rows is constant and the test matrices are seeded, so that a run with
    learning rate 0 sees the same preconditioners and needs no steps between refreshes.
    """
    descent = Descent(problem, replace(sketch, interval=1), rate=0.0)
    lows, highs, errors = [], [], []
    for _ in range(0, steps, sketch.interval):
        descent.step()
        inverse = descent.preconditioner()
        values = torch.linalg.eigvalsh(inverse)
        damping = sketch.damping * torch.eye(len(inverse), dtype=inverse.dtype)
        error = problem.covariance + damping - torch.linalg.inv(inverse)
        lows.append(float(values[0]))
        highs.append(float(values[-1]))
        errors.append(float(torch.linalg.matrix_norm(error, 2)))
    return Spectrum(min(lows), max(highs), max(errors), sketch.damping)
