"""The results of ``nysact bench`` as text and data, beside the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from math import isfinite
from typing import Any, NamedTuple

from nysact.experiments.bench.candidate import KINDS
from nysact.experiments.bench.measure import ModelResult, Quartiles, Result
from nysact.experiments.bench.profiled import MIB, PHASES
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
    **{"kfac": "KFAC", "eva": "Eva", "foof": "FOOF"},
    **{"nysact-gaussian": "NysAct-G", "nysact-columns": "NysAct-S"},
}
# The line that a variant of NysAct stands beside.
NEAREST: Mapping[str, str] = {
    **{"nysact": "nysact-columns", "released-columns": "nysact-columns"},
    "released-gaussian": "nysact-gaussian",
}
NOTHING = "–"
Row = dict[str, str]  # cells by heading


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


def report(models: Sequence[ModelResult], environment: Mapping[str, Any]) -> str:
    """Write all tables."""
    versions = f"torch {environment['packages']['torch']}"
    parts = [f"{versions}, {environment['device_name']}, {environment['threads']} thread(s)"]
    for model in models:
        parts += [f"### {model.workload.describe()}", introduction(model)]
        parts += [table([times(of) for of in model.results])]
        parts += [table([kinds(of) for of in model.results[1:]])]
        parts += [table(phases(model.results)), table(memory(model.results)), losses(model.results)]
    rows = [row for model in models for row in paper_rows(model)]
    parts += ["### Beside the paper's tables 3 and 6" if rows else "", table(rows)]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(rows: Sequence[Row]) -> str:
    """Lay out rows that have the same headings; nothing if there are none."""
    return markdown(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def introduction(of: ModelResult) -> str:
    """Say how much was measured."""
    steps = f"{of.cycles} cycle(s) of {of.cycle} steps after {of.warm_up} to warm up"
    took = f"took {duration(of.seconds)}, estimated {duration(of.estimated_seconds)}"
    return f"{of.parameters:,} parameters; {steps}; {took}."


def times(of: Result) -> Row:
    """Lay out the times of all steps of one optimizer."""
    found = of.times
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
    known = of.times.kinds.items()
    cells: Row = {kind: f"{m.ratio:.3f} {between(m.quartiles)}, {m.steps}" for kind, m in known}
    name = {"ratio to SGD (quartiles), number": of.candidate.title}
    return {**name, **dict.fromkeys(KINDS, NOTHING), **cells}


def phases(results: Sequence[Result]) -> list[Row]:
    """Lay out the phases of a step."""
    measured = {of.candidate.title: of.phases for of in results if of.phases}
    known = [phase for phase in PHASES if any(phase in found for found in measured.values())]
    return [
        {
            "mean over a cycle, ms": title,
            **{of: milliseconds(found[of]) if of in found else NOTHING for of in known},
            "all": milliseconds(sum(found.values())),
        }
        for title, found in measured.items()
    ]


def memory(results: Sequence[Result]) -> list[Row]:
    """Lay out the memory."""
    sgd = results[0].memory
    return [
        {
            "memory, MiB": of.candidate.title,
            "peak of tensors": mebibytes(of.memory.allocated),
            "/ SGD": ratio(of.memory.allocated, sgd.allocated),
            "peak reserved": mebibytes(of.memory.reserved),
            "reserved / SGD": ratio(of.memory.reserved, sgd.reserved),
            "optimizer state": mebibytes(of.memory.state),
            "beside momentum": mebibytes(of.memory.beside_momentum),
        }
        for of in results
        if of.memory and sgd
    ]


def losses(results: Sequence[Result]) -> str:
    """Warn of losses that are not finite."""
    lost = [of.candidate.title for of in results if not isfinite(of.loss)]
    return f"The loss of {', '.join(lost)} is not finite: take a smaller `lr`." if lost else ""


def paper_rows(model: ModelResult) -> list[Row]:
    """Compare one model: the paper's own lines first, then what stands beside one of them."""
    name, (sgd, *others) = model.workload.model, model.results
    measured = {of.candidate.name: of for of in others}
    rows = []
    for optimizer in dict.fromkeys([*lines(name), *measured]):
        theirs, of = reported(name, optimizer), measured.get(optimizer)
        if theirs:
            title = of.candidate.title if of else optimizer
            rows.append(
                {
                    "relative to SGD": f"{name} (table {COLUMNS[name][0]}), {title}",
                    "time, paper": f"{theirs.time:.2f}",
                    "time, here": f"{of.times.composed:.2f}" if of else NOTHING,
                    "memory, paper": f"{theirs.memory:.2f}",
                    "memory, here": ratio(peak_of(of), peak_of(sgd)),
                }
            )
    return rows


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


def between(quartiles: Quartiles) -> str:
    """Write quartiles."""
    return "({:.3f} to {:.3f})".format(*quartiles)


def as_data(model: ModelResult) -> dict[str, Any]:
    """Turn the results on one model into data for JSON, its optimizers by name."""
    work, results = vars(model.workload), model.results
    return {
        **work,
        "sample_shape": list(model.workload.sample_shape()),
        "device": str(model.workload.device),
        **{k: value for k, value in vars(model).items() if k not in ("workload", "results")},
        "optimizers": {of.candidate.name: result_data(work["model"], of) for of in results},
    }


def result_data(model: str, result: Result) -> dict[str, Any]:
    """Turn the measurements of one optimizer into data for JSON."""
    candidate, paper = result.candidate, reported(model, result.candidate.name)
    return {
        **{"title": candidate.title, "settings": candidate.settings},
        **{name: value for name, value in asdict(result).items() if name != "candidate"},
        "paper": None if paper is None else paper._asdict(),
    }
