"""How far each preconditioner turns the gradient: the picture of docs/reproduce.md.

A ResNet-20 is trained on Fashion-MNIST once with each optimizer, with the settings of the paper's
table 7 but without momentum and weight decay, so that a step is the learning rate times the
preconditioned gradient. Its cosine with the raw gradient is measured at every step, by layer and
over all layers together: 1 means that the optimizer steps along the gradient, as SGD does.

The released averages start at the identity and have a decay of 0.95, so that this start is
forgotten after some 180 updates, 900 steps of the paper. Here statistics are taken at every step
with a decay of 0.8, and it is forgotten after 40.

    python benchmarks/directions.py             # about 3 minutes on 2 cores
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
SETTINGS = {"momentum": 0.0, "weight_decay": 0.0, "subsample": 1, "stat_decay": 0.8}
TOGETHER = "all layers"


def cosines(name: str, data: ImageSet, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Train with an optimizer; give the cosine of each layer, and of all together, at each step."""
    model = seeded_model(lambda: CifarResNet(20, in_channels=1), args.seed)
    weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    baseline = find(name)
    settings = {**SETTINGS, "cov_interval": 1, "inv_interval": args.inv_interval}
    if baseline.defaults["stat_decay"] < 0.5:  # Eva's vectors are new, and act at once
        settings |= {"stat_decay": baseline.defaults["stat_decay"], "inv_interval": 1}
    known = {n: value for n, value in settings.items() if n in baseline.defaults}
    optimizer = baseline.build(model, **known)
    batches = DeviceLoader(data, args.batch_size, args.seed, Augmentation(), Share()).epoch(0)
    for step, (images, labels) in zip(range(args.steps), batches, strict=False):
        before = {n: weight.detach().clone() for n, weight in weights.items()}
        training_step(model, optimizer, F.cross_entropy, images, labels)
        pairs = {n: (before[n] - w.detach(), w.grad) for n, w in weights.items()}
        flat = {n: [part.flatten().double() for part in pair] for n, pair in pairs.items()}
        flat[TOGETHER] = [torch.cat(parts) for parts in zip(*flat.values(), strict=True)]
        for layer, (move, gradient) in flat.items():
            value = float(F.cosine_similarity(move, gradient, dim=0))
            yield {"optimizer": baseline.title, "step": step, "layer": layer, "cosine": value}


def draw(frame: pd.DataFrame) -> Figure:
    """Draw the cosine over all layers by step, and that of each layer after the last step."""
    figure, (over_steps, over_layers) = panel_grid(2)
    look = styles(list(frame["optimizer"].unique()))
    for title, mine in frame.groupby("optimizer", sort=False):
        whole = mine[mine["layer"] == TOGETHER]
        over_steps.plot(whole["step"], whole["cosine"], **look[title], markevery=0.1, label=title)
        values = at_the_end(mine)["cosine"].to_list()
        over_layers.plot(range(1, len(values) + 1), values, **look[title], label=title)
    over_steps.set(xlabel="step", ylabel="cosine with the gradient, all layers")
    over_layers.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_layers.set(xlabel="layer", ylabel="cosine with the gradient, last step")
    for axes in (over_steps, over_layers):
        axes.set_ylim(0, 1.02)
    legend_below(figure)
    return figure


def at_the_end(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the layers at the last step."""
    return frame[(frame["step"] == frame["step"].max()) & (frame["layer"] != TOGETHER)]


def table(frame: pd.DataFrame) -> str:
    """Write the cosine over all layers, and those of the layers, at the last step."""
    whole = frame[frame["layer"] == TOGETHER].groupby("optimizer", sort=False)["cosine"].last()
    values = at_the_end(frame).groupby("optimizer", sort=False)["cosine"].agg(["min", "max"])
    rows = [
        [name, *(f"{value:.3f}" for value in line)]
        for name, *line in pd.concat([whole, values], axis=1).itertuples()
    ]
    return markdown(["cosine with the gradient", TOGETHER, "lowest", "highest"], rows)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=51)
    add("--batch-size", type=int, default=32)
    add("--inv-interval", type=int, default=10)
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
