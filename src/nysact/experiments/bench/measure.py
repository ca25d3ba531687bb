"""The measurements of ``nysact bench``: steps of all optimizers in turns, with their times."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from nysact.experiments.bench.candidate import (
    KINDS,
    REFERENCE,
    Candidate,
    Kind,
    candidates,
    cycle,
    parse_settings,
)
from nysact.experiments.bench.options import TRIAL, BenchOptions
from nysact.experiments.bench.profiled import (
    Memory,
    Phases,
    measure_memory,
    measure_phases,
    over_a_cycle,
    release,
)
from nysact.experiments.bench.workload import Training, Workload, default_scale
from nysact.experiments.clock import WINDOW, Clock
from nysact.experiments.config.assignments import parse_assignments
from nysact.experiments.devices import synchronize
from nysact.experiments.formatting import duration

Quartiles = tuple[float, float]


@dataclass(frozen=True)
class KindFigures:
    """Steps of one kind."""

    steps: int
    median: float  # seconds
    ratio: float  # median ratio to the reference's step of the same round
    quartiles: Quartiles  # of that ratio


@dataclass(frozen=True)
class Figures:
    """All steps of one optimizer."""

    steps: int
    mean: float  # seconds
    median: float
    p99: float  # interpolated
    tail: float  # p99 / median
    total: float  # ratio of the sums to the reference's
    windows: list[float]  # the same for each whole cycle
    window_median: float
    window_quartiles: Quartiles
    # Mean over a cycle of the median ratio of each step's kind; moments in which other programs
    # disturb the measurement hardly move it.
    composed: float
    kinds: dict[Kind, KindFigures]


def figures(seconds: pd.Series, reference: pd.Series, kinds: Sequence[Kind], cycle: int) -> Figures:
    """Sum up the times of one optimizer's steps, whole cycles of them, and their kinds."""
    if not len(seconds) or len(seconds) % cycle or len(seconds) != len(reference):
        raise ValueError(
            f"{len(seconds)} steps and {len(reference)} of the reference: expected equal numbers, "
            f"in whole cycles of {cycle}"
        )
    window = np.arange(len(seconds)) // cycle
    windows = seconds.groupby(window).sum() / reference.groupby(window).sum()
    steps = pd.DataFrame({"kind": list(kinds), "seconds": seconds, "ratio": seconds / reference})
    by_kind = {
        kind: KindFigures(len(of), of.seconds.median(), of.ratio.median(), quartiles(of.ratio))
        for kind in KINDS
        if len(of := steps[steps.kind == kind])
    }
    median, p99 = seconds.quantile([0.5, 0.99])
    return Figures(
        steps=len(seconds),
        mean=seconds.mean(),
        median=median,
        p99=p99,
        tail=p99 / median,
        total=seconds.sum() / reference.sum(),
        windows=windows.tolist(),
        window_median=windows.median(),
        window_quartiles=quartiles(windows),
        composed=sum(of.steps * of.ratio for of in by_kind.values()) / len(seconds),
        kinds=by_kind,
    )


def quartiles(values: pd.Series) -> Quartiles:
    """Return the lower and the upper quartile, interpolated."""
    low, high = values.quantile([0.25, 0.75])
    return low, high


class Interleaved:
    """One training for each candidate, one step of each a round, in a random order.

    A slow moment of the machine slows all of them. The order changes every round, since the first
    finds the batch not yet in the cache, and a step depends on what the one before it left there.
    """

    def __init__(self, workload: Workload, candidates: Sequence[Candidate], clock: Clock) -> None:
        self.trainings: dict[str, Training] = {}
        for candidate in candidates:
            model = workload.build()
            self.trainings[candidate.name] = Training(workload, model, candidate.build(model))
        self._clock = clock
        self._order = random.Random(workload.seed)
        self._marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in self.trainings}

    def run(self, rounds: int) -> None:
        """Let every optimizer take some steps."""
        for _ in range(rounds):
            for name in self.next_order():
                # The device's unfinished work for another optimizer must not be counted here.
                synchronize(self._clock.device)
                start = self._clock.mark()
                self.trainings[name].step()
                self._marks[name].append((start, self._clock.mark()))

    def next_order(self) -> list[str]:
        """Draw the order of a round."""
        return self._order.sample(list(self.trainings), len(self.trainings))

    def seconds(self) -> pd.DataFrame:
        """Return the time of each step: a row a round, a column an optimizer."""
        marks = pd.DataFrame(self._marks)
        return marks.map(lambda pair: self._clock.between(*pair))

    def losses(self) -> dict[str, float]:
        """Return the last loss of each optimizer."""
        return {name: float(of.loss) for name, of in self.trainings.items() if of.loss is not None}


Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The measurements of one optimizer on one model; ``None`` stands for those left out."""

    candidate: Candidate
    step_seconds: list[float]  # the warm-up left out
    times: Figures
    loss: float  # before the last step
    phases_by_kind: Mapping[Kind, Phases] | None
    phases: Phases | None  # the same as a mean over a cycle
    memory: Memory | None


@dataclass(frozen=True)
class ModelResult:
    """The measurements on one model."""

    workload: Workload
    parameters: int
    cycle: int  # steps
    cycles: int  # timed
    warm_up: int  # steps left out before
    estimated_seconds: float  # for all of it, estimated from the first steps
    seconds: float
    results: list[Result]  # the reference first


def measure_models(options: BenchOptions, device: torch.device, say: Say) -> list[ModelResult]:
    """Measure all optimizers on all models, one model after the other."""
    settings = parse_settings(options.settings or ())
    chosen = candidates(options.optimizer_names, options.shared, settings)
    clock = Clock(device, options.clock)
    workloads = [make_workload(options, model, device) for model in options.models or ["resnet32"]]
    return [measure(workload, chosen, clock, options, say) for workload in workloads]


def make_workload(options: BenchOptions, model: str, device: torch.device) -> Workload:
    """Complete the user's choices by the default scale of a model."""
    scale = default_scale(model, device)
    given = {**scale.options, **parse_assignments(options.option or (), "--option", "classes=100")}
    if options.image_size is not None:
        given["image_size"] = options.image_size
    layout, batch_size = options.channels_last, options.batch_size or scale.batch_size
    return Workload(model, given, batch_size, device, options.precision, layout, options.seed)


def measure(
    workload: Workload, chosen: Sequence[Candidate], clock: Clock, options: BenchOptions, say: Say
) -> ModelResult:
    """Measure all optimizers on one model."""
    start = time.perf_counter()
    # Optimizers without costly steps have cycles of one step: as many as make up NysAct's.
    width = cycle(of.schedule for of in chosen)
    width = width if width > 1 else WINDOW
    cycles = options.cycles or default_scale(workload.model, workload.device).cycles
    say(f"{workload.describe()}: {', '.join(of.title for of in chosen)}")
    release()
    timing = Interleaved(workload, chosen, clock)
    parameters = sum(p.numel() for p in timing.trainings[REFERENCE].model.parameters())
    timing.run(TRIAL)
    left = options.warm_up - TRIAL + cycles * width
    trial = estimate(timing.seconds(), chosen, left, cycles, options)
    estimated = trial + time.perf_counter() - start
    say(
        f"{cycles} cycle(s) of {width} steps after {options.warm_up} to warm up, each with every "
        f"optimizer in turn: about {duration(estimated)} in all"
    )
    timing.run(left)
    seconds, losses = timing.seconds()[options.warm_up :], timing.losses()
    del timing
    results = [result(workload, of, seconds, width, losses[of.name], options, say) for of in chosen]
    took = time.perf_counter() - start
    say(f"took {duration(took)}")
    of_all = (parameters, width, cycles, options.warm_up, estimated, took)
    return ModelResult(workload, *of_all, results)


def result(
    workload: Workload,
    candidate: Candidate,
    seconds: pd.DataFrame,
    width: int,
    loss: float,
    options: BenchOptions,
    say: Say,
) -> Result:
    """Sum up one optimizer's times; measure its phases and memory, each in a pass of its own."""
    mine, step_kinds = seconds[candidate.name], map(candidate.schedule.kind, seconds.index)
    found = figures(mine, seconds[REFERENCE], list(step_kinds), width)
    kinds = phases = memory = None
    if options.split:
        say(f"measuring the phases of {candidate.title}")
        kinds = measure_phases(workload, candidate)
        phases = over_a_cycle(kinds, candidate)
        release()
    if options.memory:
        say(f"measuring the memory of {candidate.title}")
        memory = measure_memory(workload, candidate)
        release()
    return Result(candidate, mine.tolist(), found, loss, kinds, phases, memory)


def estimate(
    seconds: pd.DataFrame,
    chosen: Sequence[Candidate],
    left: int,
    cycles: int,
    options: BenchOptions,
) -> float:
    """Estimate the remaining seconds from the first steps, the very first with a refresh."""
    # In steps: two of the nine for the phases refresh; for memory both do. The profiler makes both
    # longer, and takes a second and a half of its own for memory.
    plain_steps = left + 9 * options.split + 6 * options.memory
    costly_steps = cycles + 3 * options.split + 2 * options.memory
    plain = seconds[1:].min()
    refreshing = [of.name for of in chosen if of.schedule.refresh]
    extra = (seconds.iloc[0] - plain)[refreshing].clip(lower=0)
    own = 1.5 * options.memory * len(chosen)
    return float(plain_steps * plain.sum() + costly_steps * extra.sum() + own)
