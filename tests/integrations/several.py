"""A training under torchrun by a framework's own means: undisturbed, killed, and resumed."""

import os
import sys
import warnings
from pathlib import Path

import torch

from . import test_accelerate, test_lightning, test_transformers
from .training import BUILDERS, SAMPLES, KilledError, double, tensors

FRAMEWORKS = {
    "accelerate": test_accelerate,
    "lightning": test_lightning,
    "transformers": test_transformers,
}


def trainings(framework, folder):
    """What this process learns, by optimizer, without and with a failure of the machine."""
    run = FRAMEWORKS[framework].run
    options = {"inner": double, "samples": SAMPLES // int(os.environ["WORLD_SIZE"])}
    for build in BUILDERS:
        inside = folder / build.__name__
        straight = tensors(run(build, inside / "straight", **options))
        try:
            run(build, inside / "killed", kill=True, **options)
        except KilledError:
            resumed = run(build, inside / "killed", seed=1, resume=True, **options)
        yield build.__name__, (straight, tensors(resumed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("error", "the state dict of step")
    name, path = sys.argv[1], Path(sys.argv[2])
    torch.save(dict(trainings(name, path)), path / f"{os.environ['RANK']}.pt")
