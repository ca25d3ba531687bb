"""The commands ``nysact bench`` and ``nysact growth``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nysact.experiments.error_message import errors_shown
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
    from nysact.experiments.bench.environment import environment
    from nysact.experiments.bench.report import as_data, report
    from nysact.experiments.demo.demo import chosen_device, make_writable
    from nysact.experiments.threads import cpu_threads

    with errors_shown():
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
    text = report(results, setting)
    typer.echo("\n" + text)
    if markdown_file is not None:
        markdown_file.write_text(text)
    write(json_file, context, {"environment": setting, "models": as_data(results)})


def growth(
    context: typer.Context,
    dims: Annotated[
        str, typer.Option(help="Inputs of the layer, with commas between.")
    ] = "64,128,256,512,1024,2048,4096,8192,16384",
    rank: Annotated[int, typer.Option(min=1, help="Rank while the inputs grow.")] = 10,
    ranks: Annotated[str, typer.Option(help="Ranks, with commas between.")] = "5,10,20,50,100,200",
    dim: Annotated[int, typer.Option(min=1, help="Inputs while the rank grows.")] = 1024,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = 512,
    outputs: Annotated[int, typer.Option(min=1, help="Outputs of the layer.")] = 256,
    most_seconds: Annotated[
        float, typer.Option(help="An optimizer stops where a step could take longer.")
    ] = 20.0,
    most_gib: Annotated[
        float, typer.Option(help="And where it could take more memory, in GiB.")
    ] = 4.0,
    device: Annotated[
        str | None,
        typer.Option(help="Where to train.", show_default="an accelerator, else cpu"),
    ] = None,
    clock: Annotated[
        str,
        typer.Option(help="auto (events on CUDA, else wall), events, wall, or cpu time."),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads on the CPU.", show_default="torch's")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for growth.json, growth.md and the pictures.")
    ] = Path("runs"),
) -> None:
    """Measure how the cost grows with a layer's inputs and the rank, against dense inverses."""
    from nysact.experiments.bench.environment import environment
    from nysact.experiments.bench.growth import GrowthOptions, measure_growth
    from nysact.experiments.bench.growth_report import as_data, draw, tables
    from nysact.experiments.demo.demo import chosen_device, make_writable
    from nysact.experiments.threads import cpu_threads

    with errors_shown():
        options = GrowthOptions(
            device=chosen_device(device),
            dims=numbers(dims, "--dims"),
            ranks=numbers(ranks, "--ranks"),
            rank=rank,
            dim=dim,
            rows=rows,
            outputs=outputs,
            most_seconds=most_seconds,
            most_bytes=most_gib * 2**30,
            clock=clock,
        )
        make_writable(output)
        with cpu_threads(threads):
            found = measure_growth(options, typer.echo)
            setting = environment(options.device)
    subject = f"one linear layer, {outputs} outputs, {rows} rows, {setting['device_name']}"
    text = tables(found)
    typer.echo("\n" + text)
    (output / "growth.md").write_text(text)
    for points, by, fixed in (
        (found.by_dim, "dim", f"rank {rank}"),
        (found.by_rank, "rank", f"d = {dim}"),
    ):
        files = [output / f"growth-{by}.{ending}" for ending in ("png", "svg")]
        draw(points, by, f"{subject}, {fixed}", files)
        typer.echo(f"drawn to {files[0]} and {files[1].name}")
    write(output / "growth.json", context, {"environment": setting, **as_data(found)})


def write(file: Path, context: typer.Context, content: dict[str, Any]) -> None:
    """Write results as JSON, with the options that the user gave or that stood for them."""
    given = {name: str(of) if isinstance(of, Path) else of for name, of in context.params.items()}
    data = {"settings": given, **content}
    file.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    typer.echo(f"written to {file}")


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Read whole numbers with commas between.

    Args:
        text: What the user wrote.
        option: The option's name.

    Returns:
        The numbers.

    Raises:
        ExperimentError: If it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ExperimentError(
            f"{option} {text}: expected whole numbers with commas between, such as 64,128,256"
        ) from None
