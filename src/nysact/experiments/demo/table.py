"""The table at the end of a comparison."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from nysact.experiments.demo.comparison import Summary
from nysact.experiments.spread import mean_and_spread


def result_table(title: str, summaries: Sequence[Summary]) -> Table:
    """Lay out the results after the last epoch.

    Args:
        title: What was trained.
        summaries: One for each optimizer; times are relative to the first.

    Returns:
        A table for the terminal.
    """
    table = Table(title=title, caption=settings(summaries), box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("optimizer", no_wrap=True)
    # Narrow enough, in all, for a terminal of 80 columns.
    for heading in (
        "learning\nrate",
        "test\naccuracy, %",
        "training\nloss",
        f"step time,\n{summaries[0].name} = 1",
        "state,\nKiB",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            summary.name,
            f"{summary.learning_rate:g}",
            with_spread([curve[-1] for curve in summary.accuracies], digits=2),
            with_spread([curve[-1] for curve in summary.losses], digits=4),
            f"{summary.relative_time:.2f}",
            f"{summary.state_bytes / 1024:,.1f}",
        )
    return table


def with_spread(values: Sequence[float], digits: int) -> str:
    """Write the mean of one value a seed, with the standard deviation if there are several."""
    centre, spread = mean_and_spread(values)
    if len(values) == 1:
        return f"{centre:.{digits}f}"
    return f"{centre:.{digits}f} ± {spread:.{digits}f}"


def settings(summaries: Sequence[Summary]) -> str:
    """Write the settings of each optimizer, a line each."""
    return "\n".join(f"{summary.name}: {summary.settings}" for summary in summaries)
