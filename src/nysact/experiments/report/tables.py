"""Results as tables: a metric, time and memory relative to a reference, time to a target."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from nysact.experiments.metrics import Metric
from nysact.experiments.report.results import (
    Group,
    Results,
    Sample,
    best,
    final,
    in_order,
    progress_name,
)
from nysact.experiments.report.style import label_of, numbers_first, slug, value_text
from nysact.experiments.report.table import Cell, Table, marked
from nysact.experiments.report.target import reached, value_in
from nysact.experiments.report.told_apart import Setting
from nysact.experiments.run.clock import PEAK_MEMORY
from nysact.experiments.run.store import StoredRun
from nysact.experiments.target import Target

# Row to column to the number in the paper, as it is printed there.
Paper = Mapping[str, Mapping[str, str]]

SPREAD = "Mean ± sample standard deviation over the seeds."
RANKS = "Best bold, second best underlined; cells with missing seeds (n) take no part in it."
PAPER = "In square brackets: the paper's number."
SIDE_BY_SIDE = (
    "Runs that trained side by side, as some of these may have, slow each other down: nysact bench "
    "measures time."
)


def metric_table(results: Results, metric: Metric, paper: Paper, *, at: str = "final") -> Table:
    """Make a table of a metric: rows of optimizers, columns of what is trained.

    Args:
        results: The runs.
        metric: The metric.
        paper: The paper's numbers.
        at: ``"final"`` for the last value of a run, ``"best"`` for its best.

    Returns:
        The table.
    """
    read = partial(best if at == "best" else final, metric=metric)
    rows = in_order([g.row for g in results.groups if not g.setting], results.rows)
    columns = {
        column: sample_cells(
            [results.group(row, column).sample(read) for row in rows],
            metric.digits,
            [printed(paper, row, column) for row in rows],
            higher=metric.higher,
        )
        for column in results.columns
    }
    return assembled(f"{at.capitalize()} {metric.title}", rows, columns)


def ratio_table(results: Results, reference: str, paper: Paper) -> Table:
    """Make a table of the time and the peak memory of training relative to a reference.

    Args:
        results: The runs; those of one seed and one device are compared with each other.
        reference: The row that is 1.
        paper: The paper's numbers, such as ``"1.33, 1.00"``.

    Returns:
        The table, with a column for each cost that was measured, for each of the results'.
    """
    rows = [row for row in results.rows if row != reference]
    columns = {}
    for column in results.columns:
        for index, (heading, read) in enumerate(COSTS.items()):
            unit = values_by_place(results.group(reference, column), read)
            cost = partial(relative, read=read, unit=unit)
            samples = [results.group(row, column).sample(cost) for row in rows]
            # Peak memory is measured on GPUs only.
            if any(sample.values for sample in samples):
                papers = [part_printed(paper, row, column, index) for row in rows]
                cells = sample_cells(samples, 2, papers, higher=False)
                columns[f"{column}: {heading}"] = cells
    note = (
        f"Relative to {reference} with the same seed on the same device: mean time of a training "
        "step, peak memory of the device, bytes of the optimizer's tensors."
    )
    notes = [note, *side_by_side(results)]
    return assembled(f"Costs relative to {reference}", rows, columns, notes=notes)


def target_table(results: Results, metric: Metric, target: Target, paper: Paper) -> Table:
    """Make a table of the epochs or steps and the training time until a target is reached.

    Args:
        results: The runs.
        metric: The metric.
        target: What is to be reached.
        paper: The paper's numbers, such as ``"115, 8.21"``.

    Returns:
        The table; a column without a target, because the reference has no run, is left out.
    """
    columns = {}
    for column in results.columns:
        value = value_in(target, results, column, metric)
        if value is None:
            continue
        goal = f"{column} to {value:.{metric.digits}f}{metric.unit if metric.unit == '%' else ''}"
        progress = progress_name(results, column)
        counted = (f"{progress}s", 1 if progress == "epoch" else 0)
        for index, (name, digits) in enumerate((counted, time_unit(results, column))):
            columns[f"{goal}: {name}"] = sample_cells(
                results.samples(column, partial(until, metric=metric, target=value, what=name)),
                digits,
                [part_printed(paper, row, column, index) for row in results.rows],
                higher=False,
            )
    note = "Time of the training steps alone; n counts the seeds that reached the target."
    notes = [note, *side_by_side(results)]
    return assembled(f"Until a {metric.label} is reached", results.rows, columns, notes=notes)


def varied_tables(results: Results, metric: Metric) -> dict[str, Table]:
    """Make tables of a metric over each setting that was varied alone, for each column.

    Args:
        results: The runs.
        metric: The metric.

    Returns:
        A name for each table, and the table with one column a value.
    """
    alone = [group for group in results.groups if len(group.setting) == 1]
    tables = {}
    for column, name in dict.fromkeys((group.column, group.setting[0][0]) for group in alone):
        here = [g for g in alone if (g.column, g.setting[0][0]) == (column, name)]
        rows = in_order([group.row for group in here], results.rows)
        values = sorted({group.setting[0][1] for group in here}, key=numbers_first)
        cells = {
            value_text(value): sample_cells(
                [
                    results.group(row, column, ((name, value),)).sample(
                        partial(final, metric=metric)
                    )
                    for row in rows
                ],
                metric.digits,
                [""] * len(rows),
                higher=metric.higher,
            )
            for value in values
        }
        title = f"Final {metric.title} by {label_of(name)}: {column}"
        tables[slug(f"{column} {name.rpartition('.')[2]}")] = assembled(title, rows, cells)
    return tables


def trial_table(results: Results, metric: Metric, limit: int) -> Table:
    """Make a table of the best trials of a search, the best first.

    Args:
        results: The runs.
        metric: The metric.
        limit: How many trials there are at most.

    Returns:
        The table.
    """
    groups = [group for group in results.groups if group.setting]
    samples = [group.sample(partial(final, metric=metric)) for group in groups]
    cells = sample_cells(samples, metric.digits, [""] * len(groups), higher=metric.higher)
    sign = -1 if metric.higher else 1
    order = sorted(
        range(len(groups)), key=lambda i: sign * samples[i].mean if samples[i].values else math.inf
    )[:limit]
    rows = [
        (groups[i].row, (Cell(groups[i].column), Cell(in_words(groups[i].setting)), cells[i]))
        for i in order
    ]
    headings = ["optimizer", "column", "setting", f"final {metric.title}"]
    title = f"The best {len(rows)} of {len(groups)} settings"
    return Table(title, headings, rows, [SPREAD, RANKS])


def in_words(setting: Setting) -> str:
    """Write a setting out, such as ``lr 0.1, damping 1``."""
    return ", ".join(
        f"{name.rpartition('.')[2].replace('_', ' ')} {value_text(value)}"
        for name, value in setting
    )


def sample_cells(
    samples: Sequence[Sample], digits: int, papers: Sequence[str], *, higher: bool
) -> list[Cell]:
    """Write the cells of a column and mark the best two.

    Args:
        samples: The numbers of each row.
        digits: Digits after the point.
        papers: The paper's number for each row, empty where it has none.
        higher: Whether higher is better.

    Returns:
        One cell a row.
    """
    cells = [
        Cell(sample.text(digits), note=sample.note, paper=paper)
        for sample, paper in zip(samples, papers, strict=True)
    ]
    shown = [round(s.mean, digits) if s.values and s.complete else None for s in samples]
    return marked(cells, shown, higher=higher)


def printed(paper: Paper, row: str, column: str) -> str:
    """Look up a number of the paper, spaced as the tables here are; empty if there is none."""
    return " ± ".join(part.strip() for part in paper.get(row, {}).get(column, "").split("±"))


def part_printed(paper: Paper, row: str, column: str, index: int) -> str:
    """Look up one of the numbers that the paper has for a cell, separated by commas."""
    parts = printed(paper, row, column).split(",")
    return parts[index].strip() if index < len(parts) else ""


def timing(run: StoredRun, name: str) -> float | None:
    """Read a number of a run's time and memory, ``None`` where it was not measured."""
    return None if run.timings is None else run.timings.get(name)


# Heading to what is read. The median step would miss the rare steps in which a preconditioner is
# refreshed, hence the mean.
COSTS: Mapping[str, Callable[[StoredRun], float | None]] = {
    "time": partial(timing, name="mean_step_seconds"),
    "memory": partial(timing, name=PEAK_MEMORY),
    "optimizer state": partial(timing, name="optimizer_state_bytes"),
}


def place_of(run: StoredRun) -> tuple[int, str]:
    """Give a run's seed and the devices on which it was made."""
    made = (run.environment, *run.environment.get("resumed", []))
    devices = dict.fromkeys(str(one.get("device_name")) for one in made)
    return run.config["seed"], ", ".join(devices)


def values_by_place(
    group: Group, read: Callable[[StoredRun], float | None]
) -> dict[tuple[int, str], float]:
    """Read a number off each run, by the run's seed and device; what is missing is left out."""
    values = {place_of(run): read(run) for run in group.runs}
    return {place: value for place, value in values.items() if value}


def relative(
    run: StoredRun,
    read: Callable[[StoredRun], float | None],
    unit: Mapping[tuple[int, str], float],
) -> float | None:
    """Divide a number of a run by that of the reference with the same seed and device."""
    value, one = read(run), unit.get(place_of(run))
    return None if value is None or one is None else value / one


def side_by_side(results: Results) -> list[str]:
    """Say that times are no measurement, unless all runs are known to have trained alone."""
    if all(run.environment.get("side_by_side") == 1 for run in results.runs):
        return []
    return [SIDE_BY_SIDE]


def until(run: StoredRun, metric: Metric, target: float, what: str) -> float | None:
    """Give the epochs, steps, seconds or hours after which a run reached a target."""
    found = reached(run, metric, target)
    if found is None:
        return None
    if what in ("epochs", "steps"):
        return found.epochs if what == "epochs" else found.steps
    return None if found.seconds is None else found.seconds / UNITS[what]


UNITS = {"seconds": 1, "hours": 3600}


def time_unit(results: Results, column: str) -> tuple[str, int]:
    """Choose a unit for the times of a column: hours where a run takes several.

    Args:
        results: The runs.
        column: The column.

    Returns:
        The unit, and how many digits after the point it is given with.
    """
    runs = [run for run in results.runs if run.config["column"] == column and run.timing]
    times = [run.timing[-1]["seconds"] for run in runs]
    longest = max(times, default=0.0)
    return ("hours", 2) if longest >= 2 * UNITS["hours"] else ("seconds", 1)


def assembled(
    title: str,
    names: Sequence[str],
    columns: Mapping[str, Sequence[Cell]],
    *,
    notes: Sequence[str] = (),
) -> Table:
    """Put columns of cells together, with the notes that they need."""
    cells = zip(*columns.values(), strict=True) if columns else ((),) * len(names)
    rows = list(zip(names, map(tuple, cells), strict=True))
    needed = [SPREAD, RANKS]
    if any(cell.paper for _, cells in rows for cell in cells):
        needed.append(PAPER)
    return Table(title, ["optimizer", *columns], rows, [*needed, *notes])
