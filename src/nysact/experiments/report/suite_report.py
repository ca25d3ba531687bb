"""Tables and pictures of a suite of tasks, drawn from the table of its evaluations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.files import check_writable, write_text
from nysact.experiments.formatting import number, slug
from nysact.experiments.metrics import metric_of
from nysact.experiments.report import suite
from nysact.experiments.report.figures import draw
from nysact.experiments.report.style import (
    legend_below,
    logarithmic,
    panel_grid,
    save,
    styles,
)
from nysact.experiments.report.tables import Cell, Table, to_latex, to_markdown, to_terminal
from nysact.experiments.run.store import load_runs

MIB = 2**20
RANKED = (
    "Mean ± sample standard deviation over the final seeds, and the rank in brackets; an optimizer "
    "with a failed run comes last. Best bold, second best underlined."
)
EXPLAINED = (
    "Difference to the best rival with the same seeds, and its 95% bootstrap interval. Steps and "
    "seconds: median to the target, the final quality of AdamW, and how many runs reach it. "
    "Off: validation quality lost at the worse of the next lower and higher rate that was tried."
)


def evaluations_in(path: Path) -> pd.DataFrame:
    """List the evaluations of the runs in a folder, or read those that were written as CSV."""
    if path.suffix != ".csv":
        return suite.evaluations(load_runs(path))
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [name for name in suite.COLUMNS if name not in frame]
    if missing:
        raise ExperimentError(
            f"{path}: there is no column {missing[0]}; expected the columns "
            f"{', '.join(suite.COLUMNS)}, as nysact report --suite writes them"
        )
    return frame


def write_suite(parts: Sequence[pd.DataFrame], output: Path, console: Console) -> None:
    """Write the table of all evaluations, and every table and picture that follows from it."""
    frame = pd.concat(parts, ignore_index=True)
    if frame.empty:
        raise ExperimentError("the suite has no run that has ended; train some, or name folders")
    check_writable(output, "--output")
    frame.to_csv(output / "suite.csv", index=False)
    found = suite.summary(frame)
    tables = {"suite": summary_table(found)}
    for task, mine in found.groupby("task"):
        tables[f"suite-{slug(str(task))}"] = task_table(str(task), mine.droplevel("task"))
    for name, table in tables.items():
        write_text(output / f"{name}.md", to_markdown(table))
        write_text(output / f"{name}.tex", to_latex(table))
        console.print(to_terminal(table))
    rates = suite.rates_of(frame)
    pictures = {
        "time": time_figure(suite.final_runs(frame, suite.chosen_rates(rates))),
        "rates": rates_figure(rates),
        "profile": profile_figure(found),
    }
    for name, figure in pictures.items():
        save(figure, output / f"suite-{name}")
    console.print(f"Written to {output.resolve()}", soft_wrap=True, highlight=False, markup=False)


def summary_table(found: pd.DataFrame) -> Table:
    """Lay the final quality out: rows of optimizers by mean rank, columns of tasks."""
    cells = pd.Series(
        [quality(line, f"{line['rank']:.0f}") for _, line in found.iterrows()], found.index
    )
    frame = cells.unstack("task").map(lambda cell: cell if isinstance(cell, Cell) else Cell("–"))
    ranks = found["rank"].groupby("optimizer").mean().sort_values()
    frame = frame.loc[ranks.index].assign(**{"mean rank": [Cell(f"{rank:.1f}") for rank in ranks]})
    return Table("Final quality on each task", frame, [RANKED])


def quality(line: pd.Series, note: str) -> Cell:
    """Write the final quality, marked if it is the best or the second best."""
    digits, mark = metric_of(line["metric"]).digits, {1.0: "best", 2.0: "second"}
    spread = f" ± {line['std']:.{digits}f}" if line["n"] > 1 else ""
    text = f"{line['mean']:.{digits}f}{spread}" if line["n"] else "failed"
    return Cell(text, mark.get(line["rank"], ""), note)


def task_table(task: str, found: pd.DataFrame) -> Table:
    """Lay all results of a task out, the best optimizer first."""
    metric, rows = metric_of(found["metric"].iloc[0]), {}
    for name, line in found.sort_values("rank").iterrows():
        lost = line["runs"] - line["n"]
        off = written(line["off"], f".{metric.digits}f")
        rows[name] = {
            "rate": Cell(number(line["rate"])),
            metric.title: quality(line, f"{lost:.0f} failed" if lost else ""),
            "to the best rival": Cell(against_rival(line, metric.digits)),
            "steps": Cell(reached(line, "steps", ".0f")),
            "seconds": Cell(reached(line, "seconds", ".1f")),
            "off": Cell("diverges" if np.isinf(line["off"]) else off),
            "ms a step": Cell(written(1000 * line["mean_step_seconds"], ".1f")),
            "state, MiB": Cell(written(line["optimizer_state_bytes"] / MIB, ".2f")),
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("optimizer")
    return Table(task, frame, [RANKED, EXPLAINED])


def written(value: float, form: str) -> str:
    """Write a number, or a dash for none."""
    return "–" if np.isnan(value) else format(value, form)


def against_rival(line: pd.Series, digits: int) -> str:
    """Write the difference to the best rival with its interval."""
    numbers = [written(line[name], f"+.{digits}f") for name in ("difference", "low", "high")]
    return "{} [{}, {}] {}".format(*numbers, line["rival"]) if numbers[0] != "–" else "–"


def reached(line: pd.Series, cost: str, form: str) -> str:
    """Write a median time to the target, and of how many runs if not all reach it."""
    text = "never" if np.isinf(line[cost]) else format(line[cost], form)
    return text if line["reached"] == line["runs"] else f"{text} ({line['reached']}/{line['runs']})"


def time_figure(finals: pd.DataFrame) -> Figure:
    """Draw the test metric of the final runs against training time, a panel for each task."""
    tasks = dict(list(finals[finals["state"] == "finished"].groupby("task")))
    figure, panels = panel_grid(len(tasks))
    look = styles(sorted(finals["optimizer"].unique()))
    for (task, mine), axes in zip(tasks.items(), panels, strict=True):
        metric = suite.metric_in(mine)
        points = mine.groupby(["optimizer", "step"])["value"].agg(["mean", "min", "max", "size"])
        points = points.set_axis(["mean", "low", "high", "seeds"], axis=1)
        points["x"] = mine.groupby(["optimizer", "step"])["seconds"].mean()
        for name, line in points.groupby("optimizer"):
            draw(axes, str(name), line[line["seeds"] == line["seeds"].max()], look[str(name)])
        axes.set(title=task, xlabel="training time (s)", ylabel=metric.title)
        logarithmic(axes, metric)
    legend_below(figure, "mean over the final seeds, in a band from the lowest to the highest")
    return figure


def rates_figure(rates: pd.DataFrame) -> Figure:
    """Draw the validation metric over the learning rates, a panel for each task."""
    tasks = dict(list(rates.groupby("task")))
    figure, panels = panel_grid(len(tasks))
    look = styles(sorted(rates.index.get_level_values("optimizer").unique()))
    for (task, mine), axes in zip(tasks.items(), panels, strict=True):
        metric = suite.metric_in(mine, "chosen_by")
        for name, line in mine.sort_values("rate").groupby("optimizer"):
            # Relative to the best rate, as optimizers have rates of different scales.
            best = line["validation"].argmax() if metric.higher else line["validation"].argmin()
            ratio = line["rate"] / line["rate"].iloc[best]
            axes.plot(ratio, line["validation"], **look[str(name)], markersize=5, label=name)
        axes.set(
            title=task, xlabel="learning rate / the best one", ylabel=metric.title, xscale="log"
        )
        logarithmic(axes, metric)
    legend_below(figure, "mean over the seeds of the search; no point where training failed")
    return figure


def profile_figure(found: pd.DataFrame) -> Figure:
    """Draw the performance profiles in seconds and in steps."""
    figure, panels = panel_grid(2)
    for cost, axes in zip(("seconds", "steps"), panels, strict=True):
        shares = suite.profile(found, cost)
        areas, look = suite.area(shares), styles(list(shares))
        shares.loc[suite.LONGEST] = shares[shares.index <= suite.LONGEST].iloc[-1]
        for name, line in shares.sort_index().items():
            style = {"color": look[str(name)]["color"], "linestyle": look[str(name)]["linestyle"]}
            axes.step(line.index, line, where="post", **style, label=f"{name}: {areas[name]:.2f}")
        axes.set(xlim=(1, suite.LONGEST), ylim=(0, 1.02), ylabel="share of tasks at the target")
        axes.set_xlabel(f"{cost} to the target / the fastest optimizer's")
        axes.legend(fontsize="small")
    return figure
