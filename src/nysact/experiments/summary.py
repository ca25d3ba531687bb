"""A table with one row for each optimizer: means and standard deviations over the seeds."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from rich.table import Table

from nysact.experiments.formatting import mean_std_text, number
from nysact.experiments.metrics import metric_of
from nysact.experiments.run.store import StoredRun, failure_of, succeeded

# Writes the cell of an optimizer whose finished runs these are.
Cell = Callable[[Sequence[StoredRun]], str]


def summary_table(runs: Sequence[StoredRun], columns: Mapping[str, Cell], title: str = "") -> Table:
    """Lay out a column for each heading; runs that failed are named and count in no mean."""
    table = Table(title=title or None, box=None, pad_edge=False, title_justify="left")
    table.add_column("optimizer", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in dict.fromkeys(stored.config["row"] for stored in runs):
        own = [stored for stored in runs if stored.config["row"] == row]
        good = [stored for stored in own if succeeded(stored)]
        cells = [cell(good) if good else "–" for cell in columns.values()]
        failures = [
            f"seed {stored.config['seed']} failed at {failure.partition(':')[0]}"
            for stored in own
            if (failure := failure_of(stored)) is not None
        ]
        # A cell beyond the headings adds a column without one.
        table.add_row(row, *cells, *(["; ".join(failures)] if failures else []))
    return table


def final(name: str) -> Cell:
    """A metric after the last step."""
    metric = metric_of(name)

    def cell(runs: Sequence[StoredRun]) -> str:
        values = [metric.final(stored.metrics) for stored in runs]
        known = [value for value in values if value is not None]
        return mean_std_text(known if len(known) == len(values) else [], metric.digits)

    return cell


def milliseconds(runs: Sequence[StoredRun]) -> str:
    """The time of a step in ms."""
    return mean_std_text([1000 * step_seconds(stored) for stored in runs], 2)


def time_relative_to(reference: Sequence[StoredRun]) -> Cell:
    """The time of a step relative to the reference's of the same seed, the median over seeds."""
    seconds = {stored.config["seed"]: step_seconds(stored) for stored in reference}

    def cell(runs: Sequence[StoredRun]) -> str:
        pairs = [(step_seconds(stored), seconds.get(stored.config["seed"])) for stored in runs]
        ratios = [own / other for own, other in pairs if other]
        return f"{median(ratios):.2f}" if ratios else "–"

    return cell


def learning_rate(runs: Sequence[StoredRun]) -> str:
    """The learning rate."""
    return number(runs[0].config["optimizer"]["options"]["lr"])


def state_kib(runs: Sequence[StoredRun]) -> str:
    """The size of the optimizer's state in KiB."""
    return f"{(runs[0].timings or {})['optimizer_state_bytes'] / 1024:,.1f}"


def step_seconds(stored: StoredRun) -> float:
    """The mean time of a step of a finished run."""
    return float((stored.timings or {})["mean_step_seconds"])
