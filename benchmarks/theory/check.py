"""All experiments of the theory; their findings as JSON, Markdown and figures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from benchmarks.theory.descent import Sketch
from benchmarks.theory.figures import accuracy_figure, decay_figure, norm_figure
from benchmarks.theory.measure import Accuracy, Decay, measure_accuracies, measure_decay
from benchmarks.theory.norms import OPTIMIZERS, Norms, watch_norms
from benchmarks.theory.problem import digits, least_squares, sigmoid_squares
from benchmarks.theory.verdicts import Verdict, judge_accuracies, judge_decays, judge_norms

from nysact.experiments.data.small_images import load_digits
from nysact.experiments.environment import environment
from nysact.experiments.errors import ExperimentError
from nysact.experiments.files import write_json, write_text
from nysact.experiments.formatting import markdown
from nysact.experiments.report.style import save
from nysact.experiments.run.covariances import SKETCHES


@dataclass(frozen=True)
class Size:
    """How much is run."""

    steps: int = 1500  # of the runs whose decay is measured
    rank_steps: int = 300  # of the runs with differing ranks
    epochs: int = 20  # of the training whose norms are measured
    batch_sizes: Sequence[int | None] = (None, 8, 1)  # None for the exact gradient
    ranks: Sequence[int] = (1, 2, 4, 8, 16, 32)  # beside the full one
    sketches: Sequence[str] = SKETCHES
    seeds: Sequence[int] = (0, 1, 2)


# The covariance's largest eigenvalue is 1. The decay is measured with the library's own sketch and
# tail at a damping below that, so that P is no multiple of the identity: its eigenvalues differ by
# a factor of 4. The errors are measured at a damping so small that they count, and without a tail,
# as in the paper.
DECAY = Sketch(damping=0.3)
RANKS = Sketch(damping=1e-3, tail=False)


@dataclass(frozen=True)
class Findings:
    """All measurements."""

    norms: Sequence[Norms]
    decays: Sequence[Decay]
    accuracies: Sequence[Accuracy]

    @property
    def verdicts(self) -> list[Verdict]:
        """Whether each claim holds."""
        return [
            judge_norms(self.norms),
            judge_decays(self.decays),
            judge_accuracies(self.accuracies, common=False),
            judge_accuracies(self.accuracies, common=True),
        ]


def run_experiments(size: Size, say: Callable[[str], None] = lambda _: None) -> Findings:
    """Run everything; ``say`` is told what is being measured."""
    say("the norms of a network's covariances")
    train = load_digits().train
    norms = [watch_norms(name, train, size.epochs, every=20) for name in OPTIMIZERS]
    sketches = [replace(RANKS, sketch=s, rank=r) for s in size.sketches for r in size.ranks]
    rows, targets = digits()
    # At full rank all sketches are exact.
    sketches.append(replace(RANKS, rank=rows.shape[1]))
    decays, accuracies = [], []
    for problem in (least_squares(rows, targets), sigmoid_squares(rows, targets)):
        say(f"the decay of the gradient: {problem.name}")
        decays += [
            measure_decay(problem, DECAY, batch, size.steps, size.seeds)
            for batch in size.batch_sizes
        ]
        say(f"the error of the sketch: {problem.name}")
        accuracies += measure_accuracies(problem, sketches, size.rank_steps)
    return Findings(norms, decays, accuracies)


def write_findings(findings: Findings, output: Path) -> list[Path]:
    """Write the findings as JSON, Markdown and figures into a folder, and return the files."""
    files = [output / "theory.json", output / "theory.md"]
    content = {
        "environment": environment(torch.device("cpu")),
        "verdicts": [asdict(verdict) for verdict in findings.verdicts],
        **asdict(findings),
    }
    figures = {
        "theory-norms": norm_figure(findings.norms),
        "theory-decay": decay_figure(findings.decays),
        "theory-error": accuracy_figure(findings.accuracies),
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(files[0], content)
        write_text(files[1], to_markdown(findings))
        for name, figure in figures.items():
            files += save(figure, output / name)
    except OSError as error:
        raise ExperimentError(
            f"--output {output}: cannot be written to ({error.strerror}); "
            "expected a folder that exists or can be created"
        ) from error
    return files


def to_markdown(findings: Findings) -> str:
    """Write verdicts and numbers as Markdown."""
    verdicts = "\n".join(
        f"- {'Control. ' * verdict.control}{verdict.claim} "
        f"{'It holds' if verdict.holds else 'It does not hold'}: {verdict.found}"
        for verdict in findings.verdicts
    )
    decays = table([decay_row(of) for of in findings.decays])
    accuracies = table([accuracy_row(of) for of in findings.accuracies])
    return "\n\n".join([verdicts, decays, accuracies]) + "\n"


def table(rows: Sequence[dict[str, str]]) -> str:
    """Lay out rows that have the same headings."""
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


def decay_row(of: Decay) -> dict[str, str]:
    """Lay out the end of a run."""
    return {
        "problem": of.problem,
        "batch": str(of.batch_size or "all"),
        "learning rate": f"{of.rate:.3g}",
        "T": str(of.steps[-1]),
        "mean squared norm": f"{of.measured[-1]:.2e}",
        "bound": f"{of.bounds[-1]:.2e}",
        "exponent of T": f"{of.slope:.2f}",
    }


def accuracy_row(of: Accuracy) -> dict[str, str]:
    """Lay out what one sketch does to the convergence."""
    return {
        "problem": of.problem,
        "sketch": of.sketch,
        "rank": str(of.rank),
        "error": f"{of.error:.2e}",
        "learning rate": f"{of.rate:.3g}{' for all' * of.common}",
        "mean squared norm": f"{of.measured:.2e}",
        "bound": f"{of.bound:.2e}",
        "final excess loss": f"{of.excess:.2e}",
    }
