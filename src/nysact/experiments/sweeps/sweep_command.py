"""The command ``nysact sweep``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from nysact.experiments import options
from nysact.experiments.error_message import errors_shown

if TYPE_CHECKING:
    from nysact.experiments.config import Config
    from nysact.experiments.metrics import Metric
    from nysact.experiments.sweeps.adaptive import AdaptiveSearch
    from nysact.experiments.sweeps.batch import Wishes
    from nysact.experiments.sweeps.executor import Executor
    from nysact.experiments.sweeps.outcome import Outcome
    from nysact.experiments.sweeps.space import Space

SEARCHES = ("grid", "random", "adaptive")
TRIALS = 20


def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe, or a file of one's own.")],
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUES",
            help="What is varied: 0.03,0.1 or log:0.01:1, uniform:0:1, int:4:32, logint:1:64.",
        ),
    ],
    search: Annotated[
        str | None,
        typer.Option(
            help="grid, random or adaptive.", show_default="grid, or random where there are ranges"
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="How many trials, but for a grid.", show_default=str(TRIALS), min=1),
    ] = None,
    row: options.Row = None,
    column: options.Column = None,
    seeds: Annotated[int, typer.Option(help="Runs of each trial.", min=1)] = 1,
    metric: Annotated[
        str | None, typer.Option(help="What is judged.", show_default="the recipe's")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep.", show_default="RECIPE-SEARCH")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Address of an adaptive search's database.", show_default="a file beside the runs"
        ),
    ] = None,
    search_seed: Annotated[int, typer.Option(help="Seed of the search.", min=0)] = 0,
    assign: options.Assign = None,
    jobs: options.Jobs = None,
    slurm: options.Slurm = None,
    runs: options.Runs = options.RUNS,
    output: options.Output = options.REPORT,
    track: options.Track = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    cpu: options.Cpu = False,
) -> None:
    """Vary settings of a recipe: all combinations, random ones, or by what went well so far.

    Whatever stops it, the same command goes on where it was.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.sweeps.batch import Wishes, run_and_report
    from nysact.experiments.sweeps.places import executor_for
    from nysact.experiments.sweeps.search import draws, grid
    from nysact.experiments.sweeps.space import parse_space, varied

    with errors_shown():
        loaded = load(recipe)
        spaces = dict(parse_space(text) for text in vary)
        kind = kind_of_search(search, spaces)
        base = list(find_runs(loaded, row or [], column or [], range(seeds), assign or []))
        named = name or f"{loaded.name}-{kind}"
        many = trials or TRIALS
        wishes = Wishes(output, seeds, timed=not slurm, dry_run=dry_run, yes=yes, cpu=cpu)
        if kind != "adaptive":
            values = grid(spaces) if kind == "grid" else draws(spaces, many, search_seed)
            configs = [varied(config, named, trial) for trial in values for config in base]
            executor = executor_for(configs, runs, jobs, slurm, track, cpu=cpu)
            run_and_report(configs, [], executor, wishes)
            return
        # Imported here: it belongs to an extra of its own.
        from nysact.experiments.sweeps.adaptive import AdaptiveSearch

        judged = judged_metric(metric, loaded.report.metric)
        check_held_out(judged, base)
        check_one_place(base)
        # Any values will do to find out whether there are such settings, and what a run takes.
        sample = [varied(c, named, {k: s.draw(Random(0)) for k, s in spaces.items()}) for c in base]
        executor = executor_for(sample, runs, jobs, slurm, track, cpu=cpu)
        study = AdaptiveSearch(
            named, storage or database(runs / named, make=not dry_run), spaces, judged,
            lambda values: [varied(config, named, values) for config in base],
            many, runs / named / "searching", search_seed,
        )  # fmt: skip
        search_adaptively(study, sample, executor, wishes)


def kind_of_search(asked: str | None, spaces: "Mapping[str, Space]") -> str:
    """Choose the kind of search.

    Args:
        asked: What the user asked for, ``None`` for what fits.
        spaces: What is varied.

    Returns:
        ``"grid"``, ``"random"`` or ``"adaptive"``.

    Raises:
        ExperimentError: If the user asked for something else.
    """
    from nysact.experiments.errors import ExperimentError, unknown
    from nysact.experiments.sweeps.space import Choice

    if asked is None:
        values = all(isinstance(space, Choice) for space in spaces.values())
        return "grid" if values else "random"
    if asked not in SEARCHES:
        raise ExperimentError(f"--search {unknown(asked, SEARCHES)}")
    return asked


def judged_metric(asked: str | None, usual: str) -> "Metric":
    """Find the metric by which trials are judged.

    Args:
        asked: What the user asked for, ``None`` for the usual one.
        usual: The recipe's.

    Returns:
        The metric.

    Raises:
        ExperimentError: If there is no such metric.
    """
    from nysact.experiments.errors import ExperimentError, unknown
    from nysact.experiments.metrics import METRICS, metric_of

    if asked is not None and asked not in METRICS:
        raise ExperimentError(f"--metric {unknown(asked, METRICS)}")
    return metric_of(asked or usual)


def check_held_out(metric: "Metric", configs: "Sequence[Config]") -> None:
    """Make sure that there is a validation set if trials are judged by one.

    Args:
        metric: The metric by which trials are judged.
        configs: The runs of a trial.

    Raises:
        ExperimentError: If a run has none.
    """
    from nysact.experiments.errors import ExperimentError

    if not metric.name.startswith("validation_"):
        return
    if not all(getattr(config.data, "validation_size", 0) for config in configs):
        raise ExperimentError(
            f"{metric.name}: no training samples are held out; add --set data.validation_size=N, "
            "such as 1000"
        )


def check_one_place(configs: "Sequence[Config]") -> None:
    """Make sure that an adaptive search has one number to judge a trial by.

    Args:
        configs: The runs of a trial.

    Raises:
        ExperimentError: If they are of several rows or columns.
    """
    from nysact.experiments.errors import ExperimentError

    places = {(config.row, config.column) for config in configs}
    if len(places) > 1:
        listed = "; ".join(f"--row '{row}' --column '{column}'" for row, column in sorted(places))
        raise ExperimentError(
            f"an adaptive search judges one row and one column: choose one of {listed}"
        )


def database(folder: Path, *, make: bool) -> str | None:
    """Name the database of a search that shares none.

    Args:
        folder: The folder of the search's runs.
        make: Whether it may be made.

    Returns:
        Its address, ``None`` if there is none and it may not be made.
    """
    path = folder / "study.db"
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path.resolve()}" if make or path.is_file() else None


def search_adaptively(
    study: "AdaptiveSearch", sample: "Sequence[Config]", executor: "Executor", wishes: "Wishes"
) -> None:
    """Run the trials that are left, and report on all.

    Args:
        study: The search.
        sample: The runs of a trial, with any values.
        executor: Where they are run.
        wishes: What the user asked for.
    """
    from nysact.experiments.report.report import sections_of, write_report
    from nysact.experiments.run.store import load_runs
    from nysact.experiments.sweeps.batch import check_consent, durations, finish, outcome_line
    from nysact.experiments.sweeps.estimate import in_words

    console = Console()
    folder = executor.root / sample[0].recipe
    left = max(0, study.remaining())
    each = sum(durations(sample if left else [], executor.root, wishes, console))
    seconds = left * each / executor.jobs
    about = f"about {in_words(seconds)}, " if seconds else ""
    console.print(
        f"{left} of {study.trials} trials are left: {about}{executor.jobs} runs at a time.",
        highlight=False,
    )
    if wishes.dry_run:
        return
    check_consent(left, wishes)
    outcomes = []

    def on_outcome(outcome: "Outcome") -> None:
        console.print(outcome_line(outcome), highlight=False, markup=False, soft_wrap=True)
        outcomes.append(outcome)

    study.run(executor, on_outcome)
    write_report(sections_of(load_runs(folder), seeds=wishes.seeds), wishes.output, console)
    found = study.best()
    if found is not None:
        values = ", ".join(f"{name}={value}" for name, value in found[1].items())
        console.print(
            f"Best: {study.metric.label} {found[0]:.{study.metric.digits}f} with {values}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    finish(outcomes, console)
