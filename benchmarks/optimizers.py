"""Every optimizer of the registry trains LeNet-5 on Fashion-MNIST: see docs/optimizers.md.

10,000 images, 2 epochs, batch 128, random flips, the learning rate falling from its default to 0
along half a cosine; every setting is the registry's default. The runs of one seed start from the
same weights, see the same batches and take turns, step by step, so that a slow moment of the
machine slows all of them. Accuracy and training loss (mean over the last epoch) are mean and
standard deviation over the seeds. Time is that of whole training steps, forward and backward
included: the median, over windows of 50 steps, of the ratio to SGD's time in the same window.
State is the bytes of the optimizer's tensors relative to SGD's momentum buffers.

    python benchmarks/optimizers.py                          # about 10 minutes on 2 cores
    python benchmarks/optimizers.py --optimizers kbfgs --seeds 0     # SGD is added for comparison
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from nysact.experiments.baselines import BASELINES
from nysact.experiments.baselines.registry import in_words
from nysact.experiments.data.fashion_mnist import load_fashion_mnist
from nysact.experiments.demo.comparison import Entry, Plan, Progress, Summary, compare
from nysact.experiments.demo.contenders import contender
from nysact.experiments.models import lenet5
from nysact.experiments.spread import mean_and_spread
from report import markdown, write_json

REFERENCE = "sgd"


def plan_for(args: argparse.Namespace) -> Plan:
    others = [name for name in args.optimizers if name != REFERENCE]
    names = [REFERENCE, *others]
    entries = [Entry(contender(name), BASELINES[name].defaults["lr"]) for name in names]
    return Plan(entries, lenet5, args.epochs, args.batch_size, args.seeds)


def report_progress(progress: Progress) -> None:
    results = ", ".join(f"{run.name} {run.accuracies[-1]:.2f}" for run in progress.runs)
    print(f"seed {progress.seed}, epoch {progress.epoch}: {results}", flush=True)


def result_table(summaries: Sequence[Summary]) -> str:
    reference = summaries[0].state_bytes
    headings = ["optimizer", "test accuracy, %", "training loss", "time", "state"]
    rows = [
        [
            summary.name,
            spread([curve[-1] for curve in summary.accuracies], 2),
            spread([curve[-1] for curve in summary.losses], 3),
            f"{summary.relative_time:.2f}",
            f"{summary.state_bytes / reference:.1f}",
        ]
        for summary in summaries
    ]
    return markdown(headings, rows)


def spread(values: Sequence[float], digits: int) -> str:
    mean, deviation = mean_and_spread(values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def registry_table() -> str:
    lines = ["| name | optimizer | default settings | source |", "|---|---|---|---|"]
    for name, entry in BASELINES.items():
        cells = (f"`{name}`", entry.title, in_words(entry.defaults), entry.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--optimizers", nargs="+", default=list(BASELINES), choices=list(BASELINES), metavar="NAME")
    add("--train-size", type=int, default=10_000)
    add("--epochs", type=int, default=2)
    add("--batch-size", type=int, default=128)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, default=1, help="LeNet-5's tensors gain little from more")
    add("--folder", type=Path, help="folder of Fashion-MNIST's files, if not found otherwise")
    add("--json", type=Path, default=Path("runs/optimizers.json"), help="where results go")
    return parser.parse_args(argv)


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    data = load_fashion_mnist(args.folder).with_train_size(args.train_size)
    summaries = compare(plan_for(args), data, on_epoch=report_progress)
    print("\n" + result_table(summaries) + "\n\n" + registry_table())
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    write_json(
        args.json,
        {"settings": settings, "results": [asdict(summary) for summary in summaries]},
    )


if __name__ == "__main__":
    main()
