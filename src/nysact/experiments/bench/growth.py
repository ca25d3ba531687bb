"""How time and memory of capture, refresh and apply grow with a layer's inputs and the rank.

One linear layer with d inputs trains on rows of noise; its statistics are taken at every step and
its factors refreshed at every other. Each part of the step is measured as in :mod:`.split`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer
from torch.profiler import record_function

from nysact.experiments import baselines
from nysact.experiments.bench.clock import Clock, make_clock
from nysact.experiments.bench.contender import contender
from nysact.experiments.bench.memory import (
    memory_changes,
    memory_profile,
    peak,
    raw_events,
    release,
    state_of,
)
from nysact.experiments.bench.split import PartTimer, Split, taken_apart
from nysact.experiments.errors import ExperimentError
from nysact.experiments.timing import synchronize

PARTS = ("capture", "refresh", "apply")
OPTIMIZERS = ("nysact", "foof", "released-columns")
STATISTICS, REFRESH = 1, 2
# The paper's intervals, for the mean cost of a step.
EVERY, REFRESHED_EVERY = 5, 50

Say = Callable[[str], None]


@dataclass(frozen=True)
class GrowthOptions:
    """What is measured.

    Args:
        device: Where.
        dims: Inputs d of the layer, ascending, at ``rank``.
        ranks: Ranks, ascending, at ``dim`` inputs.
        rank: Rank while d grows.
        dim: Inputs while the rank grows.
        rows: Rows of a batch.
        outputs: Outputs of the layer.
        most_seconds: An optimizer stops where its next step would take longer.
        most_bytes: And where its next step would take more memory.
        clock: See :func:`~.clock.make_clock`.

    Raises:
        ExperimentError: If the dimensions or ranks don't ascend, or a rank isn't below its d.
    """

    device: torch.device
    dims: Sequence[int] = tuple(2**n for n in range(6, 15))
    ranks: Sequence[int] = (5, 10, 20, 50, 100, 200)
    rank: int = 10
    dim: int = 1024
    rows: int = 512
    outputs: int = 256
    most_seconds: float = 20.0
    most_bytes: float = 4 * 2**30
    clock: str = "auto"

    def __post_init__(self) -> None:
        for name, values in (("--dims", self.dims), ("--ranks", self.ranks)):
            given = ",".join(map(str, values))
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise ExperimentError(f"{name} {given}: expected ascending numbers from 1 up")
        if self.rank >= self.dims[0]:
            raise ExperimentError(
                f"--rank {self.rank}: expected less than the smallest of --dims, {self.dims[0]}; "
                "at full rank the inverse is exact and costs what FOOF's does"
            )
        if self.ranks[-1] >= self.dim:
            raise ExperimentError(
                f"--dim {self.dim}: expected more than the largest of --ranks, {self.ranks[-1]}"
            )


@dataclass(frozen=True)
class Point:
    """What one optimizer costs at one size.

    Args:
        optimizer: Its name.
        dim: Inputs d of the layer.
        rank: Its rank, for those that have one.
        seconds: Median time of each part.
        bytes: Peak memory of each part, beside what there was before; empty where not measured.
        state: Bytes of the optimizer's state beside momentum.
    """

    optimizer: str
    dim: int
    rank: int
    seconds: Split
    bytes: Split
    state: int

    @property
    def step(self) -> float:
        """Mean time that the parts add to a step, in seconds, at the paper's intervals."""
        capture, refresh, apply = (self.seconds[part] for part in PARTS)
        return capture / EVERY + refresh / REFRESHED_EVERY + apply

    def heaviest(self) -> float:
        """Time of a step with every part, in seconds."""
        return sum(self.seconds.values())

    def largest(self) -> float:
        """Most memory of a part, with the state."""
        return self.state + max(self.bytes.values(), default=0.0)


@dataclass(frozen=True)
class Growth:
    """All that was measured.

    Args:
        by_dim: Points at growing d.
        by_rank: Points at growing rank.
        stops: Who stopped where, and why.
    """

    by_dim: list[Point] = field(default_factory=list)
    by_rank: list[Point] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)


def measure_growth(options: GrowthOptions, say: Say) -> Growth:
    """Measure every optimizer at every size.

    Args:
        options: What is measured.
        say: Shows a line of progress.

    Returns:
        The points.
    """
    growth, clock = Growth(), make_clock(options.clock, options.device)
    for name in OPTIMIZERS:
        for dim in options.dims:
            mine = [of for of in growth.by_dim if of.optimizer == name]
            stop = too_much(mine[-1], dim, options) if mine else None
            if stop:
                growth.stops.append(stop)
                say(stop)
                break
            growth.by_dim.append(measure_point(name, dim, options.rank, options, clock))
            say(describe(growth.by_dim[-1]))
    for name in OPTIMIZERS:
        # What has no rank costs the same at each.
        for rank in options.ranks if has_rank(name) else options.ranks[:1]:
            growth.by_rank.append(measure_point(name, options.dim, rank, options, clock))
            say(describe(growth.by_rank[-1]))
    return growth


def has_rank(name: str) -> bool:
    """Tell whether an optimizer has a rank."""
    return "rank" in baselines.find(name).defaults


def too_much(last: Point, dim: int, options: GrowthOptions) -> str | None:
    """Foretell, by a dense matrix's growth, whether the next size is out of bounds.

    Args:
        last: The size before.
        dim: The next.
        options: The bounds.

    Returns:
        Why to stop, or ``None``.
    """
    seconds = last.heaviest() * (dim / last.dim) ** 3
    memory = last.largest() * (dim / last.dim) ** 2
    title = baselines.find(last.optimizer).title
    if seconds > options.most_seconds:
        return (
            f"{title} stops at d = {last.dim}: a step at {dim} could take {seconds:.0f} s, over "
            f"the bound of {options.most_seconds:g} s"
        )
    if memory > options.most_bytes:
        return (
            f"{title} stops at d = {last.dim}: a step at {dim} could take {memory / 2**30:.1f} "
            f"GiB, over the bound of {options.most_bytes / 2**30:g} GiB"
        )
    return None


def measure_point(name: str, dim: int, rank: int, options: GrowthOptions, clock: Clock) -> Point:
    """Measure one optimizer at one size.

    Args:
        name: The optimizer.
        dim: Inputs of the layer.
        rank: Rank, where the optimizer has one.
        options: The other sizes.
        clock: Times the parts.

    Returns:
        The point.
    """
    release()
    seconds = time_parts(Subject(name, dim, rank, options), clock)
    release()
    memory, state = memory_of_parts(Subject(name, dim, rank, options))
    return Point(name, dim, rank, seconds, memory, state)


class Subject:
    """A linear layer, its batch, and how its optimizer is made.

    The learning rate is 0, so that every step finds the same.

    Args:
        name: The optimizer.
        dim: Inputs of the layer.
        rank: Rank, where the optimizer has one.
        options: The other sizes.
    """

    def __init__(self, name: str, dim: int, rank: int, options: GrowthOptions) -> None:
        self.contender = contender(name, {"rank": rank}, {"lr": 0.0}).with_intervals(
            STATISTICS, REFRESH
        )
        self.device = options.device
        self._sizes = (options.rows, dim, options.outputs)

    def prepare(self) -> None:
        """Make the layer and the batch."""
        rows, dim, outputs = self._sizes
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Linear(dim, outputs, bias=False)
        self.model.weight.data.normal_(0.0, dim**-0.5, generator=generator)
        self.model.to(self.device)
        self.inputs = torch.randn(rows, dim, generator=generator).to(self.device)
        self.targets = torch.randn(rows, outputs, generator=generator).to(self.device)

    def build(self) -> Optimizer:
        """Make the optimizer."""
        return self.contender.build(self.model)

    def step(self, optimizer: Optimizer) -> None:
        """Take one step."""
        baselines.training_step(self.model, optimizer, F.mse_loss, self.inputs, self.targets)


def time_parts(subject: Subject, clock: Clock) -> Split:
    """Take the median time of each part, over as many steps as about half a second holds.

    Args:
        subject: What trains.
        clock: The clock.

    Returns:
        Seconds of each part. That of apply is taken from the steps that don't refresh.
    """
    timer = PartTimer(clock)
    found: defaultdict[str, list[float]] = defaultdict(list)
    subject.prepare()
    with taken_apart(subject.build, timer) as optimizer:

        def parts() -> Split:
            subject.step(optimizer)
            return timer.take()

        # The first two pay for memory and for the choice of kernels.
        parts()
        seconds = max(sum(parts().values()), 1e-4)
        for _ in range(max(1, min(10, int(0.5 / seconds)))):
            refreshing, plain = parts(), parts()
            found["capture"] += [refreshing["capture"], plain["capture"]]
            found["refresh"] += [refreshing["refresh"]]
            found["apply"] += [plain["apply"]]
    return {part: median(found[part]) for part in PARTS}


def memory_of_parts(subject: Subject) -> tuple[Split, int]:
    """Measure the peak of each part.

    Args:
        subject: What trains.

    Returns:
        Bytes of each part beside what there was before it, empty where the device can't tell;
        and bytes of the optimizer's state beside momentum.
    """
    if subject.device.type == "cpu":
        return on_cpu(subject)
    meter = DeviceMemory(subject.device)
    subject.prepare()
    with taken_apart(subject.build, meter) as optimizer:
        for step in range(2 * REFRESH):
            if step == REFRESH:
                meter.peaks.clear()
            subject.step(optimizer)
    synchronize(subject.device)
    return dict(meter.peaks), state_of(optimizer)[1]


class DeviceMemory:
    """The peak of each part by the allocator of a CUDA device; nothing on another.

    Args:
        device: The device.

    Attributes:
        peaks: Bytes by part.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peaks: Split = {}

    def part(self, name: str) -> AbstractContextManager[None]:
        """Count the body to a part; the parts that hold others are passed over."""
        if name in PARTS and self.device.type == "cuda":
            return self._watch(name)
        return nullcontext()

    @contextmanager
    def _watch(self, name: str) -> Iterator[None]:
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        yield
        taken = torch.cuda.max_memory_allocated(self.device) - before
        self.peaks[name] = max(self.peaks.get(name, 0.0), taken)


class ProfiledMemory:
    """Marks the parts in a profile."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Count the body to a part."""
        return record_function(PREFIX + name)


PREFIX = "part of a step: "


def on_cpu(subject: Subject) -> tuple[Split, int]:
    """Find the peaks in what the profiler records of every allocation."""
    with memory_profile() as record:
        subject.prepare()
        with taken_apart(subject.build, ProfiledMemory()) as optimizer:
            for _ in range(2 * REFRESH):
                subject.step(optimizer)
    changes = memory_changes(record)
    spans = [
        (of.name().removeprefix(PREFIX), of.start_ns(), of.end_ns())
        for of in raw_events(record)
        if of.name().startswith(PREFIX)
    ]
    peaks: Split = {}
    for name, start, end in spans:
        taken = peak(change for when, change in changes if start <= when <= end)
        peaks[name] = max(peaks.get(name, 0.0), taken)
    return {part: peaks[part] for part in PARTS}, state_of(optimizer)[1]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Fit the exponent of a power law over the upper half of the sizes, on a logarithmic scale.

    Args:
        sizes: Ascending, positive.
        values: One for each; those that are not positive are left out.

    Returns:
        The slope of the least-squares line through the logarithms, or ``None`` if there are
        fewer than two points.
    """
    points = [
        (math.log(size), math.log(value))
        for size, value in zip(sizes, values, strict=True)
        if value > 0 and size**2 >= sizes[0] * sizes[-1]
    ]
    if len(points) < 2:
        return None
    centre = sum(x for x, _ in points) / len(points)
    spread = sum((x - centre) ** 2 for x, _ in points)
    return sum((x - centre) * y for x, y in points) / spread


def describe(point: Point) -> str:
    """Say in a line what was measured."""
    times = ", ".join(f"{part} {1000 * point.seconds[part]:.2f} ms" for part in PARTS)
    title = baselines.find(point.optimizer).title
    rank = f", rank {point.rank}" if has_rank(point.optimizer) else ""
    return f"{title}, d = {point.dim}{rank}: {times}"
