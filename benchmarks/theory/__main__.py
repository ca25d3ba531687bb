"""Check the claims of the paper's section 5 by experiment: about 90 seconds on one core.

make theory                                  # or: python -m benchmarks.theory --output FOLDER
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from benchmarks.theory.check import Size, run_experiments, write_findings
from rich.console import Console
from rich.table import Table

from nysact.experiments.errors import errors_shown


def theory(
    output: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("theory"),
) -> None:
    """Check the claims of the paper's section 5; exit with status 1 if one does not hold."""
    torch.set_num_threads(1)
    console = Console()
    with errors_shown():
        findings = run_experiments(
            Size(), lambda what: console.print(f"Measuring {what} ...", highlight=False)
        )
        files = write_findings(findings, output)
    table = Table("claim", "holds", "measured", box=None, pad_edge=False)
    for verdict in findings.verdicts:
        holds = "yes" if verdict.holds else "no"
        table.add_row(verdict.claim, holds + " (control)" * verdict.control, verdict.found)
    console.print(table)
    for path in files:
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    if not all(verdict.holds or verdict.control for verdict in findings.verdicts):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(theory)
