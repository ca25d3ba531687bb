"""The results as tables in Markdown, and as data."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from nysact.experiments.bench.bench import ModelResult, Result, describe, in_minutes
from nysact.experiments.bench.figures import Figures
from nysact.experiments.bench.paper import RATIOS, TABLES, reported
from nysact.experiments.bench.schedule import KINDS, Kind
from nysact.experiments.bench.split import PARTS
from nysact.experiments.markdown import markdown

NOTHING = "–"
MIB = 2**20


def report(models: Sequence[ModelResult], environment: dict[str, Any]) -> str:
    """Write all tables.

    Args:
        models: The results.
        environment: What they were measured with.

    Returns:
        A text in Markdown.
    """
    parts = [
        f"torch {environment['torch']}, {environment['device_name']}, "
        f"{environment['threads']} thread(s)"
    ]
    for model in models:
        parts += [f"### {describe(model.workload)}", introduction(model), times(model)]
        parts += [kinds(model)]
        if model.results[0].parts is not None:
            parts += [split_table(model)]
        if model.results[0].memory is not None:
            parts += [memory_table(model)]
        parts += notes(model)
    compared = paper_table(models)
    return "\n\n".join(parts + [compared] * bool(compared)) + "\n"


def introduction(model: ModelResult) -> str:
    """Say what was counted."""
    return (
        f"{model.parameters:,} parameters; {model.cycles} cycle(s) of {model.cycle} steps after "
        f"{model.warm_up} to warm up; took {in_minutes(model.took)}, estimated "
        f"{in_minutes(model.estimated)}."
    )


def times(model: ModelResult) -> str:
    """Lay out the times of all steps."""
    rows = [
        [
            of.contender.baseline.title,
            of.contender.describe() or NOTHING,
            milliseconds(of.figures.median),
            milliseconds(of.figures.p99),
            f"{of.figures.tail:.2f}",
            f"{of.figures.total:.3f}",
            f"{of.figures.window_median:.3f} {between(of.figures.window_quartiles)}",
            f"{of.figures.composed:.3f}",
        ]
        for of in model.results
    ]
    headings = ["step", "settings", "median, ms", "p99, ms", "p99 / median"]
    headings += ["all steps / SGD", "by cycle (quartiles)", "composed"]
    return markdown(headings, rows)


def kinds(model: ModelResult) -> str:
    """Lay out the ratios of each kind of step."""
    rows = [
        [
            of.contender.baseline.title,
            *(kind_cell(of.figures, kind) for kind in KINDS),
        ]
        for of in model.results[1:]
    ]
    return markdown(["ratio to SGD (quartiles), number", *KINDS], rows)


def kind_cell(found: Figures, kind: Kind) -> str:
    """Write the ratio of one kind of step."""
    if kind not in found.kinds:
        return NOTHING
    of = found.kinds[kind]
    return f"{of.ratio:.3f} {between(of.quartiles)}, {of.steps}"


def split_table(model: ModelResult) -> str:
    """Lay out the parts of a step."""
    measured = [(of, of.parts) for of in model.results if of.parts is not None]
    columns = [part for part in PARTS if any(part in parts for _, parts in measured)]
    rows = [
        [
            of.contender.baseline.title,
            *(milliseconds(parts[part]) if part in parts else NOTHING for part in columns),
            milliseconds(sum(parts.values())),
        ]
        for of, parts in measured
    ]
    return markdown(["mean over a cycle, ms", *columns, "all"], rows)


def memory_table(model: ModelResult) -> str:
    """Lay out the memory."""
    reference = model.results[0].memory
    rows = []
    for of in model.results:
        memory = of.memory
        if memory is None or reference is None:
            continue
        rows.append(
            [
                of.contender.baseline.title,
                mebibytes(memory.allocated),
                ratio(memory.allocated, reference.allocated),
                mebibytes(memory.reserved),
                ratio(memory.reserved, reference.reserved),
                mebibytes(memory.state),
                mebibytes(memory.beside_momentum),
            ]
        )
    headings = ["memory, MiB", "peak of tensors", "/ SGD", "peak reserved", "/ SGD"]
    return markdown([*headings, "optimizer state", "beside momentum"], rows)


def notes(model: ModelResult) -> list[str]:
    """Say what should be known of the figures."""
    lost = [of.contender.baseline.title for of in model.results if not isfinite(of.loss)]
    if not lost:
        return []
    return [f"The loss of {', '.join(lost)} is not finite any more: take a smaller `lr`."]


def paper_table(models: Sequence[ModelResult]) -> str:
    """Lay out what the paper reports beside what was measured, empty if it has none of these."""
    rows = []
    for model in models:
        name = model.workload.model
        measured = {of.contender.name: of for of in model.results[1:]}
        # The paper's own lines first, then what stands beside one of them.
        for optimizer in dict.fromkeys([*RATIOS.get(name, {}), *measured]):
            row = paper_row(name, optimizer, measured.get(optimizer), model.results[0])
            rows += [row] if row else []
    if not rows:
        return ""
    headings = ["relative to SGD", "time, paper", "time, here", "memory, paper", "memory, here"]
    return "### Beside the paper's tables 3 and 6\n\n" + markdown(headings, rows)


def paper_row(
    model: str, optimizer: str, result: Result | None, reference: Result
) -> list[str] | None:
    """Write one line of the comparison, ``None`` where the paper has none."""
    theirs = reported(model, optimizer)
    if theirs is None:
        return None
    time = memory = NOTHING
    title = optimizer
    if result is not None:
        title, time = result.contender.baseline.title, f"{result.figures.composed:.2f}"
        if result.memory is not None and reference.memory is not None:
            memory = ratio(result.memory.allocated, reference.memory.allocated)
    return [
        f"{model} ({TABLES[model]}), {title}",
        f"{theirs.time:.2f}",
        time,
        f"{theirs.memory:.2f}",
        memory,
    ]


def milliseconds(seconds: float) -> str:
    """Write a time in milliseconds, to three digits or more."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def mebibytes(number: int | None) -> str:
    """Write bytes in MiB."""
    return NOTHING if number is None else f"{number / MIB:,.2f}"


def ratio(number: int | None, reference: int | None) -> str:
    """Write a ratio of bytes."""
    return f"{number / reference:.2f}" if number and reference else NOTHING


def between(quartiles: Sequence[float]) -> str:
    """Write quartiles."""
    low, high = quartiles
    return f"({low:.3f} to {high:.3f})"


def as_data(models: Sequence[ModelResult]) -> list[dict[str, Any]]:
    """Turn the results into what JSON can hold.

    Args:
        models: The results.

    Returns:
        A mapping for each model, with its optimizers by name.
    """
    return [model_data(model) for model in models]


def model_data(model: ModelResult) -> dict[str, Any]:
    """Turn the results on one model into what JSON can hold."""
    work = model.workload
    return {
        "model": work.model,
        "options": dict(work.options),
        "sample_shape": list(work.sample_shape()),
        "batch_size": work.batch_size,
        "device": str(work.device),
        "precision": work.precision,
        "channels_last": work.channels_last,
        "seed": work.seed,
        "parameters": model.parameters,
        "cycle": model.cycle,
        "cycles": model.cycles,
        "warm_up": model.warm_up,
        "estimated_seconds": model.estimated,
        "seconds": model.took,
        "optimizers": {of.contender.name: result_data(work.model, of) for of in model.results},
    }


def result_data(model: str, result: Result) -> dict[str, Any]:
    """Turn what was measured of one optimizer into what JSON can hold."""
    paper = reported(model, result.contender.name)
    return {
        "title": result.contender.baseline.title,
        "settings": result.contender.settings,
        "times": asdict(result.figures),
        "parts": result.parts,
        "parts_by_kind": result.kinds,
        "memory": None if result.memory is None else asdict(result.memory),
        "paper": None if paper is None else paper._asdict(),
        "loss": result.loss if isfinite(result.loss) else None,
        "step_seconds": result.seconds,
    }
