"""The command ``nysact theory``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nysact.experiments.error_message import errors_shown


def theory(
    output: Annotated[Path, typer.Option(help="Folder for tables and pictures.")] = Path("theory"),
) -> None:
    """Check the claims of the paper's section 5 by experiment, in some 90 seconds on one core."""
    # Imported here, so that --help does not wait for it.
    from nysact.experiments.theory.check import Size, run_experiments, write_findings
    from nysact.experiments.threads import cpu_threads

    console = Console()
    with errors_shown(), cpu_threads(1):
        findings = run_experiments(
            Size(), lambda what: console.print(f"Measuring {what} ...", highlight=False)
        )
        files = write_findings(findings, output)
    table = Table("claim", "holds", "found", box=None, pad_edge=False)
    for verdict in findings.verdicts:
        table.add_row(verdict.claim, verdict.in_words, verdict.found)
    console.print(table)
    for path in files:
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    if not all(verdict.holds or verdict.control for verdict in findings.verdicts):
        raise typer.Exit(1)
