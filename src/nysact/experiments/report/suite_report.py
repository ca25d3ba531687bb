"""Tables and pictures of a suite of tasks, drawn from the table of its evaluations."""

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


def read_results(path: Path) -> pd.DataFrame:
    """Read the raw results that ``nysact suite`` wrote."""
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{path}: cannot be read as CSV ({error})") from error
    missing = [name for name in suite.COLUMNS if name not in frame]
    if missing or not (frame["part"] == "test").any():
        lack = f"column {missing[0]}" if missing else "run of the part test"
        raise ExperimentError(
            f"{path}: there is no {lack}; expected the suite.csv of a finished nysact suite"
        )
    return frame


def write_suite(results: pd.DataFrame, output: Path, console: Console) -> None:
    """Write every table and picture that follows from the raw results."""
    check_writable(output, "--output")
    frame = suite.judged(results)
    found = suite.summary(frame)
    tables = {"suite": summary_table(found)}
    for task, mine in found.groupby("task"):
        tables[f"suite-{slug(str(task))}"] = task_table(str(task), mine.droplevel("task"))
    for name, table in tables.items():
        write_text(output / f"{name}.md", to_markdown(table))
        write_text(output / f"{name}.tex", to_latex(table))
        console.print(to_terminal(table))
    figures = {"time": time_figure, "rates": rates_figure}
    pictures = {name: make(frame) for name, make in figures.items()}
    for name, figure in {**pictures, "profile": profile_figure(found)}.items():
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
    return Cell(text, mark.get(line["rank"], "") if line["n"] == line["runs"] else "", note)


def task_table(task: str, found: pd.DataFrame) -> Table:
    """Lay all results of a task out, the best optimizer first."""
    metric, rows = metric_of(found["metric"].iloc[0]), {}
    for name, line in found.sort_values("rank").iterrows():
        lost = line["runs"] - line["n"]
        off = written(line["off"], f".{metric.digits}f")
        rows[name] = {
            "rate": Cell(number(line["rate"])),
            metric.title: quality(line, f"{lost:.0f} failed" if lost else ""),
            "best rival": Cell(line["rival"] if isinstance(line["rival"], str) else "–"),
            "difference": Cell(difference(line, metric.digits)),
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


def difference(line: pd.Series, digits: int) -> str:
    """Write the difference to the best rival with its interval."""
    numbers = [written(line[name], f"+.{digits}f") for name in ("difference", "low", "high")]
    return "{} [{}, {}]".format(*numbers) if numbers[0] != "–" else "–"


def reached(line: pd.Series, cost: str, form: str) -> str:
    """Write a median time to the target, and of how many runs if not all reach it."""
    text = "never" if np.isinf(line[cost]) else format(line[cost], form)
    return text if line["reached"] == line["runs"] else f"{text} ({line['reached']}/{line['runs']})"


def time_figure(frame: pd.DataFrame) -> Figure:
    """Draw the test metric of the final runs against training time, a panel for each task."""
    figure, panels = panel_grid(frame["task"].nunique())
    look = styles(sorted(frame["optimizer"].unique()))
    for (task, mine), axes in zip(frame.groupby("task", sort=False), panels, strict=True):
        metric = suite.metric_in(mine)
        finals = mine[(mine["part"] == "test") & mine["failure"].isna()]
        points = finals.groupby(["optimizer", "step"]).agg(
            x=("seconds", "mean"), mean=("value", "mean"), low=("value", "min"),
            high=("value", "max"),
        )  # fmt: skip
        for name, line in points.groupby("optimizer"):
            draw(axes, str(name), line, look[str(name)])
        axes.set(title=task, xlabel="training time (s)", ylabel=metric.title)
        logarithmic(axes, metric)
    legend_below(figure, "mean over the final seeds, in a band from the lowest to the highest")
    return figure


def rates_figure(frame: pd.DataFrame) -> Figure:
    """Draw the validation metric over the learning rates, a panel for each task."""
    figure, panels = panel_grid(frame["task"].nunique())
    look = styles(sorted(frame["optimizer"].unique()))
    for (task, mine), axes in zip(frame.groupby("task", sort=False), panels, strict=True):
        metric = suite.metric_in(mine, "chosen_by")
        tuned = suite.last_lines(mine[mine["part"] == "tuning"]).dropna(subset="validation")
        for name, line in tuned.sort_values("learning_rate").groupby("optimizer"):
            # Relative to the best rate, as optimizers have rates of different scales.
            best = line["validation"].agg("idxmax" if metric.higher else "idxmin")
            ratio = line["learning_rate"] / line["learning_rate"][best]
            axes.plot(ratio, line["validation"], **look[str(name)], markersize=5, label=name)
        axes.set(title=task, xlabel="learning rate / the best one", ylabel=metric.title)
        axes.set_xscale("log")
        logarithmic(axes, metric)
    legend_below(figure, "no point where training failed")
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
