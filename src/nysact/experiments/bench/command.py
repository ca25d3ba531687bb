"""The command ``nysact bench``."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nysact.experiments.errors import ExperimentError


def bench(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(help="Models by name.", show_default="resnet32")
    ] = None,
    optimizers: Annotated[
        str, typer.Option(help="Optimizers by name, with commas between; SGD is always there.")
    ] = "nysact,foof,kfac,eva",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of one optimizer, such as nysact.rank=50."),
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of every optimizer with one.")] = None,
    cov_interval: Annotated[
        int | None, typer.Option(min=1, help="Steps between statistics, of every optimizer.")
    ] = None,
    inv_interval: Annotated[
        int | None, typer.Option(min=1, help="Steps between refreshes, of every optimizer.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples a batch.", show_default="by model")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels on a side.", show_default="by model")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the model, such as classes=100.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where to train.", show_default="an accelerator, else cpu"),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for autocast.")] = "fp32",
    channels_last: Annotated[bool, typer.Option(help="Memory format of the model.")] = False,
    cycles: Annotated[
        int | None,
        typer.Option(min=1, help="Cycles of costly steps timed.", show_default="by model"),
    ] = None,
    warm_up: Annotated[int, typer.Option(help="Steps before, left out.")] = 10,
    clock: Annotated[
        str,
        typer.Option(help="auto (events on CUDA, else wall), events, wall, or cpu time."),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads on the CPU.", show_default="torch's")
    ] = None,
    cudnn_benchmark: Annotated[
        bool, typer.Option(help="Let cuDNN try which of its kernels is fastest.")
    ] = False,
    split: Annotated[bool, typer.Option(help="Take the steps apart too.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure memory too.")] = True,
    seed: Annotated[int, typer.Option(help="Of the weights and the batch.")] = 0,
    json_file: Annotated[
        Path, typer.Option("--json", help="Where all figures and times go.")
    ] = Path("runs/bench.json"),
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Where the tables go too.")
    ] = None,
) -> None:
    """Measure time and memory of a training step, against SGD in the same process."""
    # Imported here, so that --help does not wait for it.
    import torch

    from nysact.experiments.bench.bench import BenchOptions, run_bench
    from nysact.experiments.bench.contender import parse_options, parse_settings
    from nysact.experiments.bench.report import as_data, report
    from nysact.experiments.demo import chosen_device, cpu_threads, make_writable
    from nysact.experiments.environment import environment

    try:
        options = BenchOptions(
            models=models or ["resnet32"],
            optimizers=[name.strip() for name in optimizers.split(",") if name.strip()],
            device=chosen_device(device),
            model_options=parse_options(option or ()),
            batch_size=batch_size,
            image_size=image_size,
            precision=precision,
            channels_last=channels_last,
            rank=rank,
            cov_interval=cov_interval,
            inv_interval=inv_interval,
            settings=parse_settings(settings or ()),
            cycles=cycles,
            warm_up=warm_up,
            clock=clock,
            split=split,
            memory=memory,
            seed=seed,
        )
        for file in (json_file, markdown_file):
            if file is not None:
                make_writable(file.parent)
        with cpu_threads(threads):
            torch.backends.cudnn.benchmark = cudnn_benchmark
            results = run_bench(options, typer.echo)
            setting = environment(options.device)
    except ExperimentError as error:
        Console(stderr=True).print(
            f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from error
    text = report(results, setting)
    typer.echo("\n" + text)
    if markdown_file is not None:
        markdown_file.write_text(text)
    given = {name: str(of) if isinstance(of, Path) else of for name, of in context.params.items()}
    data = {"environment": setting, "settings": given, "models": as_data(results)}
    json_file.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    typer.echo(f"written to {json_file}")
