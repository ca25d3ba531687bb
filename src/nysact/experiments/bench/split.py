"""Where a step's time goes, seen from outside: taken apart from the race, which it would disturb.

The parts are told apart by wrapping functions of the library while a step runs:

    capture   ``Layer.observe``, ``Layer.observe_output``, ``Backlog.work_off``,
              ``LayerStack.commit``
    refresh   ``LayerStack.refresh``
    apply     ``Engine.precondition``
    update    ``optimizer._apply``

What ``optimizer.step`` does beside them is the rest of the step, and all that is told of other
optimizers. What is left of the training step is its forward and backward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from statistics import median
from typing import Any, Protocol
from unittest.mock import patch

from torch.optim import Optimizer

from nysact.experiments.baselines.released import ReleasedOptimizer
from nysact.experiments.bench.clock import Clock
from nysact.experiments.bench.contender import Contender
from nysact.experiments.bench.schedule import KINDS, Kind
from nysact.experiments.bench.workload import Training, Workload
from nysact.optim.backlog import Backlog
from nysact.optim.engine import Engine
from nysact.optim.layer import Layer
from nysact.optim.optimizer import PreconditionedOptimizer
from nysact.optim.stack import LayerStack

REST = "forward and backward"
STEP = "rest of step"
PARTS = (REST, "capture", "refresh", "apply", "update", STEP)

# Every kind of step comes twice or more in this many, the first of all left out; in five steps
# it comes once, which has to do where they take longer than this, in seconds.
STATISTICS, REFRESH, STEPS, PATIENCE = 2, 4, 9, 30.0

Split = dict[str, float]


# Of the authors' released code, as the registry has it, the same parts.
PLACES: Sequence[tuple[type, str, str]] = (
    (Layer, "observe", "capture"),
    (Layer, "observe_output", "capture"),
    (Backlog, "work_off", "capture"),
    (LayerStack, "commit", "capture"),
    (LayerStack, "refresh", "refresh"),
    (Engine, "precondition", "apply"),
    (ReleasedOptimizer, "_observe", "capture"),
    (ReleasedOptimizer, "_invert", "refresh"),
    (ReleasedOptimizer, "_preconditioned", "apply"),
)


class Meter(Protocol):
    """Measures parts of steps."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Count the body to a part."""


class PartTimer:
    """Times nested parts of a step, each without those inside it.

    Args:
        clock: The clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Part, the index of the part around it, start and end.
        self._spans: list[tuple[str, int | None, object, object]] = []
        self._open: list[int] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the body to a part.

        Args:
            name: The part.

        Yields:
            Nothing.
        """
        outer = self._open[-1] if self._open else None
        index = len(self._spans)
        self._spans.append((name, outer, None, None))
        self._open.append(index)
        start = self._clock.mark()
        try:
            yield
        finally:
            self._spans[index] = (name, outer, start, self._clock.mark())
            self._open.pop()

    def take(self) -> Split:
        """Give the seconds of each part since the last call, and start anew."""
        lengths = [self._clock.between(start, end) for *_, start, end in self._spans]
        split = dict.fromkeys((name for name, *_ in self._spans), 0.0)
        for length, (name, outer, *_) in zip(lengths, self._spans, strict=True):
            split[name] += length
            if outer is not None:
                split[self._spans[outer][0]] -= length
        self._spans.clear()
        return split


def measured(function: Callable[..., Any], name: str, meter: Meter) -> Callable[..., Any]:
    """Let a function count to a part.

    Args:
        function: The function.
        name: The part.
        meter: Measures the parts.

    Returns:
        A function that does the same.
    """

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        with meter.part(name):
            return function(*args, **kwargs)

    return counted


@contextmanager
def taken_apart(build: Callable[[], Optimizer], meter: Meter) -> Iterator[Optimizer]:
    """Let the parts of an optimizer's steps be measured in the body.

    Args:
        build: Makes the optimizer. No other of this library may step meanwhile.
        meter: Measures the parts.

    Yields:
        The optimizer.
    """
    with ExitStack() as stack:
        for owner, name, part in PLACES:
            wrapped = measured(getattr(owner, name), part, meter)
            stack.enter_context(patch.object(owner, name, wrapped))
        optimizer = build()
        if isinstance(optimizer, PreconditionedOptimizer):
            wrapped = measured(optimizer._apply, "update", meter)
            stack.enter_context(patch.object(optimizer, "_apply", wrapped))
        step = measured(optimizer.step, STEP, meter)

        def step_apart(*closures: Callable[[], Any]) -> Any:
            return step(*(measured(closure, REST, meter) for closure in closures))

        stack.enter_context(patch.object(optimizer, "step", step_apart))
        yield optimizer


def split(workload: Workload, contender: Contender, clock: Clock) -> dict[Kind, Split]:
    """Measure the parts of each kind of step.

    A few steps suffice, since the costly ones are made to come soon.

    Args:
        workload: What is trained.
        contender: The optimizer.
        clock: The clock.

    Returns:
        Median seconds of each part by kind of step, for the kinds that the optimizer has.
    """
    short = contender.with_intervals(STATISTICS, REFRESH)
    model = workload.build()
    timer = PartTimer(clock)
    found: dict[Kind, list[Split]] = {kind: [] for kind in KINDS}
    total = 0.0
    with taken_apart(lambda: short.build(model), timer) as optimizer:
        training = Training(workload, model, optimizer)
        for step in range(STEPS):
            with timer.part(REST):
                training.step()
            taken = timer.take()
            if step:  # the first pays for memory and for the choice of kernels
                found[short.schedule.kind(step)].append(taken)
            total += sum(taken.values())
            if step == REFRESH and total > PATIENCE:
                break
    return {kind: median_split(taken) for kind, taken in found.items() if taken}


def median_split(splits: Sequence[Split]) -> Split:
    """Take the median of each part over several steps; one that a step lacks took no time."""
    names = [part for part in PARTS if any(part in of for of in splits)]
    return {name: median(of.get(name, 0.0) for of in splits) for name in names}


def over_a_cycle(kinds: dict[Kind, Split], contender: Contender) -> Split:
    """Average the parts over a cycle, by how often each kind of step comes.

    Args:
        kinds: The parts by kind.
        contender: The optimizer as it is timed.

    Returns:
        Mean seconds a step of each part.
    """
    counts = contender.schedule.counts()
    number = sum(counts[kind] for kind in kinds)
    names = [part for part in PARTS if any(part in of for of in kinds.values())]
    return {
        name: sum(counts[kind] * of.get(name, 0.0) for kind, of in kinds.items()) / number
        for name in names
    }
