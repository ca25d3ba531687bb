"""The command ``nysact suite``: tunes and judges every optimizer on every task by one protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from nysact.experiments.formatting import duration
from nysact.experiments.options import BatchOptions, as_command

if TYPE_CHECKING:
    from nysact.experiments.sweeps.executor import Outcome
    from nysact.experiments.sweeps.tuning import Cell


@dataclass(frozen=True, kw_only=True)
class SuiteOptions(BatchOptions):
    """What ``nysact suite`` tunes."""

    recipe: Annotated[str, Argument(help="A recipe of tasks and optimizers, or a TOML file.")] = (
        "suite"
    )
    row: Annotated[
        list[str] | None, Option("--optimizer", help="Only this optimizer, by its row.")
    ] = None
    column: Annotated[list[str] | None, Option("--task", help="Only this task.")] = None
    seeds: Annotated[int, Option(help="Runs at the best rate.", min=1)] = 5


def run_suite(options: SuiteOptions) -> None:
    """Tune each optimizer's learning rate on each task, and judge the best with new seeds.

    If it is stopped, the same command resumes. The protocol is in docs/suite.md.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.sweeps.tuning import Cell, Tuning

    seeds = range(1, options.seeds + 1)
    bases = find_runs(load(options.recipe), options.row, options.column, [0], options.assign)
    cells = [Cell(base, Tuning(), seeds, options.runs) for base in bases]
    run_cells(cells, options)


def run_cells(cells: "Sequence[Cell]", options: BatchOptions) -> None:
    """Announce the duration, run what the protocol asks for in rounds, and write the results."""
    from nysact.experiments.files import write_text
    from nysact.experiments.sweeps.batch import check_folders, conclude, is_agreed, run_all
    from nysact.experiments.sweeps.duration import estimate
    from nysact.experiments.sweeps.evaluations import evaluations
    from nysact.experiments.sweeps.executor import executor_for

    check_folders(options)
    executor = executor_for([cell.base for cell in cells], options)
    left = [cell for cell in cells if cell.left()]
    bases = [cell.base for cell in left]
    seconds = estimate(bases, executor, download=not options.dry_run)
    announce(left, seconds, executor.jobs)
    if not is_agreed(len(left), options):
        return
    outcomes: dict[str, Outcome] = {}
    while left:
        plans = {cell: cell.plan(outcomes.keys())[1] for cell in left}
        runs = [run for planned in plans.values() for run in planned]
        each = {r.run_id(): seconds[c.base.run_id()] for c in plans for r in plans[c]}
        outcomes |= {o.config.run_id(): o for o in run_all(runs, executor, each)}
        # A run in progress elsewhere has no result to go on with.
        going = {run for run in each if not outcomes[run].elsewhere}
        left = [c for c in left if plans[c] and going.issuperset(r.run_id() for r in plans[c])]
    write_text(options.output / "suite.csv", evaluations(cells).to_csv(index=False))
    typer.echo(f"Every evaluation of every run: {options.output / 'suite.csv'}")
    conclude(outcomes.values())


def announce(cells: "Sequence[Cell]", seconds: Mapping[str, float], jobs: int) -> None:
    """Say how many runs are left, and how long they will take."""
    left = [(cell.left(), seconds[cell.base.run_id()]) for cell in cells]
    total = sum(number * each for number, each in left) / jobs
    about = f", about {duration(total)}" if total else ""
    runs, pairs = sum(number for number, _ in left), f"{len(cells)} pairs of optimizer and task"
    typer.echo(f"{runs} runs or more are left, of {pairs}: {jobs} at a time{about}.")


suite = as_command(SuiteOptions, run_suite)
