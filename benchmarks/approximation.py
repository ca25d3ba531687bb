"""How close each preconditioner comes to the exact one: the table of docs/measurements.md.

A ResNet-20 is trained on Fashion-MNIST, by default for 150 steps of SGD (batch 128, learning
rate 0.1, momentum 0.9, weight decay 5e-4). Everything that is compared watches this one training
and changes nothing in it. On the next batch, right after the factors were refreshed, each turns
the gradient G of every layer into G P, which is compared with G (A + rho I)^-1: relative error in
the Frobenius norm and cosine, each a mean over the layers. A is the average of the covariances of
the batches that the statistics were taken from, computed by brute force in float64 from all
samples and averaged with the same decay. The library's averages restart with each window of
inv_interval steps, and so does their A; the released code's average runs on, and so does its A.

    python benchmarks/approximation.py                   # the table: about 3 minutes on 2 cores
    python benchmarks/approximation.py --seeds 0 1 2     # means over 3 trainings: 3 times as long
    python benchmarks/approximation.py --ranks 10 --driver nysact    # along a NysAct training

One seed prints the same numbers again, up to rounding that depends on the number of threads.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from covariance import Average
from nysact.experiments.data.small_images import load_fashion_mnist
from report import markdown, write_json
from watched_training import RELEASED, SKETCHES, Watch, train

# Layer name to the matrix P that its gradient is multiplied with.
Inverse = Callable[[str], Tensor]
Record = dict[str, Any]
TITLES = {"columns": "released NysAct-S", "gaussian": "released NysAct-G"}


class Reference:
    """The exact preconditioner.

    Args:
        gradients: Layer name to gradient.
        average: Gives the layers' covariances.
        damping: Damping rho.
    """

    def __init__(self, gradients: dict[str, Tensor], average: Average, damping: float) -> None:
        self.gradients = gradients
        self.wanted = {
            name: torch.linalg.solve(damped(average.value(name), damping), gradient, left=False)
            for name, gradient in gradients.items()
        }

    def compare(self, inverse: Inverse) -> dict[str, float]:
        """Mean over layers of the relative error and of the cosine."""
        pairs = [(self.gradients[n] @ inverse(n), wanted) for n, wanted in self.wanted.items()]
        return {
            "error": fmean(
                float((found - wanted).norm() / wanted.norm()) for found, wanted in pairs
            ),
            "cosine": fmean(
                float(F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0))
                for found, wanted in pairs
            ),
        }


def damped(covariance: Tensor, damping: float) -> Tensor:
    return covariance + damping * torch.eye(len(covariance), dtype=covariance.dtype)


def best_inverse(covariance: Tensor, rank: int, damping: float, tail: bool) -> Tensor:
    """The inverse from the exact leading eigenvectors."""
    dim = len(covariance)
    if rank >= dim:
        return torch.linalg.inv(damped(covariance, damping))
    eigenvalues, basis = torch.linalg.eigh(covariance)
    missed = float(eigenvalues[:-rank].sum()) / (dim - rank)
    eigenvalues, basis = eigenvalues[-rank:], basis[:, -rank:]
    rest = 1 / (damping + tail * missed)
    identity = torch.eye(dim, dtype=covariance.dtype)
    return (basis * (1 / (eigenvalues + damping) - rest)) @ basis.T + rest * identity


# --- what is compared ----------------------------------------------------------------------------


def measure(watch: Watch) -> Iterator[Record]:
    """Compare everything with the exact preconditioner, for every rank."""
    args, gradients = watch.args, watch.gradients()
    exact = Reference(gradients, watch.window, args.damping)
    exact_running = Reference(gradients, watch.running, args.damping)
    for rank in args.ranks:
        nothing = exact.compare(lambda name: unpreconditioned(gradients[name], args.damping))
        yield record("I / rho", rank, nothing)
        for kind in RELEASED:
            sketches = watch.released[kind, rank]
            yield record(
                TITLES[kind],
                rank,
                exact_running.compare(lambda name, of=sketches: of[name].inverse(args.damping)),
            )
        for sketch in SKETCHES:
            key = (sketch, rank, args.subsample)
            yield record(sketch, rank, exact.compare(inverse_of(watch.without_tail(key))))
            yield record(f"{sketch} + tail", rank, exact.compare(inverse_of(watch.observers[key])))
        for tail in (False, True):
            yield record(
                "best possible" + tail * " + tail",
                rank,
                exact.compare(
                    lambda name, rank=rank, tail=tail: best_inverse(
                        watch.window.value(name), rank, args.damping, tail
                    )
                ),
            )


def unpreconditioned(gradient: Tensor, damping: float) -> Tensor:
    return torch.eye(gradient.shape[1], dtype=gradient.dtype) / damping


def inverse_of(preconditioner: Any) -> Inverse:
    return lambda name: preconditioner.inverse(name).double()


def record(name: str, rank: int, values: dict[str, float]) -> Record:
    return {"name": name, "rank": rank, **values}


def measure_subsamples(watch: Watch) -> Iterator[Record]:
    """Compare statistics from every n-th sample with the exact covariance of all samples."""
    exact = Reference(watch.gradients(), watch.window, watch.args.damping)
    rank = watch.args.subsample_rank
    for n in watch.args.subsamples:
        observer = watch.observers["subspace", rank, n]
        yield record(describe(n), rank, exact.compare(inverse_of(observer)))


def describe(subsample: int | str) -> str:
    if subsample == "auto":
        return "`auto`"
    return "all samples" if subsample == 1 else f"1 sample in {subsample}"


# --- the report ----------------------------------------------------------------------------------


def table(corner: str, records: list[Record]) -> str:
    """Lay out mean errors and cosines over the seeds, a row a name, a column a rank."""
    names = list(dict.fromkeys(of["name"] for of in records))
    ranks = list(dict.fromkeys(of["rank"] for of in records))
    cells: dict[tuple[str, int], list[Record]] = {
        key: [] for key in itertools.product(names, ranks)
    }
    for of in records:
        cells[of["name"], of["rank"]].append(of)
    rows = [[name, *(cell(cells[name, rank]) for rank in ranks)] for name in names]
    return markdown([corner, *(f"rank {rank}" for rank in ranks)], rows)


def cell(records: list[Record]) -> str:
    error, cosine = (fmean(of[key] for of in records) for key in ("error", "cosine"))
    return f"{error:.3f} ({cosine:.3f})"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--driver", choices=("sgd", "nysact"), default="sgd", help="what trains the model")
    add("--steps", type=int, default=150, help="steps of training before the comparison")
    add("--batch-size", type=int, default=128)
    add("--lr", type=float, default=0.1)
    add("--damping", type=float, default=1.0)
    add("--ranks", type=int, nargs="+", default=[5, 10, 20, 50])
    add("--stat-decay", type=float, default=0.95)
    add("--cov-interval", type=int, default=5)
    add("--inv-interval", type=int, default=50)
    add("--subsample", type=subsample, default=1, help="of the first table: 'auto' or a stride")
    add("--subsamples", type=subsample, nargs="*", default=[1, 4, 8, 16, 32, "auto"],
        help="the strides of the second table")  # fmt: skip
    add("--subsample-rank", type=int, default=10, help="rank of the second table")
    add("--seeds", type=int, nargs="+", default=[0], help="one training each; means are shown")
    add("--folder", type=Path, help="folder of Fashion-MNIST's files, if not found otherwise")
    add("--json", type=Path, default=Path("runs/approximation.json"), help="where results go")
    args = parser.parse_args(argv)
    if args.steps % args.inv_interval:
        parser.error(f"--steps {args.steps}: expected a multiple of --inv-interval, so that the "
                     "comparison finds fresh factors")  # fmt: skip
    return args


def subsample(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main() -> None:
    args = parse()
    data = load_fashion_mnist(args.folder).train
    approximation: list[Record] = []
    subsamples: list[Record] = []
    for seed in args.seeds:
        watch = train(data, args, seed)
        with torch.no_grad():
            approximation += [{**of, "seed": seed} for of in measure(watch)]
            subsamples += [{**of, "seed": seed} for of in measure_subsamples(watch)]
    print("\n" + table("relative error (cosine)", approximation))
    if subsamples:
        print("\n" + table("subspace + tail, statistics from", subsamples))
    settings = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    results = {"settings": settings, "approximation": approximation, "subsamples": subsamples}
    write_json(args.json, results)


if __name__ == "__main__":
    main()
