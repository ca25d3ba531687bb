"""Some of a recipe's runs, with settings changed as a user asks."""

from collections.abc import Sequence

from nysact.experiments.assignments import dotted, no_setting
from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.recipes.recipe import Recipe


def find_runs(
    recipe: Recipe,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
) -> list[Config]:
    """Pick runs by row, column and seed (none for all), and change settings but what is varied."""
    for kind, asked, known in (("row", rows, recipe.rows), ("column", columns, recipe.columns)):
        for label in asked:
            if label not in known:
                raise ExperimentError(f"{recipe.name} has no {kind} {unknown(label, known)}")
    picked = [
        config
        for config in recipe.runs(seeds or None)
        if (not rows or config.row in rows) and (not columns or config.column in columns)
    ]
    return overridden(picked, overrides)


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
        check_settings(configs, overrides)
        raise failure
    chosen = " ".join(f"--row '{name}'" for name in right)
    raise ExperimentError(
        f"{row}: {failure}; to change the rows that take it: {chosen}"
    ) from failure


def check_settings(configs: Sequence[Config], overrides: Sequence[str]) -> None:
    """Name the nearest setting of any row: a misspelt one may be nearest to that of a later row."""
    names = dict.fromkeys(name for config in configs for name in dotted(config.model_dump()))
    for name in map(name_of, overrides):
        if name not in names and not any(other.startswith(f"{name}.") for other in names):
            raise ExperimentError(no_setting(name, names))


def name_of(assignment: str) -> str:
    """The name in NAME=VALUE."""
    return assignment.partition("=")[0].strip()
