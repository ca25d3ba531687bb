"""Many runs from the plan to the last of them, shown as they go."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError
from nysact.experiments.metrics import METRICS
from nysact.experiments.recipes import Recipe
from nysact.experiments.report.report import sections_of, write_report
from nysact.experiments.run.display import title
from nysact.experiments.run.failure import failure_of
from nysact.experiments.run.store import load_run, load_runs
from nysact.experiments.sweeps.estimate import estimate, in_words
from nysact.experiments.sweeps.executor import Executor
from nysact.experiments.sweeps.outcome import Outcome, folder_of, is_finished


@dataclass(frozen=True)
class Wishes:
    """What the user asked for besides the runs.

    Args:
        output: The report's folder.
        seeds: How many seeds, ``None`` for the recipe's.
        timed: Whether to estimate the time; that of a cluster is not that of this machine.
        dry_run: Whether to show the plan alone.
        yes: Whether to start without asking.
        cpu: Whether to train on the CPU where there is an accelerator.
    """

    output: Path
    seeds: int | None = None
    timed: bool = True
    dry_run: bool = False
    yes: bool = False
    cpu: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Args:
        configs: All runs.
        missing: Those that are not finished.
        seconds: How long each of the missing ones will take, 0 where that is not known.
        jobs: How many run at a time.
    """

    configs: Sequence[Config]
    missing: Sequence[Config]
    seconds: Sequence[float]
    jobs: int

    @property
    def duration(self) -> float:
        """The seconds that the missing runs will take together."""
        longest = max(self.seconds, default=0.0)
        return max(longest, sum(self.seconds) / self.jobs)


def make_plan(
    configs: Sequence[Config], root: Path, jobs: int, wishes: Wishes, console: Console
) -> Plan:
    """Find out what is missing and how long it will take.

    Args:
        configs: The runs.
        root: The folder of all runs.
        jobs: How many run at a time.
        wishes: What the user asked for.
        console: Where to say whose time cannot be told.

    Returns:
        The plan; what an interrupted run has done already is taken off its time.
    """
    missing = [config for config in configs if not is_finished(config, root)]
    whole = durations(missing, root, wishes, console)
    seconds = [s * (1 - done(c, root)) for c, s in zip(missing, whole, strict=True)]
    return Plan(configs, missing, seconds, jobs)


def durations(
    configs: Sequence[Config], root: Path, wishes: Wishes, console: Console
) -> list[float]:
    """Estimate how long runs take, and say of which that cannot be told.

    Args:
        configs: The runs.
        root: The folder of all runs.
        wishes: What the user asked for.
        console: Where to say it.

    Returns:
        Seconds for each, 0 where they are not known.
    """
    if not configs or not wishes.timed:
        return [0.0] * len(configs)
    console.print("Estimating the time, by a few steps where no run is known ...")
    stored = load_runs(root) if root.is_dir() else []
    reasons: dict[str, list[str]] = {}
    seconds = estimate(
        configs, stored, cpu=wishes.cpu, download=not wishes.dry_run,
        on_unknown=lambda config, reason: reasons.setdefault(reason, []).append(title(config)),
    )  # fmt: skip
    for reason, titles in reasons.items():
        kinds = f"{len(titles)} kinds of runs, such as " if len(titles) > 1 else ""
        text = f"No time is known of {kinds}{titles[0]}: {reason}."
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    return seconds


def done(config: Config, root: Path) -> float:
    """Tell how much of a run is done, as a share."""
    path = folder_of(config, root)
    metrics = load_run(path).metrics if (path / "config.json").is_file() else []
    if not metrics:
        return 0.0
    last = metrics[-1]
    share = last["step"] / config.steps if config.steps else last["epoch"] / (config.epochs or 1)
    return float(share)


def show_plan(plan: Plan, console: Console) -> None:
    """Show what is missing in each row and column, and how long it will take.

    Args:
        plan: The plan.
        console: Where to show it.
    """
    groups: dict[tuple[str, str, str], list[Config]] = {}
    for config in plan.configs:
        groups.setdefault((config.recipe, config.row, config.column), []).append(config)
    seconds = dict(zip(map(id, plan.missing), plan.seconds, strict=True))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("recipe", "optimizer", "column", "runs", "finished", "time of the others"):
        table.add_column(heading, justify="right" if heading[0] in "rft" else "left")
    table.columns[0].justify = "left"
    for (recipe, row, column), configs in groups.items():
        left = [seconds[id(config)] for config in configs if id(config) in seconds]
        finished = len(configs) - len(left)
        time_left = in_words(sum(left)) if any(left) else "–"
        table.add_row(recipe, row, column, str(len(configs)), str(finished), time_left)
    console.print(table)
    together = f"{plan.jobs} at a time" if plan.jobs > 1 else "one at a time"
    at_least = "at least" if not all(plan.seconds) else "about"
    about = f"{at_least} {in_words(plan.duration)}, " if plan.duration else ""
    planned = f"{len(plan.missing)} of {len(plan.configs)} runs are missing: {about}{together}."
    complete = f"All {len(plan.configs)} runs are finished."
    console.print(planned if plan.missing else complete, highlight=False, soft_wrap=True)


def outcome_line(outcome: Outcome) -> str:
    """Say in a line what came of a run."""
    if outcome.elsewhere:
        said = "running elsewhere"
    elif outcome.failure is not None:
        said = f"failed: {outcome.failure.splitlines()[-1]}"
    else:
        said = ending(outcome.path)
    return f"{title(outcome.config)}: {said}"


def ending(path: Path) -> str:
    """Say what a finished run ended with."""
    run = load_run(path)
    failure = failure_of(run)
    if failure is not None:
        return f"failed at {failure}"
    last = run.metrics[-1] if run.metrics else {}
    known = [metric for name, metric in METRICS.items() if last.get(name) is not None]
    shown = [f"{m.label} {last[m.name]:.{m.digits}f}{'%' * (m.unit == '%')}" for m in known]
    return ", ".join(shown[:2]) or "finished"


class Progress:
    """Prints a line as each run ends, with the time left.

    Args:
        plan: What is to be run.
        console: Where to print.
    """

    def __init__(self, plan: Plan, console: Console) -> None:
        self.console = console
        self.jobs = plan.jobs
        self.left = {c.run_id(): s for c, s in zip(plan.missing, plan.seconds, strict=True)}
        self.count = len(self.left)
        self.planned = 0.0
        self.start = time.monotonic()

    def on_outcome(self, outcome: Outcome) -> None:
        """Print what came of a run."""
        self.planned += self.left.pop(outcome.config.run_id(), 0.0)
        ended = f"{self.count - len(self.left)}/{self.count}"
        left = f", about {in_words(self.seconds_left())} left" if any(self.left.values()) else ""
        self.console.print(
            f"[{ended}] {outcome_line(outcome)}{left}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def seconds_left(self) -> float:
        """Scale the plan by how it went so far."""
        elapsed = (time.monotonic() - self.start) * self.jobs
        pace = elapsed / self.planned if self.planned else 1.0
        longest = max(self.left.values(), default=0.0)
        return max(longest, sum(self.left.values()) / self.jobs) * pace


def run_plan(plan: Plan, executor: Executor, console: Console) -> list[Outcome]:
    """Run what is missing.

    Args:
        plan: The plan.
        executor: Where to run it.
        console: Where to show it.

    Returns:
        What came of each run.
    """
    progress = Progress(plan, console)
    outcomes = []
    for outcome in executor.execute(plan.missing):
        progress.on_outcome(outcome)
        outcomes.append(outcome)
    return outcomes


def run_and_report(
    configs: Sequence[Config], recipes: Sequence[Recipe], executor: Executor, wishes: Wishes
) -> None:
    """Show the plan, run what is missing, and report.

    Args:
        configs: The runs.
        recipes: What they are shown as.
        executor: Where they are run.
        wishes: What the user asked for.
    """
    console = Console()
    plan = make_plan(configs, executor.root, executor.jobs, wishes, console)
    if configs:
        show_plan(plan, console)
    if wishes.dry_run:
        return
    check_consent(len(plan.missing), wishes)
    outcomes = run_plan(plan, executor, console)
    paths = [folder_of(config, executor.root) for config in configs]
    stored = [load_run(path) for path in paths if (path / "config.json").is_file()]
    write_report(sections_of(stored, recipes, seeds=wishes.seeds), wishes.output, console)
    finish(outcomes, console)


def check_consent(missing: int, wishes: Wishes) -> None:
    """Ask whether to start, if there is something to run.

    Args:
        missing: How much is to be run.
        wishes: Whether the user has agreed already.

    Raises:
        ExperimentError: If there is nobody to ask.
        Exit: With status 1 if the user does not want to start.
    """
    if not missing or wishes.yes:
        return
    if not sys.stdin.isatty():
        raise ExperimentError("there is no terminal to ask on: add --yes to start, or --dry-run")
    if not typer.confirm("Start?", default=True):
        raise typer.Exit(1)


def finish(outcomes: Sequence[Outcome], console: Console) -> None:
    """Show the last lines of what failed, and what was left to other processes.

    Args:
        outcomes: What came of the runs.
        console: Where to show it.

    Raises:
        Exit: With status 1 if a run is not finished.
    """
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    elsewhere = sum(outcome.elsewhere for outcome in outcomes)
    for outcome in failures:
        console.print(f"Failed: {title(outcome.config)}", style="red", markup=False)
        for line in (outcome.failure or "").splitlines()[-5:]:
            console.print(f"  {line}", style="dim", markup=False, soft_wrap=True, highlight=False)
        console.print(f"  {outcome.path}", markup=False, soft_wrap=True, highlight=False)
    if elsewhere:
        console.print(
            f"Another process is at {elsewhere} of the runs: start this command again when it has "
            "ended.",
            highlight=False,
            soft_wrap=True,
        )
    if failures or elsewhere:
        raise typer.Exit(1)
