"""The command ``nysact demo``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nysact.experiments import options
from nysact.experiments.error_message import errors_shown

if TYPE_CHECKING:
    from nysact.experiments.config import Config
    from nysact.experiments.run.store import StoredRun

# The recipe of each data set.
RECIPES = {"digits": "demo", "fashion-mnist": "fashion-demo"}


def count(meaning: str, default: str | bool = "by data") -> Any:
    """Make an option that takes a whole number from 1 up."""
    return typer.Option(help=meaning, show_default=default, min=1, metavar="N")


def demo(
    data: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder with Fashion-MNIST's four IDX files, plain or .gz.",
            show_default="looked for, else downloaded",
        ),
    ] = None,
    train_size: Annotated[int | None, count("Training images used.")] = None,
    epochs: Annotated[int | None, count("Passes over them.")] = None,
    seeds: Annotated[int, count("Trainings of each optimizer.", default=True)] = 3,
    batch_size: Annotated[int | None, count("Images a batch.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the runs and the picture.")] = Path(
        "nysact-demo"
    ),
    cpu: options.Cpu = False,
) -> None:
    """Compare SGD, AdamW and NysAct on real data: a table, and a picture of the curves."""
    changes = {
        "data.folder": folder,
        "data.train_size": train_size,
        "epochs": epochs,
        "batch_size": batch_size,
    }
    with errors_shown():
        configs = configs_of(data, changes, seeds)
        show(trained(configs, output, cpu=cpu), output / f"demo-{data}", Console())


def configs_of(data: str, changes: dict[str, Any], seeds: int) -> "list[Config]":
    """The runs of the demo, one seed after the other, so that a slow moment meets all alike."""
    from nysact.experiments.errors import ExperimentError
    from nysact.experiments.recipes import find_runs, load

    if data not in RECIPES:
        raise ExperimentError(f"--data {data}: expected one of {', '.join(RECIPES)}")
    if changes["data.folder"] and data == "digits":
        raise ExperimentError(
            f"--folder {changes['data.folder']}: --data {data} reads no folder; omit --folder"
        )
    given = [f"{name}={value}" for name, value in changes.items() if value is not None]
    configs = find_runs(load(RECIPES[data]), seeds=range(seeds), overrides=given)
    return sorted(configs, key=lambda config: config.seed)


def trained(configs: "Sequence[Config]", output: Path, *, cpu: bool) -> "list[StoredRun]":
    """Train what is not finished, and read all the runs."""
    from nysact.experiments.files import check_writable
    from nysact.experiments.run.display import display_for
    from nysact.experiments.run.runner import run
    from nysact.experiments.run.store import load_run

    check_writable(output, "--output")
    display = display_for(Console())
    return [load_run(run(each, output / "runs", display=display, cpu=cpu)) for each in configs]


def show(runs: "Sequence[StoredRun]", picture: Path, console: Console) -> None:
    """Print the table of the runs, and draw their curves."""
    from nysact.experiments import summary
    from nysact.experiments.metrics import METRICS
    from nysact.experiments.recipes import load
    from nysact.experiments.report.figures import curve_figure
    from nysact.experiments.report.results import collect
    from nysact.experiments.report.style import save

    recipe = load(runs[0].config["recipe"])
    reference = recipe.report.reference
    columns = {
        "learning\nrate": summary.learning_rate,
        "test\naccuracy, %": summary.final("test_accuracy"),
        "training\nloss": summary.final("train_loss"),
        f"step time,\n{reference} = 1": summary.time_relative_to(
            [stored for stored in runs if stored.config["row"] == reference]
        ),
        "state,\nKiB": summary.state_kib,
    }
    console.print(summary.summary_table(runs, columns, recipe.title))
    metrics = [METRICS[name] for name in ("train_loss", "test_accuracy")]
    figure = curve_figure(collect(recipe.name, runs, recipe), metrics, by="epoch")
    if figure is not None:
        save(figure, picture)
        path = picture.with_suffix(".png").resolve()
        console.print(f"Curves: {path}", soft_wrap=True, highlight=False, markup=False)
