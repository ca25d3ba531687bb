"""Some of a recipe's runs, with settings changed as a user asks."""

from collections.abc import Collection, Sequence

from nysact.experiments.config import Config
from nysact.experiments.config.assignments import check_name, dotted
from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes.recipe import Recipe
from nysact.experiments.recipes.recipe_file import check_names


def find_runs(
    recipe: Recipe,
    rows: Collection[str] | None = None,
    columns: Collection[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] | None = None,
) -> list[Config]:
    """Pick runs by row, column and seed (none for all), and change settings but what is varied."""
    check_names(f"{recipe.name} has no row", rows or (), recipe.rows)
    check_names(f"{recipe.name} has no column", columns or (), recipe.columns)
    picked = [
        config
        for config in recipe.runs(seeds or None)
        if config.row in (rows or recipe.rows) and config.column in (columns or recipe.columns)
    ]
    return overridden(picked, overrides or ())


def overridden(configs: Sequence[Config], overrides: Sequence[str]) -> list[Config]:
    """Change configurations; if only some rows have a setting, the error names them."""
    found, failures = [], []
    for config in configs:
        kept = [text for text in overrides if name_of(text) not in config.sweep]
        try:
            found.append(config.override(kept))
        except ExperimentError as error:
            failures.append((config.row, error))
    if not failures:
        return found
    row, failure = failures[0]
    right = dict.fromkeys(config.row for config in found)
    if not right:
        # A misspelt name may be nearest to a setting of a later row.
        every = {n: v for config in configs for n, v in dotted(config.model_dump()).items()}
        for text in overrides:
            check_name(every, name_of(text))
        raise failure
    chosen = " ".join(f"--row '{name}'" for name in right)
    raise ExperimentError(
        f"{row}: {failure}; to change the rows that take it: {chosen}"
    ) from failure


def name_of(assignment: str) -> str:
    """The name in NAME=VALUE."""
    return assignment.partition("=")[0].strip()
