"""Many runs from the plan to the report, shown as they go."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError
from nysact.experiments.files import check_writable
from nysact.experiments.formatting import duration
from nysact.experiments.options import BatchOptions
from nysact.experiments.recipes import Recipe
from nysact.experiments.report.report import sections_of, write_report
from nysact.experiments.run.display import describe, title
from nysact.experiments.run.store import failure_of, folder_of, load_run
from nysact.experiments.sweeps.duration import estimate
from nysact.experiments.sweeps.executor import Executor, Outcome, executor_for

Seconds = Mapping[str, float]  # of runs by their ids, 0 if unknown


def run_and_report(
    configs: Sequence[Config],
    recipes: Sequence[Recipe],
    options: BatchOptions,
    seeds: int | None = None,  # None for the recipe's
) -> None:
    """Show the plan, train what is missing, and report."""
    check_folders(options)
    executor = executor_for(configs, options)
    missing = [config for config in configs if not folder_of(config, executor.root).finished]
    seconds = estimate(missing, executor, download=not options.dry_run)
    if configs:
        show_plan(configs, seconds, executor.jobs)
    if not is_agreed(len(missing), options):
        return
    outcomes = run_all(missing, executor, seconds)
    paths = [folder_of(config, executor.root).path for config in configs]
    stored = [load_run(path) for path in paths if (path / "config.json").is_file()]
    write_report(sections_of(stored, recipes, seeds=seeds), options.output, Console())
    conclude(outcomes)


def check_folders(options: BatchOptions) -> None:
    """Make sure before any work that runs and report can be written."""
    if not options.dry_run:
        check_writable(options.runs, "--runs")
        check_writable(options.output, "--output")


def show_plan(configs: Sequence[Config], seconds: Seconds, jobs: int) -> None:
    """Show the missing runs of each row and column, and how long they will take."""
    table = Table("recipe", "optimizer", "column", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("runs", "finished", "time left"):
        table.add_column(heading, justify="right")
    cells = [(config.recipe, config.row, config.column) for config in configs]
    for cell, count in Counter(cells).items():
        runs = [c.run_id() for c, own in zip(configs, cells, strict=True) if own == cell]
        left = [seconds[run] for run in runs if run in seconds]
        time_left = duration(sum(left)) if any(left) else "–"
        table.add_row(*cell, str(count), str(count - len(left)), time_left)
    Console().print(table)
    if not seconds:
        typer.echo(f"All {len(configs)} runs are finished.")
        return
    total = max(*seconds.values(), sum(seconds.values()) / jobs)
    about = f"{'about' if all(seconds.values()) else 'at least'} {duration(total)}, " * (total > 0)
    together = f"{jobs} at a time" if jobs > 1 else "one at a time"
    typer.echo(f"{len(seconds)} of {len(configs)} runs are missing: {about}{together}.")


def run_all(configs: Sequence[Config], executor: Executor, seconds: Seconds) -> list[Outcome]:
    """Train runs in parallel, skipping finished ones; print each outcome and the time left."""
    weights = seconds if all(seconds.values()) else dict.fromkeys(seconds, 1.0)
    outcomes: list[Outcome] = []
    start, done = time.monotonic(), 0.0
    for outcome in executor.execute(configs):
        outcomes.append(outcome)
        done += weights[outcome.config.run_id()]
        left = (time.monotonic() - start) * (sum(weights.values()) / done - 1)
        about = f", about {duration(left)} left" if len(outcomes) < len(configs) else ""
        typer.echo(f"[{len(outcomes)}/{len(configs)}] {outcome_line(outcome)}{about}")
    return outcomes


def outcome_line(outcome: Outcome) -> str:
    """Say in a line how a run ended."""
    if outcome.elsewhere:
        how = "running elsewhere"
    elif outcome.failure is not None:
        how = f"failed: {outcome.failure.splitlines()[-1]}"
    else:
        run = load_run(outcome.path)
        last = run.metrics[-1] if run.metrics else {}
        shown = describe(last, losses=False) or describe(last) or ["finished"]
        how = ", ".join(shown) if (failure := failure_of(run)) is None else f"failed at {failure}"
    return f"{title(outcome.config)}: {how}"


def is_agreed(missing: int, options: BatchOptions) -> bool:
    """Ask whether to start, if there is something to run; ``--dry-run`` never starts."""
    if options.dry_run or options.yes or not missing:
        return not options.dry_run
    if not sys.stdin.isatty():
        raise ExperimentError("there is no terminal to ask on: add --yes to start, or --dry-run")
    return typer.confirm("Start?", default=True, abort=True)


def conclude(outcomes: Iterable[Outcome]) -> None:
    """Show the last lines of failed runs and count skipped ones; exit with status 1 for either."""
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    elsewhere = sum(outcome.elsewhere for outcome in outcomes)
    for outcome in failures:
        typer.secho(f"Failed: {title(outcome.config)}", fg="red")
        for line in (outcome.failure or "").splitlines()[-5:]:
            typer.secho(f"  {line}", dim=True)
        typer.echo(f"  {outcome.path}")
    if elsewhere:
        typer.echo(
            f"Skipped {elsewhere} runs in progress elsewhere; repeat this command when they end."
        )
    if failures or elsewhere:
        raise typer.Exit(1)
