"""The commands ``nysact reproduce`` and ``nysact sweep``."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from nysact.experiments.options import BatchOptions, as_command

if TYPE_CHECKING:
    from nysact.experiments.recipes import Recipe

NAMES = "Recipes or TOML files; table2 stands for all recipes whose names start with table2-."
VARY = "What is varied: 0.03,0.1 or log:0.01:1, uniform:0:1, int:4:32, logint:1:64."
SEARCH = "grid, random or adaptive; by default grid, or random where there are ranges."
STORAGE = "Address of an adaptive search's database, by default a file beside the runs."


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(BatchOptions):
    """What ``nysact reproduce`` runs."""

    names: Annotated[list[str], Argument(metavar="NAME...", help=NAMES)]
    seeds: Annotated[
        int | None, Option(help="Seeds, from 0 up.", show_default="the recipe's", min=1)
    ] = None


@dataclass(frozen=True, kw_only=True)
class SweepOptions(BatchOptions):
    """What ``nysact sweep`` varies, and how."""

    recipe: Annotated[str, Argument(help="A recipe or a TOML file.")]
    vary: Annotated[list[str], Option(metavar="NAME=VALUES", help=VARY)]
    search: Annotated[str | None, Option(help=SEARCH)] = None
    trials: Annotated[int, Option(help="Number of trials; a grid runs all.", min=1)] = 20
    seeds: Annotated[int, Option(help="Runs of each trial.", min=1)] = 1
    metric: Annotated[
        str | None, Option(help="Metric of an adaptive search.", show_default="the recipe's")
    ] = None
    name: Annotated[str | None, Option(help="Name of the sweep.", show_default="RECIPE-SEARCH")] = (
        None
    )
    storage: Annotated[str | None, Option(help=STORAGE)] = None
    search_seed: Annotated[int, Option(help="Seed of the search.", min=0)] = 0


def run_reproduce(options: ReproduceOptions) -> None:
    """Show which runs of a table or figure are missing, run them, and report.

    If it is stopped, the same command resumes.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs
    from nysact.experiments.sweeps.batch import run_and_report

    recipes = recipes_named(options.names)
    numbers = range(options.seeds or 0)
    configs = [
        config
        for recipe in recipes
        if recipe.needs_runs
        for config in find_runs(recipe, options.row, options.column, numbers, options.assign)
    ]
    # Recipes may share runs.
    configs = list({(config.recipe, config.run_id()): config for config in configs}.values())
    run_and_report(configs, recipes, options, options.seeds)


def recipes_named(names: Sequence[str]) -> "list[Recipe]":
    """Load the recipe of each name, or all recipes whose names start with it."""
    from nysact.experiments.recipes import load
    from nysact.experiments.recipes import names as known

    found: list[str] = []
    for name in names:
        family = [other for other in known() if other.startswith(f"{name}-")]
        found += [name] if name in known() or not family else family
    return [load(name) for name in dict.fromkeys(found)]


def run_sweep(options: SweepOptions) -> None:
    """Vary settings of a recipe: all combinations, random ones, or adaptively by the results.

    If it is stopped, the same command resumes.
    """
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.recipes import find_runs, load
    from nysact.experiments.sweeps.adaptive import AdaptiveSearch, checked_metric, search_and_report
    from nysact.experiments.sweeps.batch import check_folders, run_and_report
    from nysact.experiments.sweeps.search import parse_space, search_kind, trials_of, varied

    recipe, spaces = load(options.recipe), dict(map(parse_space, options.vary))
    kind = search_kind(options.search, spaces)
    name = options.name or f"{recipe.name}-{kind}"
    base = find_runs(recipe, options.row, options.column, range(options.seeds), options.assign)
    trials = trials_of(kind, spaces, options.trials, options.search_seed)
    runs = [[varied(config, name, trial) for config in base] for trial in trials]
    if kind != "adaptive":
        run_and_report(list(chain(*runs)), [], options, options.seeds)
        return
    metric = checked_metric(options.metric or recipe.report.metric, base)
    check_folders(options)
    database = (options.runs / name).resolve() / "study.db"
    if not options.dry_run:
        database.parent.mkdir(parents=True, exist_ok=True)
    known = database.parent.is_dir()
    address = options.storage or (f"sqlite:///{database}" if known else None)
    search = AdaptiveSearch(
        name, address, spaces, metric,
        lambda trial: [varied(config, name, trial) for config in base],
        options.trials, options.search_seed,
    )  # fmt: skip
    search_and_report(search, runs[0], options)


reproduce = as_command(ReproduceOptions, run_reproduce)
sweep = as_command(SweepOptions, run_sweep)
