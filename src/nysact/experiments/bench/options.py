"""The options of ``nysact bench`` and ``nysact growth``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from nysact.experiments.errors import ExperimentError

# Rounds before the estimate of the time: one with statistics and refresh, two without.
TRIAL = 3

BY_MODEL = "by model"

Texts = list[str] | None
Number = int | None
Numbers = list[int] | None
Device = Annotated[
    str | None, Option(help="Where to train.", show_default="an accelerator, else cpu")
]
Threads = Annotated[Number, Option(min=1, help="Threads on the CPU.", show_default="torch's")]


@dataclass(frozen=True)
class BenchOptions:
    """What ``nysact bench`` measures."""

    models: Annotated[Texts, Argument(help="Models by name.", show_default="resnet32")] = None
    optimizers: Annotated[
        str, Option(help="Optimizers by name, separated by commas; SGD is always included.")
    ] = "nysact,foof,kfac,eva"
    settings: Annotated[
        Texts, Option("--set", help="A setting of one optimizer, such as nysact.rank=50.")
    ] = None
    rank: Annotated[Number, Option(min=1, help="Of every optimizer with one.")] = None
    cov_interval: Annotated[
        Number, Option(min=1, help="Steps between statistics, of every optimizer.")
    ] = None
    inv_interval: Annotated[
        Number, Option(min=1, help="Steps between refreshes, of every optimizer.")
    ] = None
    batch_size: Annotated[Number, Option(min=1, help="Samples.", show_default=BY_MODEL)] = None
    image_size: Annotated[Number, Option(min=1, help="Pixels.", show_default=BY_MODEL)] = None
    option: Annotated[Texts, Option(help="An option of the model, such as classes=100.")] = None
    device: Device = None
    precision: Annotated[str, Option(help="fp32, or bf16 for autocast.")] = "fp32"
    channels_last: Annotated[bool, Option(help="Memory format of the model.")] = False
    cycles: Annotated[
        Number, Option(min=1, help="Cycles of costly steps timed.", show_default=BY_MODEL)
    ] = None
    warm_up: Annotated[int, Option(help="Steps before, left out.")] = 10
    clock: Annotated[
        str, Option(help="auto (events on a GPU, else wall), events, wall, or cpu time.")
    ] = "auto"
    threads: Threads = None
    cudnn_benchmark: Annotated[bool, Option(help="Let cuDNN find its fastest kernels.")] = False
    split: Annotated[bool, Option(help="Measure the phases of a step too.")] = True
    memory: Annotated[bool, Option(help="Measure memory too.")] = True
    seed: Annotated[int, Option(help="Of the weights and the batch.")] = 0
    json_file: Annotated[Path, Option("--json", help="All figures and step times.")] = Path(
        "runs/bench.json"
    )
    markdown_file: Annotated[Path | None, Option("--markdown", help="The tables.")] = None

    def __post_init__(self) -> None:
        if self.warm_up < TRIAL:
            raise ExperimentError(
                f"--warm-up {self.warm_up}: expected {TRIAL} steps or more, from which the "
                "remaining time is estimated"
            )

    @property
    def optimizer_names(self) -> list[str]:
        """The optimizers one by one."""
        return [name.strip() for name in self.optimizers.split(",") if name.strip()]

    @property
    def shared(self) -> dict[str, Any]:
        """The settings of every optimizer that has them."""
        names = ("rank", "cov_interval", "inv_interval")
        chosen = {name: getattr(self, name) for name in names}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class ScalingOptions:
    """What ``nysact growth`` measures."""

    dims: Annotated[
        Numbers, Option(min=1, help="Inputs of the layer.", show_default="64 to 16384")
    ] = None
    rank: Annotated[int, Option(min=1, help="Rank while the inputs grow.")] = 10
    ranks: Annotated[Numbers, Option(min=1, help="Ranks.", show_default="5 to 200")] = None
    dim: Annotated[int, Option(min=1, help="Inputs while the rank grows.")] = 1024
    rows: Annotated[int, Option(min=1, help="Rows of a batch.")] = 512
    outputs: Annotated[int, Option(min=1, help="Outputs of the layer.")] = 256
    most_seconds: Annotated[float, Option(help="Stop where a step could take longer.")] = 20.0
    most_gib: Annotated[float, Option(help="Stop where it could take more GiB.")] = 4.0
    device: Device = None
    threads: Threads = None
    output: Annotated[Path, Option(help="Folder for tables, figures, growth.json.")] = Path("runs")

    def __post_init__(self) -> None:
        if self.rank >= self.dim_list[0]:
            raise ExperimentError(
                f"--rank {self.rank}: expected less than the smallest of --dims, "
                f"{self.dim_list[0]}; at full rank the inverse is exact and costs what FOOF's does"
            )
        if self.rank_list[-1] >= self.dim:
            raise ExperimentError(
                f"--dim {self.dim}: expected more than the largest of --ranks, {self.rank_list[-1]}"
            )

    @property
    def dim_list(self) -> list[int]:
        """The numbers of inputs, the smallest first."""
        return sorted(self.dims or [2**power for power in range(6, 15)])

    @property
    def rank_list(self) -> list[int]:
        """The ranks, the smallest first."""
        return sorted(self.ranks or [5, 10, 20, 50, 100, 200])
