"""The commands ``nysact reproduce`` and ``nysact sweep``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from nysact.experiments import options
from nysact.experiments.error_message import errors_shown

if TYPE_CHECKING:
    from nysact.experiments.recipes import Recipe

NAMES = "Recipes or TOML files; table2 stands for all recipes whose names start with table2-."
VARY = "What is varied: 0.03,0.1 or log:0.01:1, uniform:0:1, int:4:32, logint:1:64."
SEARCH = "grid, random or adaptive; by default grid, or random where there are ranges."
STORAGE = "Address of an adaptive search's database, by default a file beside the runs."


def reproduce(
    names: Annotated[list[str], Argument(metavar="NAME...", help=NAMES)],
    seeds: Annotated[
        int | None, Option(help="Seeds, from 0 up.", show_default="the recipe's", min=1)
    ] = None,
    row: options.Row = None,
    column: options.Column = None,
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
    """Show which runs of a table or figure are missing, run them, and report.

    If it is stopped, the same command resumes.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs
    from nysact.experiments.sweeps.batch import BatchOptions, run_and_report
    from nysact.experiments.sweeps.executor import executor_for

    with errors_shown():
        recipes = recipes_named(names)
        numbers = [] if seeds is None else list(range(seeds))
        configs = [
            config
            for recipe in recipes
            if recipe.needs_runs
            for config in find_runs(recipe, row or [], column or [], numbers, assign or [])
        ]
        # Recipes may share runs.
        configs = list({(config.recipe, config.run_id()): config for config in configs}.values())
        executor = executor_for(configs, runs, jobs, slurm, track, cpu=cpu)
        batch = BatchOptions(output, seeds, dry_run=dry_run, yes=yes)
        run_and_report(configs, recipes, executor, batch)


def recipes_named(names: Sequence[str]) -> "list[Recipe]":
    """Load the recipe of each name, or all recipes whose names start with it."""
    from nysact.experiments.recipes import load
    from nysact.experiments.recipes import names as known

    found: list[str] = []
    for name in names:
        family = [other for other in known() if other.startswith(f"{name}-")]
        found += [name] if name in known() or not family else family
    return [load(name) for name in dict.fromkeys(found)]


def sweep(
    recipe: Annotated[str, Argument(help="A recipe or a TOML file.")],
    vary: Annotated[list[str], Option(metavar="NAME=VALUES", help=VARY)],
    search: Annotated[str | None, Option(help=SEARCH)] = None,
    trials: Annotated[int, Option(help="Number of trials; a grid runs all.", min=1)] = 20,
    row: options.Row = None,
    column: options.Column = None,
    seeds: Annotated[int, Option(help="Runs of each trial.", min=1)] = 1,
    metric: Annotated[
        str | None, Option(help="Metric of an adaptive search.", show_default="the recipe's")
    ] = None,
    name: Annotated[
        str | None, Option(help="Name of the sweep.", show_default="RECIPE-SEARCH")
    ] = None,
    storage: Annotated[str | None, Option(help=STORAGE)] = None,
    search_seed: Annotated[int, Option(help="Seed of the search.", min=0)] = 0,
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
    """Vary settings of a recipe: all combinations, random ones, or adaptively by the results.

    If it is stopped, the same command resumes.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.sweeps.adaptive import (
        AdaptiveSearch,
        checked_metric,
        database,
        search_and_report,
    )
    from nysact.experiments.sweeps.batch import BatchOptions, run_and_report
    from nysact.experiments.sweeps.executor import executor_for
    from nysact.experiments.sweeps.search import draws, grid, parse_space, search_kind, varied

    with errors_shown():
        loaded = load(recipe)
        spaces = dict(parse_space(text) for text in vary)
        kind = search_kind(search, spaces)
        base = find_runs(loaded, row or [], column or [], range(seeds), assign or [])
        named = name or f"{loaded.name}-{kind}"
        # One random trial shows what the runs of an adaptive search are like.
        count = 1 if kind == "adaptive" else trials
        values = grid(spaces) if kind == "grid" else draws(spaces, count, search_seed)
        configs = [varied(config, named, trial) for trial in values for config in base]
        executor = executor_for(configs, runs, jobs, slurm, track, cpu=cpu)
        batch = BatchOptions(output, seeds, dry_run=dry_run, yes=yes)
        if kind != "adaptive":
            run_and_report(configs, [], executor, batch)
            return
        judged = checked_metric(metric, loaded.report.metric, base)
        address = storage or database(executor.root / named, make=not dry_run)
        found = AdaptiveSearch(
            named, address, spaces, judged,
            lambda trial: [varied(config, named, trial) for config in base],
            trials, search_seed,
        )  # fmt: skip
        search_and_report(found, configs, executor, batch)
