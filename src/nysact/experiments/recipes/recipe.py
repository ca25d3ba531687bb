"""A recipe: a file of settings for all the runs of a table or a figure.

The section ``run`` holds what all have in common, in the form of
:class:`~nysact.experiments.config.Config`. Each entry of ``columns`` and of ``rows`` changes some
of it, ``columns.X.rows.Y`` what holds in one cell alone, and each of ``sweeps`` varies one setting,
of all rows or of some; rows without a sweep are run once. A recipe with ``source`` has no runs of
its own: it shows those of the recipe named there, or the ``columns`` of it that it lists.
"""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationError

from nysact.experiments.config import Config, Value
from nysact.experiments.config.assignments import value_text
from nysact.experiments.config.errors import describe_error
from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.recipes.recipe_file import OF_SETTINGS, RecipeFile, check_file

SUFFIX = ".toml"


class Recipe:
    """All runs of a table or a figure, and how they are shown."""

    def __init__(self, name: str, content: RecipeFile) -> None:
        self.name = name
        self.title = content.title
        self.report = content.report
        self.seeds = tuple(content.seeds)
        self.paper = content.paper
        # The recipe whose runs it shows, usually itself; runs are stored under that name.
        self.source = stored_name(content.source or name)
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

    def runs(self, seeds: Sequence[int] | None = None) -> list[Config]:
        """Make the configurations of all rows, columns, varied values and seeds."""
        return [
            self.config(row, column, sweep, seed)
            for column in self.columns
            for row in self.rows
            for sweep in self._settings(row)
            for seed in (self.seeds if seeds is None else seeds)
        ]

    def _settings(self, row: str) -> list[dict[str, Value]]:
        """List what is varied in a row."""
        sweeps = [s for s in self._content.sweeps if s.rows is None or row in s.rows]
        return [{s.name: value} for s in sweeps for value in s.values] or [{}]

    def config(self, row: str, column: str, sweep: Mapping[str, Value], seed: int) -> Config:
        """Make the configuration of a run."""
        values = self._merged(row, column) | {"seed": seed}
        try:
            config = Config.checked(values)
            config = config.override(f"{name}={value_text(v)}" for name, v in sweep.items())
        except ExperimentError as error:
            raise ExperimentError(f"{self.name}, row {row}, column {column}: {error}") from error
        return config.model_copy(update={"sweep": dict(sweep)})

    def _merged(self, row: str, column: str) -> dict[str, Any]:
        """Merge the sections that a cell consists of; the last one that has a setting counts."""
        assert isinstance(self._content.columns, dict)
        of_column = dict(self._content.columns[column])
        cell = of_column.pop("rows", {}).get(row, {})
        labels = {"recipe": self.source, "row": row, "column": column}
        sections = (labels, self._content.run, of_column, self._content.rows[row], cell)
        merged: Any = OmegaConf.to_container(OmegaConf.merge(*sections))
        return dict(merged)


def names() -> list[str]:
    """List the recipes."""
    folder = files(__package__).iterdir()
    return sorted(f.name.removesuffix(SUFFIX) for f in folder if f.name.endswith(SUFFIX))


def load(name: str) -> Recipe:
    """Load a recipe by its name, or from a file that ends in ``.toml``."""
    return Recipe(stored_name(name), file_of(name))


def stored_name(name: str) -> str:
    """The name under which a recipe's runs are stored; that of a file is its stem."""
    return Path(name).stem if name.endswith(SUFFIX) else name


def file_of(name: str) -> RecipeFile:
    """Read and check the file of a recipe."""
    own = name.endswith(SUFFIX)
    if not own and name not in names():
        raise ExperimentError(
            f"there is no recipe {unknown(name, names())}, or the path of a file ending in {SUFFIX}"
        )
    file = Path(name) if own else files(__package__) / f"{name}{SUFFIX}"
    try:
        content = RecipeFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
        check_file(content, file_of(content.source) if content.source else None)
    except OSError as error:
        raise ExperimentError(f"{name}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(f"{name}: not a TOML file ({error})") from error
    except ValidationError as error:
        raise ExperimentError(f"{name}: {describe_error(error, RecipeFile)}") from error
    except ExperimentError as error:
        raise ExperimentError(f"{name}: {error}") from error
    return content
