"""Every optimizer of the registry trains LeNet-5 on Fashion-MNIST: see docs/optimizers.md.

The runs are those of the recipe fashion-optimizers, every setting the registry's default. Accuracy
and training loss (mean over the last epoch) are mean and standard deviation over the seeds. Time is
the mean of whole training steps relative to SGD's of the same seed, state the bytes of the
optimizer's tensors.

    python benchmarks/optimizers.py                          # about 10 minutes on 2 cores
    python benchmarks/optimizers.py SGD 'K-BFGS(L)'          # some of them
"""

import sys
from pathlib import Path

from rich.console import Console

from nysact.experiments.recipes import find_runs, load
from nysact.experiments.run.display import display_for
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_run
from nysact.experiments.summary import final, state_kib, summary_table, time_relative_to


def main() -> None:
    console = Console()
    configs = find_runs(load("fashion-optimizers"), rows=sys.argv[1:])
    # One seed after the other, so that a slow moment of the machine meets all alike.
    ordered = sorted(configs, key=lambda config: config.seed)
    display = display_for(console)
    runs = [load_run(run(config, Path("runs"), display=display)) for config in ordered]
    columns = {
        "test accuracy, %": final("test_accuracy"),
        "training loss": final("train_loss"),
        "time": time_relative_to([stored for stored in runs if stored.config["row"] == "SGD"]),
        "state, KiB": state_kib,
    }
    console.print(summary_table(runs, columns))


if __name__ == "__main__":
    main()
