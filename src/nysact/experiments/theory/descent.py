"""Runs of NysAct on a problem, and what its preconditioners were."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nysact import NysAct
from nysact.experiments.theory.bounds import Spectrum
from nysact.experiments.theory.problem import Problem


@dataclass(frozen=True)
class Sketch:
    """How NysAct approximates.

    Args:
        rank: Rank of the approximation.
        damping: The damping.
        sketch: What the covariance is multiplied with.
        tail: Whether the trace that is missed is spread over the other directions.
        interval: Steps between refreshes.
    """

    rank: int = 10
    damping: float = 0.1
    sketch: str = "subspace"
    tail: bool = True
    interval: int = 50


class Descent:
    """NysAct without momentum and weight decay, on all rows or on rows drawn with replacement.

    Every forward reads all rows, so that the statistics are those of the exact covariance and the
    preconditioner does not depend on which rows were drawn: the stochastic gradient, whose rows
    are weighted by how often they were drawn, is unbiased given the preconditioner, as the theorem
    assumes.

    Args:
        problem: What is minimised, from zero weights.
        sketch: How NysAct approximates.
        rate: Learning rate.
        batch_size: Rows drawn a step, ``None`` for the exact gradient.
        seed: Seed of the draws.
    """

    def __init__(
        self,
        problem: Problem,
        sketch: Sketch,
        rate: float,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.problem = problem
        self.sketch = sketch
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)
        outputs, dim = problem.targets.shape[1], problem.inputs.shape[1]
        self.model = nn.Linear(dim, outputs, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.model.weight)
        approximation: dict[str, Any] = {"sketch": sketch.sketch}
        self.optimizer = NysAct(
            self.model, lr=rate, momentum=0.0, weight_decay=0.0, damping=sketch.damping,
            rank=sketch.rank, tail=sketch.tail, cov_interval=sketch.interval,
            inv_interval=sketch.interval, subsample=1, **approximation,
        )  # fmt: skip

    @property
    def weight(self) -> Tensor:
        """The weight as it is."""
        return self.model.weight.detach()

    def step(self) -> None:
        """Take a step."""
        losses = self.problem.losses(self.model(self.problem.inputs), self.problem.targets)
        if self.batch_size is None:
            loss = losses.mean()
        else:
            drawn = torch.randint(len(losses), (self.batch_size,), generator=self.generator)
            counts = torch.bincount(drawn, minlength=len(losses)).to(losses.dtype)
            loss = counts @ losses / self.batch_size
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def preconditioner(self) -> Tensor:
        """Give the preconditioner P in force, (d, d)."""
        return self.optimizer.inverse("")


def squared_norms(descent: Descent, steps: int) -> Iterator[tuple[float, float]]:
    """Descend, and measure the gradient before each step.

    Args:
        descent: The run.
        steps: How many.

    Yields:
        The squared norm of the exact gradient, and the variance of the stochastic one.
    """
    for _ in range(steps):
        gradient = descent.problem.gradient(descent.weight)
        size = descent.batch_size
        variance = 0.0 if size is None else descent.problem.variance(descent.weight, size)
        yield float(gradient.square().sum()), variance
        descent.step()


def rehearse(problem: Problem, sketch: Sketch, steps: int) -> Spectrum:
    """Find the preconditioners of a run beforehand, for its learning rate depends on them.

    The covariance of the rows is constant and the test matrices are seeded, so that a run that
    moves nowhere sees the same preconditioners as one that does, and needs no steps in between.

    Args:
        problem: The problem.
        sketch: How NysAct approximates.
        steps: Steps of the run.

    Returns:
        The extremes over the run.
    """
    descent = Descent(problem, replace(sketch, interval=1), rate=0.0)
    exact = problem.covariance
    identity = torch.eye(len(exact), dtype=exact.dtype)
    extremes = []
    for _ in range(0, steps, sketch.interval):
        descent.step()
        inverse = descent.preconditioner()
        values = torch.linalg.eigvalsh(inverse)
        error = torch.linalg.matrix_norm(
            exact - (torch.linalg.inv(inverse) - sketch.damping * identity), 2
        )
        extremes.append((float(values[0]), float(values[-1]), float(error)))
    lows, highs, errors = zip(*extremes, strict=True)
    return Spectrum(min(lows), max(highs), max(errors), sketch.damping)
