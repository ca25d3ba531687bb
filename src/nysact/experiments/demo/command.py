"""The command ``nysact demo``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nysact.experiments.errors import ExperimentError
from nysact.experiments.options import Cpu, as_command

if TYPE_CHECKING:
    from nysact.experiments.config import Config

# The recipe of each data set.
RECIPES = {"digits": "demo", "fashion-mnist": "fashion-demo"}
FOLDER = typer.Option(
    help="Folder with Fashion-MNIST's four IDX files, plain or .gz.",
    show_default="looked for, else downloaded",
)


def count(meaning: str, default: str | bool = "by data") -> Any:
    """Make an option that takes a whole number from 1 up."""
    return typer.Option(help=meaning, show_default=default, min=1, metavar="N")


@dataclass(frozen=True)
class DemoOptions:
    """What ``nysact demo`` trains."""

    data: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits"
    folder: Annotated[Path | None, FOLDER] = None
    train_size: Annotated[int | None, count("Training images used.")] = None
    epochs: Annotated[int | None, count("Passes over them.")] = None
    seeds: Annotated[int, count("Trainings of each optimizer.", default=True)] = 3
    batch_size: Annotated[int | None, count("Images a batch.")] = None
    output: Annotated[Path, typer.Option(help="Folder for the runs and the picture.")] = Path(
        "nysact-demo"
    )
    cpu: Cpu = False

    def configs(self) -> "list[Config]":
        """The runs, one seed after the other, so that a slow moment meets all alike."""
        from nysact.experiments.recipes import find_runs, load

        if self.data not in RECIPES:
            raise ExperimentError(f"--data {self.data}: expected one of {', '.join(RECIPES)}")
        if self.folder and self.data == "digits":
            raise ExperimentError(
                f"--folder {self.folder}: --data digits reads no folder; omit --folder"
            )
        settings = ("data.folder", "data.train_size", "epochs", "batch_size")
        values = (self.folder, self.train_size, self.epochs, self.batch_size)
        pairs = zip(settings, values, strict=True)
        given = [f"{name}={value}" for name, value in pairs if value is not None]
        configs = find_runs(load(RECIPES[self.data]), seeds=range(self.seeds), overrides=given)
        return sorted(configs, key=lambda config: config.seed)


def run_demo(options: DemoOptions) -> None:
    """Compare SGD, AdamW and NysAct on real data: a table, and a picture of the curves."""
    from nysact.experiments import summary
    from nysact.experiments.files import check_writable
    from nysact.experiments.metrics import METRICS
    from nysact.experiments.recipes import load
    from nysact.experiments.report.figures import curve_figure
    from nysact.experiments.report.results import collect
    from nysact.experiments.report.style import save
    from nysact.experiments.run.display import display_for
    from nysact.experiments.run.runner import run
    from nysact.experiments.run.store import load_run

    configs, console = options.configs(), Console()
    check_writable(options.output, "--output")
    recipe, display, folder = load(configs[0].recipe), display_for(console), options.output / "runs"
    runs = [load_run(run(each, folder, display=display, cpu=options.cpu)) for each in configs]
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
        path = (options.output / f"demo-{options.data}.png").resolve()
        save(figure, path.with_suffix(""))
        console.print(f"Curves: {path}", soft_wrap=True, highlight=False, markup=False)


demo = as_command(DemoOptions, run_demo)
