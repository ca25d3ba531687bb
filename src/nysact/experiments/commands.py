"""The commands of ``nysact``."""

import typer

from nysact.experiments.bench.command import bench, growth
from nysact.experiments.demo.command import demo
from nysact.experiments.recipes.command import recipes
from nysact.experiments.report.command import report
from nysact.experiments.run.command import train
from nysact.experiments.sweeps.commands import reproduce, sweep

app = typer.Typer(
    help="Experiments with the NysAct optimizer.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


app.command("demo")(demo)
app.command("bench")(bench)
app.command("growth")(growth)
app.command("train")(train)
app.command("recipes")(recipes)
app.command("report")(report)
app.command("reproduce")(reproduce)
app.command("sweep")(sweep)


@app.callback()
def nysact() -> None:
    """Experiments with the NysAct optimizer."""
