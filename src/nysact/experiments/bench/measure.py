"""The measurements of ``nysact bench``, from the user's options to the results."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from nysact.experiments.assignments import parse_assignments
from nysact.experiments.bench.candidate import (
    REFERENCE,
    Candidate,
    Kind,
    candidates,
    cycle,
    parse_settings,
)
from nysact.experiments.bench.interleaved import Figures, Interleaved, figures
from nysact.experiments.bench.memory import Memory, measure_memory, release
from nysact.experiments.bench.options import TRIAL, BenchOptions
from nysact.experiments.bench.phases import Phases, measure_phases, over_a_cycle
from nysact.experiments.bench.workload import Workload, default_scale
from nysact.experiments.clock import WINDOW, Clock
from nysact.experiments.formatting import duration

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """The measurements of one optimizer on one model; ``None`` stands for those left out."""

    candidate: Candidate
    seconds: list[float]  # of each step, the warm-up left out
    figures: Figures
    loss: float  # before the last step
    kinds: Mapping[Kind, Phases] | None  # phases of each kind of step
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
    estimated: float  # seconds for all of it, estimated from the first steps
    took: float  # seconds
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
    given = parse_assignments(options.option or (), "--option", "classes=100")
    if options.image_size is not None:
        given["image_size"] = options.image_size
    return Workload(
        model,
        {**scale.options, **given},
        options.batch_size or scale.batch_size,
        device,
        options.precision,
        options.channels_last,
        options.seed,
    )


def measure(
    workload: Workload,
    chosen: Sequence[Candidate],
    clock: Clock,
    options: BenchOptions,
    say: Say,
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
    return ModelResult(
        workload, parameters, width, cycles, options.warm_up, estimated, took, results
    )


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
    mine, schedule = seconds[candidate.name], candidate.schedule
    step_kinds = [schedule.kind(step) for step in seconds.index]
    found = figures(mine, seconds[REFERENCE], step_kinds, width)
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
