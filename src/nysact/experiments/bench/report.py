"""The results of ``nysact bench`` as text and data, beside the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from math import isfinite
from typing import Any, NamedTuple

from nysact.experiments.bench.candidate import KINDS
from nysact.experiments.bench.measure import ModelResult, Result
from nysact.experiments.bench.phases import PHASES
from nysact.experiments.formatting import duration, markdown
from nysact.experiments.recipes import recipe


class Ratio(NamedTuple):
    """Relative to SGD: time of training, and peak memory."""

    time: float
    memory: float


# Where the recipes hold the numbers: the table and column of a model, the row of an optimizer.
COLUMNS: Mapping[str, tuple[int, str]] = {
    "resnet32": (3, "ResNet-32, 100 epochs"),
    "resnet110": (3, "ResNet-110, 100 epochs"),
    "densenet121-cifar": (3, "DenseNet-121, 100 epochs"),
    "resnet50": (6, "ResNet-50, 100 epochs"),
    "deit-s": (6, "DeiT-S, 100 epochs"),
}
ROWS: Mapping[str, str] = {
    "kfac": "KFAC",
    "eva": "Eva",
    "foof": "FOOF",
    "nysact-gaussian": "NysAct-G",
    "nysact-columns": "NysAct-S",
}
# The line that a variant of NysAct stands beside.
NEAREST: Mapping[str, str] = {
    "nysact": "nysact-columns",
    "released-columns": "nysact-columns",
    "released-gaussian": "nysact-gaussian",
}


@cache
def lines(model: str) -> Mapping[str, Ratio]:
    """Return what the paper reports of a model, by optimizer."""
    if model not in COLUMNS:
        return {}
    table, column = COLUMNS[model]
    rows = recipe.load(f"table{table}").paper
    found = {name: rows.get(row, {}).get(column) for name, row in ROWS.items()}
    return {name: Ratio(*map(float, str(of).split(","))) for name, of in found.items() if of}


def reported(model: str, optimizer: str) -> Ratio | None:
    """Look up what the paper reports of an optimizer, or of the variant that it is nearest to."""
    return lines(model).get(NEAREST.get(optimizer, optimizer))


NOTHING = "–"
MIB = 2**20
Row = dict[str, str]  # cells by heading


def report(models: Sequence[ModelResult], environment: Mapping[str, Any]) -> str:
    """Write all tables."""
    versions = f"torch {environment['packages']['torch']}"
    parts = [f"{versions}, {environment['device_name']}, {environment['threads']} thread(s)"]
    for model in models:
        parts += [f"### {model.workload.describe()}", introduction(model)]
        parts += [table([times(of) for of in model.results])]
        parts += [table([kinds(of) for of in model.results[1:]])]
        parts += [phase_table(model), memory_table(model), losses(model)]
    return "\n\n".join(part for part in [*parts, paper_table(models)] if part) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Lay out rows that have the same headings; nothing if there are none."""
    return markdown(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def introduction(of: ModelResult) -> str:
    """Say how much was measured."""
    steps = f"{of.cycles} cycle(s) of {of.cycle} steps after {of.warm_up} to warm up"
    took = f"took {duration(of.took)}, estimated {duration(of.estimated)}"
    return f"{of.parameters:,} parameters; {steps}; {took}."


def times(of: Result) -> Row:
    """Lay out the times of all steps of one optimizer."""
    found = of.figures
    return {
        "step": of.candidate.title,
        "settings": of.candidate.describe() or NOTHING,
        "median, ms": milliseconds(found.median),
        "p99, ms": milliseconds(found.p99),
        "p99 / median": f"{found.tail:.2f}",
        "all steps / SGD": f"{found.total:.3f}",
        "by cycle (quartiles)": f"{found.window_median:.3f} {between(found.window_quartiles)}",
        "composed": f"{found.composed:.3f}",
    }


def kinds(of: Result) -> Row:
    """Lay out the ratios of each kind of step of one optimizer."""
    cells: Row = dict.fromkeys(KINDS, NOTHING)
    for kind, mine in of.figures.kinds.items():
        cells[kind] = f"{mine.ratio:.3f} {between(mine.quartiles)}, {mine.steps}"
    return {"ratio to SGD (quartiles), number": of.candidate.title, **cells}


def phase_table(model: ModelResult) -> str:
    """Lay out the phases of a step."""
    measured = [(of.candidate.title, of.phases) for of in model.results if of.phases]
    columns = [phase for phase in PHASES if any(phase in phases for _, phases in measured)]
    rows = []
    for title, phases in measured:
        cells = {of: milliseconds(phases[of]) if of in phases else NOTHING for of in columns}
        total = milliseconds(sum(phases.values()))
        rows.append({"mean over a cycle, ms": title, **cells, "all": total})
    return table(rows)


def memory_table(model: ModelResult) -> str:
    """Lay out the memory."""
    reference = model.results[0].memory
    measured = [(of.candidate.title, of.memory) for of in model.results if of.memory]
    if reference is None:
        return ""
    return table(
        [
            {
                "memory, MiB": title,
                "peak of tensors": mebibytes(memory.allocated),
                "/ SGD": ratio(memory.allocated, reference.allocated),
                "peak reserved": mebibytes(memory.reserved),
                "reserved / SGD": ratio(memory.reserved, reference.reserved),
                "optimizer state": mebibytes(memory.state),
                "beside momentum": mebibytes(memory.beside_momentum),
            }
            for title, memory in measured
        ]
    )


def losses(model: ModelResult) -> str:
    """Warn of losses that are not finite."""
    lost = [of.candidate.title for of in model.results if not isfinite(of.loss)]
    return f"The loss of {', '.join(lost)} is not finite: take a smaller `lr`." if lost else ""


def paper_table(models: Sequence[ModelResult]) -> str:
    """Lay out the paper's ratios beside ours, nothing if it has none of these models."""
    rows = [row for model in models for row in paper_rows(model)]
    return "### Beside the paper's tables 3 and 6\n\n" + table(rows) if rows else ""


def paper_rows(model: ModelResult) -> list[Row]:
    """Compare one model: the paper's own lines first, then what stands beside one of them."""
    name, (reference, *others) = model.workload.model, model.results
    measured = {of.candidate.name: of for of in others}
    found = {of: reported(name, of) for of in [*lines(name), *measured]}
    return [
        {
            "relative to SGD": f"{name} (table {COLUMNS[name][0]}), {title}",
            "time, paper": f"{theirs.time:.2f}",
            "time, here": f"{of.figures.composed:.2f}" if of else NOTHING,
            "memory, paper": f"{theirs.memory:.2f}",
            "memory, here": ratio(peak_of(of), peak_of(reference)),
        }
        for optimizer, theirs in found.items()
        for of in [measured.get(optimizer)]
        for title in [of.candidate.title if of else optimizer]
        if theirs
    ]


def peak_of(result: Result | None) -> int | None:
    """Return the peak of memory, if it was measured."""
    return result.memory.allocated if result and result.memory else None


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


def as_data(model: ModelResult) -> dict[str, Any]:
    """Turn the results on one model into data for JSON, its optimizers by name."""
    work = model.workload
    return {
        **{name: value for name, value in vars(work).items() if name != "device"},
        "sample_shape": list(work.sample_shape()),
        "device": str(work.device),
        "parameters": model.parameters,
        "cycle": model.cycle,
        "cycles": model.cycles,
        "warm_up": model.warm_up,
        "estimated_seconds": model.estimated,
        "seconds": model.took,
        "optimizers": {of.candidate.name: result_data(work.model, of) for of in model.results},
    }


def result_data(model: str, result: Result) -> dict[str, Any]:
    """Turn the measurements of one optimizer into data for JSON."""
    paper = reported(model, result.candidate.name)
    return {
        "title": result.candidate.title,
        "settings": result.candidate.settings,
        "times": asdict(result.figures),
        "phases": result.phases,
        "phases_by_kind": result.kinds,
        "memory": None if result.memory is None else asdict(result.memory),
        "paper": None if paper is None else paper._asdict(),
        "loss": result.loss,
        "step_seconds": result.seconds,
    }
