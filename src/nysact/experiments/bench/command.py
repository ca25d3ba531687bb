"""The commands ``nysact bench`` and ``nysact growth`` with their options."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from nysact.experiments.bench.options import BenchOptions, ScalingOptions
from nysact.experiments.options import as_command


def run_bench(options: BenchOptions) -> None:
    """Measure time and memory of a training step, against SGD in the same process."""
    # Imported here, so that --help does not wait for it.
    import torch

    from nysact.experiments.bench.measure import measure_models
    from nysact.experiments.bench.report import as_data, report
    from nysact.experiments.devices import chosen_device, cpu_threads
    from nysact.experiments.environment import environment
    from nysact.experiments.files import check_writable, write_text

    device = chosen_device(options.device)
    for file, option in ((options.json_file, "--json"), (options.markdown_file, "--markdown")):
        if file is not None:
            check_writable(file.parent, option)
    with cpu_threads(options.threads):
        torch.backends.cudnn.benchmark = options.cudnn_benchmark
        results = measure_models(options, device, typer.echo)
        setting = environment(device)
    text = report(results, setting)
    typer.echo("\n" + text)
    if options.markdown_file is not None:
        write_text(options.markdown_file, text)
    content = {"environment": setting, "models": [as_data(of) for of in results]}
    write_results(options.json_file, options, content)


def run_growth(options: ScalingOptions) -> None:
    """Measure how the cost scales with a layer's inputs and the rank, against dense inverses."""
    from nysact.experiments.bench.scaling import draw, measure_scaling, tables
    from nysact.experiments.devices import chosen_device, cpu_threads
    from nysact.experiments.environment import environment
    from nysact.experiments.files import check_writable, write_text
    from nysact.experiments.report.style import save

    device = chosen_device(options.device)
    check_writable(options.output, "--output")
    with cpu_threads(options.threads):
        found = measure_scaling(options, device, typer.echo)
        setting = environment(device)
    text = tables(found)
    typer.echo("\n" + text)
    write_text(options.output / "growth.md", text)
    subject = f"one linear layer, {options.outputs} outputs, {options.rows} rows"
    fixed = {"dim": f"rank {options.rank}", "rank": f"d = {options.dim}"}
    for by, points in {"dim": found.by_dim, "rank": found.by_rank}.items():
        figure = draw(points, by, f"{subject}, {setting['device_name']}, {fixed[by]}")
        files = save(figure, options.output / f"growth-{by}")
        typer.echo(f"drawn to {files[0]} and {files[1].name}")
    results = options.output / "growth.json"
    write_results(results, options, {"environment": setting, **asdict(found)})


def write_results(
    file: Path, options: BenchOptions | ScalingOptions, content: dict[str, Any]
) -> None:
    """Write results as JSON, with the options that they were measured with."""
    from nysact.experiments.files import write_json

    given = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    write_json(file, {"settings": given, **content})
    typer.echo(f"written to {file}")


bench = as_command(BenchOptions, run_bench)
growth = as_command(ScalingOptions, run_growth)
