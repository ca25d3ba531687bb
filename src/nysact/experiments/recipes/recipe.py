"""A recipe: a file of settings for all the runs of a table or a figure.

The section ``run`` holds what all have in common, in the form of
:class:`~nysact.experiments.config.Config`. Each entry of ``columns`` and of ``rows`` changes some
of it, ``columns.X.rows.Y`` what holds in one cell alone, and each of ``sweeps`` varies one setting,
of all rows or of some; the rows of no sweep are run once. A recipe with ``source`` has no runs of
its own: it shows those of the recipe named there, or the ``columns`` of it that it lists.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nysact.experiments.config import Config, Value
from nysact.experiments.config.assignments import dotted_names, no_setting
from nysact.experiments.config.errors import in_words
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.recipes.recipe_file import OF_SETTINGS, RecipeFile, check_file

Values = Mapping[str, Any]
SUFFIX = ".toml"


class Recipe:
    """All runs of a table or a figure, and how they are shown.

    Args:
        name: The name of the recipe.
        content: What its file holds.

    Attributes:
        title: What it is, in a line.
        source: The recipe whose runs it shows, mostly itself; runs are stored under that name.
        report: How the runs are shown.
        seeds: The seeds that are run unless others are asked for.
        paper: The paper's numbers by row and column.
    """

    def __init__(self, name: str, content: RecipeFile) -> None:
        self.name = name
        self.title = content.title
        self.report = content.report
        self.seeds = tuple(content.seeds)
        self.paper = content.paper
        self.source = called(content.source or name)
        self._shown = content.columns if isinstance(content.columns, list) else None
        self._content = file_of(content.source) if content.source else content

    @property
    def needs_runs(self) -> bool:
        """Whether it shows runs, and not settings alone."""
        return self.report.kind not in OF_SETTINGS

    @property
    def rows(self) -> list[str]:
        """The labels of the optimizers."""
        return list(self._content.rows)

    @property
    def columns(self) -> list[str]:
        """The labels of what is trained."""
        return list(self._content.columns) if self._shown is None else self._shown

    def runs(
        self, seeds: Sequence[int] | None = None, overrides: Sequence[str] = ()
    ) -> list[Config]:
        """Make the configurations of all rows, columns, varied values and seeds.

        Args:
            seeds: The seeds, ``None`` for the recipe's own.
            overrides: Assignments for :meth:`Config.override`; what a run varies itself stays.

        Returns:
            The configurations.
        """
        seeds = self.seeds if seeds is None else seeds
        configs = []
        for column in self.columns:
            for row in self.rows:
                for sweep in self._settings(row):
                    configs += [self.config(row, column, sweep, seed) for seed in seeds]
        return all_overridden(configs, overrides)

    def _settings(self, row: str) -> list[dict[str, Value]]:
        """List what is varied in a row."""
        sweeps = [s for s in self._content.sweeps if s.rows is None or row in s.rows]
        return [{s.name: value} for s in sweeps for value in s.values] or [{}]

    def config(self, row: str, column: str, sweep: Mapping[str, Value], seed: int) -> Config:
        """Make the configuration of a run.

        Args:
            row: The optimizer's label.
            column: The label of what is trained.
            sweep: What is varied, with its value.
            seed: The seed.

        Returns:
            The configuration.

        Raises:
            ExperimentError: If the recipe has a setting there that there is none of.
        """
        columns = self._content.columns
        assert isinstance(columns, dict)
        of_column = {name: value for name, value in columns[column].items() if name != "rows"}
        cell = columns[column].get("rows", {}).get(row, {})
        labels = {"recipe": self.source, "row": row, "column": column, "seed": seed}
        values: Values = labels
        for part in (self._content.run, of_column, self._content.rows[row], cell):
            values = merged(values, part)
        texts = [f"{name}={written(value)}" for name, value in sweep.items()]
        try:
            varied = Config.checked(values).override(texts)
        except ExperimentError as error:
            place = f"{self.name}, row {row}, column {column}"
            raise ExperimentError(f"{place}: {error}") from error
        return varied.model_copy(update={"sweep": dict(sweep)})


def written(value: Value) -> str:
    """Write a value for :meth:`Config.override`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def merged(values: Values, changes: Values) -> dict[str, Any]:
    """Change values, inside of sections too.

    Args:
        values: Nested values.
        changes: What differs.

    Returns:
        Both; where both have a value, that of the changes.
    """
    both = dict(values)
    for name, value in changes.items():
        inside = isinstance(value, Mapping) and isinstance(both.get(name), Mapping)
        both[name] = merged(both[name], value) if inside else value
    return both


def names() -> list[str]:
    """List the recipes."""
    folder = files(__package__).iterdir()
    return sorted(f.name.removesuffix(SUFFIX) for f in folder if f.name.endswith(SUFFIX))


def load(name: str) -> Recipe:
    """Load a recipe.

    Args:
        name: Its name, or the path of a file of one's own that ends in ``.toml``.

    Returns:
        The recipe.
    """
    return Recipe(called(name), file_of(name))


def called(name: str) -> str:
    """Give the name under which a recipe's runs are stored: of a file, that without its end."""
    return Path(name).stem if name.endswith(SUFFIX) else name


@cache
def file_of(name: str) -> RecipeFile:
    """Read the file of a recipe.

    Args:
        name: As for :func:`load`.

    Returns:
        Its content.

    Raises:
        ExperimentError: If there is no such recipe, or its file is not right.
    """
    own = name.endswith(SUFFIX)
    if not own and name not in names():
        raise ExperimentError(
            f"there is no recipe {unknown(name, names())}, or the path of a file ending in {SUFFIX}"
        )
    file = Path(name) if own else files(__package__) / f"{name}{SUFFIX}"
    try:
        content = RecipeFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ExperimentError(f"{name}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(f"{name}: not a TOML file ({error})") from error
    except ValidationError as error:
        raise ExperimentError(f"{name}: {in_words(error, RecipeFile)}") from error
    try:
        check_file(content, file_of(content.source) if content.source else None)
    except ExperimentError as error:
        raise ExperimentError(f"{name}: {error}") from error
    return content


def find_runs(
    recipe: Recipe,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
) -> list[Config]:
    """Pick some of a recipe's runs.

    Args:
        recipe: The recipe.
        rows: Labels of optimizers, none for all.
        columns: Labels of what is trained, none for all.
        seeds: Seeds, none for the recipe's.
        overrides: Assignments for :meth:`Config.override`; what a run varies itself stays.

    Returns:
        Their configurations.

    Raises:
        ExperimentError: If there is no such row or column.
    """
    for kind, asked, known in (("row", rows, recipe.rows), ("column", columns, recipe.columns)):
        for label in asked:
            if label not in known:
                raise ExperimentError(f"{recipe.name} has no {kind} {unknown(label, known)}")
    picked = [
        config
        for config in recipe.runs(seeds or None)
        if (not rows or config.row in rows) and (not columns or config.column in columns)
    ]
    return all_overridden(picked, overrides)


def all_overridden(configs: Sequence[Config], overrides: Sequence[str]) -> list[Config]:
    """Change configurations, each but for what it varies.

    Args:
        configs: The configurations.
        overrides: Assignments for :meth:`Config.override`.

    Returns:
        The changed ones.

    Raises:
        ExperimentError: If an assignment does not do for one; if it does for other rows, the
            message names them.
    """
    found, failures = [], []
    for config in configs:
        kept = [text for text in overrides if text.partition("=")[0].strip() not in config.sweep]
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
    """Make sure that some row has each setting: a misspelt one may be nearest to a later row's.

    Args:
        configs: The configurations.
        overrides: Assignments.

    Raises:
        ExperimentError: If none has one of them.
    """
    names = dict.fromkeys(name for c in configs for name in dotted_names(c.model_dump()))
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name not in names and not any(other.startswith(f"{name}.") for other in names):
            raise ExperimentError(no_setting(name, names))
