"""The measurement that ``nysact bench`` makes, from the user's options to the results."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nysact.experiments.bench.clock import Clock, make_clock
from nysact.experiments.bench.contender import REFERENCE, Contender, contenders
from nysact.experiments.bench.figures import Figures, figures
from nysact.experiments.bench.memory import Memory, measure_memory, release
from nysact.experiments.bench.race import Race
from nysact.experiments.bench.schedule import Kind, cycle
from nysact.experiments.bench.split import Split, over_a_cycle, split
from nysact.experiments.bench.workload import Workload, default_scale
from nysact.experiments.errors import ExperimentError

Say = Callable[[str], None]

# Rounds before the estimate: one with statistics and refresh, two without.
TRIAL = 3


@dataclass(frozen=True)
class BenchOptions:
    """What the user can choose; ``None`` stands for the default of the model and device.

    Args:
        models: Names of the models.
        optimizers: Names of the optimizers; SGD takes part in any case.
        device: Where to train.
        model_options: Options of every model.
        batch_size: Samples a batch.
        image_size: Pixels on each side of an image.
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        channels_last: Whether the models are in this memory format.
        rank: Rank of every optimizer that has one.
        cov_interval: Steps between statistics of every optimizer that has them.
        inv_interval: Steps between refreshes of every optimizer that has them.
        settings: Settings of single optimizers, by name; they win.
        cycles: Cycles of costly steps that are timed.
        warm_up: Steps before, that aren't.
        clock: See :func:`~.clock.make_clock`.
        split: Whether to take the steps apart.
        memory: Whether to measure memory.
        seed: Seed of weights and batch.

    Raises:
        ExperimentError: If a number is out of range.
    """

    models: Sequence[str]
    optimizers: Sequence[str]
    device: torch.device
    model_options: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    image_size: int | None = None
    precision: str = "fp32"
    channels_last: bool = False
    rank: int | None = None
    cov_interval: int | None = None
    inv_interval: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cycles: int | None = None
    warm_up: int = 10
    clock: str = "auto"
    split: bool = True
    memory: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.warm_up < TRIAL:
            raise ExperimentError(
                f"--warm-up {self.warm_up}: expected {TRIAL} steps or more, from which the time "
                "that is left is estimated"
            )

    def shared(self) -> dict[str, Any]:
        """Give the settings of every optimizer that has them."""
        names = ("rank", "cov_interval", "inv_interval")
        chosen = {name: getattr(self, name) for name in names}
        return {name: value for name, value in chosen.items() if value is not None}

    def workload(self, model: str) -> Workload:
        """Settle what is trained.

        Args:
            model: Name of the model.

        Returns:
            The workload.
        """
        scale = default_scale(model, self.device)
        options = {**scale.options, **self.model_options}
        if self.image_size is not None:
            options["image_size"] = self.image_size
        return Workload(
            model,
            options,
            self.batch_size or scale.batch_size,
            self.device,
            self.precision,
            self.channels_last,
            self.seed,
        )


@dataclass(frozen=True)
class Result:
    """What was measured of one optimizer on one model.

    Args:
        contender: The optimizer.
        seconds: Time of each step, the warm-up left out.
        figures: What they say.
        loss: Loss before the last step.
        kinds: Parts of each kind of step, ``None`` where not measured.
        parts: The same as a mean over a cycle.
        memory: Memory, ``None`` where not measured.
    """

    contender: Contender
    seconds: list[float]
    figures: Figures
    loss: float
    kinds: dict[Kind, Split] | None
    parts: Split | None
    memory: Memory | None


@dataclass(frozen=True)
class ModelResult:
    """What was measured on one model.

    Args:
        workload: What was trained.
        parameters: Number of the model's parameters.
        cycle: Steps in a cycle.
        cycles: Cycles timed.
        warm_up: Steps left out before.
        estimated: Seconds that all of it was to take, by the first steps.
        took: Seconds that it took.
        results: The optimizers', the reference first.
    """

    workload: Workload
    parameters: int
    cycle: int
    cycles: int
    warm_up: int
    estimated: float
    took: float
    results: list[Result]


def run_bench(options: BenchOptions, say: Say) -> list[ModelResult]:
    """Measure all optimizers on all models, one model after the other.

    Args:
        options: What the user chose.
        say: Shows a line of progress.

    Returns:
        One result for each model.
    """
    chosen = contenders(options.optimizers, options.shared(), options.settings)
    clock = make_clock(options.clock, options.device)
    workloads = [options.workload(model) for model in options.models]
    return [measure(workload, chosen, clock, options, say) for workload in workloads]


def measure(
    workload: Workload,
    chosen: Sequence[Contender],
    clock: Clock,
    options: BenchOptions,
    say: Say,
) -> ModelResult:
    """Measure all optimizers on one model.

    Args:
        workload: What is trained.
        chosen: The optimizers, the reference first.
        clock: Times the steps.
        options: What the user chose.
        say: Shows a line of progress.

    Returns:
        The result.
    """
    start = time.perf_counter()
    width = cycle(of.schedule for of in chosen)
    # Optimizers without costly steps have cycles of one step: as many as make up NysAct's.
    width = width if width > 1 else 50
    cycles = options.cycles or default_scale(workload.model, workload.device).cycles
    say(f"{describe(workload)}: {', '.join(of.baseline.title for of in chosen)}")
    release()
    race = Race(workload, chosen, clock)
    parameters = sum(p.numel() for p in race.trainings[REFERENCE].model.parameters())
    race.run(TRIAL)
    left = options.warm_up - TRIAL + cycles * width
    estimated = estimate(race, chosen, left, cycles, options) + time.perf_counter() - start
    say(f"{cycles} cycle(s) of {width} steps after {options.warm_up} to warm up, each with every "
        f"optimizer in turn: about {in_minutes(estimated)} in all")  # fmt: skip
    race.run(left)
    times, losses = race.seconds(options.warm_up), race.losses()
    del race
    results = []
    for of in chosen:
        kinds, memory = apart(workload, of, clock, options, say)
        found = figures(times[of.name], times[REFERENCE], of.schedule,
                        first=options.warm_up, cycle=width)  # fmt: skip
        parts = None if kinds is None else over_a_cycle(kinds, of)
        results.append(
            Result(of, times[of.name], found, losses[of.name], kinds, parts, memory)
        )  # fmt: skip
    took = time.perf_counter() - start
    say(f"took {in_minutes(took)}")
    return ModelResult(
        workload, parameters, width, cycles, options.warm_up, estimated, took, results
    )


def apart(
    workload: Workload, contender: Contender, clock: Clock, options: BenchOptions, say: Say
) -> tuple[dict[Kind, Split] | None, Memory | None]:
    """Measure what the race can't: one optimizer's parts and memory, each in a pass of its own."""
    kinds = memory = None
    if options.split:
        say(f"taking the steps of {contender.baseline.title} apart")
        kinds = split(workload, contender, clock)
        release()
    if options.memory:
        say(f"measuring the memory of {contender.baseline.title}")
        memory = measure_memory(workload, contender)
        release()
    return kinds, memory


def estimate(
    race: Race, chosen: Sequence[Contender], left: int, cycles: int, options: BenchOptions
) -> float:
    """Foretell the seconds that are left from the first steps.

    The first step pays for memory too, and the steps with statistics are taken to be plain.

    Args:
        race: The race after its trial.
        chosen: The optimizers.
        left: Rounds that are left.
        cycles: Cycles that are timed.
        options: What the user chose.

    Returns:
        The seconds.
    """
    # In steps: taken apart, three of nine refresh; for memory both do, seen by a profiler, which
    # makes them longer and takes a second and a half of its own.
    plain_steps = left + 9 * options.split + 6 * options.memory
    costly_steps = cycles + 3 * options.split + 2 * options.memory
    seconds = race.seconds()
    total = 1.5 * options.memory * len(chosen)
    for contender in chosen:
        first, *others = seconds[contender.name]
        plain = min(others)
        total += plain_steps * plain
        if contender.schedule.refresh:
            total += costly_steps * max(0.0, first - plain)
    return total


def describe(workload: Workload) -> str:
    """Name the model, its batch and where it trains."""
    shape = " x ".join(map(str, workload.sample_shape()))
    return (
        f"{workload.model}, batch {workload.batch_size} of {shape}, {workload.device}, "
        f"{workload.precision}"
    )


def in_minutes(seconds: float) -> str:
    """Write a duration so that it can be taken in at a glance."""
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.1f} min"
