"""How far each preconditioner turns the gradient: the picture of docs/reproduce.md.

A ResNet-20 is trained on Fashion-MNIST (batch 128) once with each optimizer, with the settings of
the paper's table 7 but without momentum and weight decay, so that a step is the learning rate times
the preconditioned gradient. Its cosine with the raw gradient is measured layer by layer at every
step: 1 means that the optimizer steps along the gradient, as SGD does.

    python benchmarks/directions.py             # about 4 minutes on 2 cores
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from nysact.experiments.baselines import find, training_step
from nysact.experiments.data.augmentation import Augmentation
from nysact.experiments.data.images import ImageSet
from nysact.experiments.data.loaders import DeviceLoader, Share
from nysact.experiments.data.small_images import load_fashion_mnist
from nysact.experiments.models import CifarResNet
from nysact.experiments.randomness import seeded_model
from nysact.experiments.report.style import legend_below, panel_grid, save, styles
from report import markdown, write_json

OPTIMIZERS = ("released-kfac", "kfac", "released-eva", "eva", "released-foof", "foof", "nysact")
# The paper's statistics are those of all samples.
ALL_SAMPLES = {"subsample": 1}


def cosines(name: str, data: ImageSet, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Train with an optimizer; give the cosine of each layer at each step."""
    model = seeded_model(lambda: CifarResNet(20, in_channels=1), args.seed)
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    baseline = find(name)
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    if name != "nysact" and "subsample" in baseline.defaults:
        plain |= ALL_SAMPLES
    optimizer = baseline.build(model, **plain)
    batches = DeviceLoader(data, args.batch_size, args.seed, Augmentation(), Share()).epoch(0)
    for step, (images, labels) in zip(range(args.steps), batches, strict=False):
        before = {n: weight.detach().clone() for n, weight in weights.items()}
        training_step(model, optimizer, F.cross_entropy, images, labels)
        for layer, weight in weights.items():
            assert weight.grad is not None
            value = cosine(before[layer] - weight.detach(), weight.grad)
            yield {"optimizer": baseline.title, "step": step, "layer": layer, "cosine": value}


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two tensors."""
    return float(F.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the mean over the layers by step, and each layer after the last step."""
    figure, (over_steps, over_layers) = panel_grid(2)
    look = styles(list(frame["optimizer"].unique()))
    last = frame[frame["step"] == frame["step"].max()]
    for title, mine in frame.groupby("optimizer", sort=False):
        means = mine.groupby("step")["cosine"].mean()
        over_steps.plot(means.index, means, **look[title], markevery=0.1, label=title)
        values = last["cosine"][last["optimizer"] == title].to_list()
        over_layers.plot(range(1, len(values) + 1), values, **look[title], label=title)
    over_steps.set(xlabel="step", ylabel="cosine with the gradient, mean over layers")
    over_layers.set(xlabel="layer", ylabel="cosine with the gradient after the last step")
    for axes in (over_steps, over_layers):
        axes.set_ylim(0, 1.02)
    legend_below(figure)
    return figure


def table(frame: pd.DataFrame) -> str:
    """Write mean, lowest and highest layer after the last step."""
    last = frame[frame["step"] == frame["step"].max()]
    values = last.groupby("optimizer", sort=False)["cosine"].agg(["mean", "min", "max"])
    rows = [[name, *(f"{value:.3f}" for value in line)] for name, *line in values.itertuples()]
    return markdown(["cosine with the gradient", "mean", "lowest layer", "highest layer"], rows)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=60)
    add("--batch-size", type=int, default=128)
    add("--seed", type=int, default=0)
    add("--optimizers", nargs="+", default=OPTIMIZERS)
    add("--folder", type=Path, help="folder of Fashion-MNIST's files, if not found otherwise")
    add("--output", type=Path, default=Path("runs"), help="folder of directions.json and .png")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table and draw the picture."""
    args = parse(argv)
    data, records = load_fashion_mnist(args.folder).train, []
    for name in args.optimizers:
        records += cosines(name, data, args)
        print(f"{name}: {args.steps} steps", flush=True)
    frame = pd.DataFrame(records)
    print("\n" + table(frame))
    settings = {n: str(v) if isinstance(v, Path) else v for n, v in vars(args).items()}
    write_json(args.output / "directions.json", {"settings": settings, "cosines": records})
    save(draw(frame), args.output / "directions")


if __name__ == "__main__":
    main()
