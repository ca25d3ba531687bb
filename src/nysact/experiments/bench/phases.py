"""Where a step's time goes: the phases that the library labels for the profiler.

They are measured in a pass of their own, which the profiler slows down, and not while steps are
timed.
"""

import time
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch.profiler import profile

from nysact.experiments.bench.candidate import Candidate
from nysact.experiments.bench.profiles import own_times, profiler, spans
from nysact.experiments.bench.schedule import KINDS, Kind
from nysact.experiments.bench.workload import STEP, Training, Workload
from nysact.experiments.devices import synchronize

Phases = dict[str, float]  # seconds by phase

EVALUATION, REST = "forward and backward", "rest of step"
PHASES = (EVALUATION, "capture", "reduce", "refresh", "apply", "update", REST)
LABEL = "nysact."  # and the name of the phase

# Every kind of step comes twice or more in this many, the first of all left out; in five steps
# it comes once, which has to do where they take longer than this, in seconds.
STATISTICS, REFRESH, STEPS, PATIENCE = 2, 4, 9, 30.0


def phase_of(label: str) -> str | None:
    """Name the phase that a label belongs to, ``None`` for none of ours."""
    if label.startswith(LABEL) and label.removeprefix(LABEL) in PHASES:
        return label.removeprefix(LABEL)
    if label.startswith("Optimizer.step"):
        return REST
    return EVALUATION if label.startswith("bench.") else None


def read_phases(record: profile, device: torch.device) -> list[Phases]:
    """Give the phases of each step in a profile; together they are the whole step."""
    steps: list[Phases] = []
    known = [span for span in spans(record, device) if phase_of(span.name)]
    for span, seconds in own_times(known):
        if span.name == STEP:
            steps.append({})
        phase = phase_of(span.name)
        if steps and phase:
            steps[-1][phase] = steps[-1].get(phase, 0.0) + seconds
    return steps


def measure_phases(workload: Workload, candidate: Candidate) -> dict[Kind, Phases]:
    """Measure the median of each phase by kind of step, for the kinds that the optimizer has."""
    # A few steps suffice, since the costly ones are made to come soon.
    short = candidate.with_intervals(STATISTICS, REFRESH)
    model = workload.build()
    training = Training(workload, model, short.build(model))
    training.step()  # pays for memory and for the choice of kernels
    started = time.perf_counter()
    with profiler(workload.device) as record:
        for step in range(1, STEPS):
            training.step()
            synchronize(workload.device)
            if step == REFRESH and time.perf_counter() - started > PATIENCE:
                break
    steps = read_phases(record, workload.device)
    kinds = [short.schedule.kind(step) for step in range(1, len(steps) + 1)]
    return {
        kind: median_phases([of for of, its in zip(steps, kinds, strict=True) if its == kind])
        for kind in KINDS
        if kind in kinds
    }


def median_phases(steps: Sequence[Phases]) -> Phases:
    """Take the median of each phase over several steps; one that a step lacks took no time."""
    medians = pd.DataFrame(steps).fillna(0.0).median()
    return {phase: float(medians[phase]) for phase in PHASES if phase in medians}


def over_a_cycle(kinds: Mapping[Kind, Phases], candidate: Candidate) -> Phases:
    """Average the phases over a cycle, by how often the candidate takes each kind of step."""
    counts = candidate.schedule.counts()
    number = sum(counts[kind] for kind in kinds)
    return {
        phase: sum(counts[kind] * of.get(phase, 0.0) for kind, of in kinds.items()) / number
        for phase in PHASES
        if any(phase in of for of in kinds.values())
    }
