"""The learning rates of the demo: a grid for each optimizer, of the same size for each.

The demo's training images are cut into fifths. Each fold holds out one of them, trains on the
others with a seed that the demo does not use, and the accuracy on what is held out decides, mean
over the folds; between equal ones the lower training loss. The test images play no part.

    python benchmarks/learning_rates.py                                  # about 3 minutes
    python benchmarks/learning_rates.py --data fashion-mnist --folds 1

The choices stand in nysact/experiments/demo/tasks.py; for the digits with what came of them.
The rates for Fashion-MNIST are still the paper's, not those of a grid.
"""

import argparse
from collections.abc import Sequence
from statistics import fmean

import torch

from nysact.experiments.data.images import Data
from nysact.experiments.demo.comparison import Entry, Plan, Progress, Summary, compare
from nysact.experiments.demo.contenders import CONTENDERS
from nysact.experiments.demo.tasks import TASKS, Task
from report import markdown

GRIDS = {
    "digits": {
        "SGD": (0.03, 0.1, 0.3, 1.0, 3.0),
        "AdamW": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        "NysAct": (0.03, 0.1, 0.3, 1.0, 3.0),
    },
    "fashion-mnist": {
        "SGD": (0.03, 0.1, 0.3, 1.0),
        "AdamW": (1e-3, 3e-3, 1e-2, 3e-2),
        "NysAct": (0.03, 0.1, 0.3, 1.0),
    },
}
FIRST_SEED = 100
FIFTHS = 5


def held_out(data: Data, fold: int) -> Data:
    """Put one fifth of the training images in the place of the test images."""
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(1))
    parts = list(order.chunk(FIFTHS))
    test = parts.pop(fold)
    return Data(data.train.subset(torch.cat(parts)), data.train.subset(test), data.flip)


def results(task: Task, data: Data, entries: Sequence[Entry], fold: int) -> list[Summary]:
    """Train with every learning rate on one fold."""
    seeds = [FIRST_SEED + fold]
    plan = Plan(entries, task.build_model, task.epochs, task.batch_size, seeds)
    return compare(plan, held_out(data, fold), on_epoch=report_progress)


def report_progress(progress: Progress) -> None:
    print(f"seed {progress.seed}, epoch {progress.epoch}", flush=True)


def row(folds: Sequence[Summary]) -> list[str]:
    accuracy = fmean(fold.accuracies[0][-1] for fold in folds)
    loss = fmean(fold.losses[0][-1] for fold in folds)
    return [folds[0].name, f"{folds[0].learning_rate:g}", f"{accuracy:.2f}", f"{loss:.4f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the learning rates of the demo.")
    parser.add_argument("--data", choices=tuple(GRIDS), default="digits")
    parser.add_argument("--folds", type=int, choices=range(1, FIFTHS + 1), default=FIFTHS)
    options = parser.parse_args()
    task, grids = TASKS[options.data], GRIDS[options.data]
    data = task.load(None).with_train_size(task.train_size)
    entries = [Entry(contender, rate) for contender in CONTENDERS for rate in grids[contender.name]]
    folds = [results(task, data, entries, fold) for fold in range(options.folds)]
    header = ["optimizer", "learning rate", "held-out accuracy, %", "training loss"]
    print(markdown(header, [row(summaries) for summaries in zip(*folds, strict=True)]))


if __name__ == "__main__":
    main()
