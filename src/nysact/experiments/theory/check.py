"""All of the theory's experiments, and what they found in JSON, Markdown and pictures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from nysact.experiments.data.digits import load_digits
from nysact.experiments.errors import ExperimentError
from nysact.experiments.markdown import markdown
from nysact.experiments.report.style import save
from nysact.experiments.run.covariances import SKETCHES
from nysact.experiments.run.environment import environment
from nysact.experiments.run.store import write_json, write_text
from nysact.experiments.theory.claims import (
    Accuracy,
    Decay,
    Verdict,
    judge_accuracies,
    judge_decays,
    judge_norms,
    measure_accuracies,
    measure_decay,
)
from nysact.experiments.theory.descent import Sketch
from nysact.experiments.theory.figures import accuracy_figure, decay_figure, norm_figure
from nysact.experiments.theory.norms import OPTIMIZERS, Norms, watch_norms
from nysact.experiments.theory.problem import digits, least_squares, sigmoid_squares


@dataclass(frozen=True)
class Size:
    """How much is run.

    Args:
        steps: Steps of the runs whose decay is measured.
        rank_steps: Steps of the runs with differing ranks.
        epochs: Passes of the training whose norms are watched.
        batch_sizes: Rows drawn a step, ``None`` for the exact gradient.
        ranks: Ranks that are compared, beside the full one.
        sketches: Sketches that are compared.
        seeds: Seeds of the draws.
    """

    steps: int = 1500
    rank_steps: int = 300
    epochs: int = 20
    batch_sizes: Sequence[int | None] = (None, 8, 1)
    ranks: Sequence[int] = (1, 2, 4, 8, 16, 32)
    sketches: Sequence[str] = SKETCHES
    seeds: Sequence[int] = (0, 1, 2)


# The covariance's greatest eigenvalue is 1. The decay is measured with the library's own sketch and
# tail at a damping below that, so that P is no multiple of the identity: its eigenvalues differ by
# a factor of 4. The errors are measured at a damping so small that they count, and without a tail,
# as in the paper.
DECAY = Sketch(damping=0.3)
RANKS = Sketch(damping=1e-3, tail=False)


@dataclass(frozen=True)
class Findings:
    """What the experiments found.

    Args:
        norms: Of the covariances of a network in training.
        decays: Of the mean squared gradient norm.
        accuracies: Of sketches, and what they do to the convergence.
    """

    norms: Sequence[Norms]
    decays: Sequence[Decay]
    accuracies: Sequence[Accuracy]

    @property
    def verdicts(self) -> list[Verdict]:
        """Whether each claim held."""
        return [
            judge_norms(self.norms),
            judge_decays(self.decays),
            judge_accuracies(self.accuracies, common=False),
            judge_accuracies(self.accuracies, common=True),
        ]


def run_experiments(size: Size, say: Callable[[str], None] = lambda _: None) -> Findings:
    """Run everything.

    Args:
        size: How much is run.
        say: Told what is being run.

    Returns:
        What was found.
    """
    problems = [make(*digits()) for make in (least_squares, sigmoid_squares)]
    say("the norms of a network's covariances")
    train = load_digits().train
    norms = [watch_norms(name, train, size.epochs, every=20) for name in OPTIMIZERS]
    decays, accuracies = [], []
    for problem in problems:
        say(f"the decay of the gradient: {problem.name}")
        decays += [
            measure_decay(problem, DECAY, batch_size, size.steps, size.seeds)
            for batch_size in size.batch_sizes
        ]
        say(f"the error of the sketch: {problem.name}")
        sketches = [
            replace(RANKS, sketch=sketch, rank=rank)
            for sketch in size.sketches
            for rank in size.ranks
        ]
        # Where nothing is left to approximate, all sketches are the same.
        sketches.append(replace(RANKS, rank=problem.inputs.shape[1]))
        accuracies += measure_accuracies(problem, sketches, size.rank_steps)
    return Findings(norms, decays, accuracies)


def write_findings(findings: Findings, output: Path) -> list[Path]:
    """Write the findings as JSON, Markdown and pictures.

    Args:
        findings: What was found.
        output: The folder, which need not exist.

    Returns:
        The files.

    Raises:
        ExperimentError: If the folder cannot be written to.
    """
    files = [output / "theory.json", output / "theory.md"]
    content = {
        "environment": environment(torch.device("cpu")),
        "verdicts": [asdict(verdict) for verdict in findings.verdicts],
        **asdict(findings),
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(files[0], content)
        write_text(files[1], to_markdown(findings))
        for name, figure in (
            ("theory-norms", norm_figure(findings.norms)),
            ("theory-decay", decay_figure(findings.decays)),
            ("theory-error", accuracy_figure(findings.accuracies)),
        ):
            files += save(figure, output / name)
    except OSError as error:
        raise ExperimentError(
            f"--output {output}: cannot be written to ({error.strerror}); "
            "expected a folder that exists or can be made"
        ) from error
    return files


def to_markdown(findings: Findings) -> str:
    """Write verdicts and numbers as Markdown."""
    verdicts = "\n".join(
        f"- {'Control. ' if verdict.control else ''}{verdict.claim} "
        f"{'It holds' if verdict.holds else 'It does not hold'}: {verdict.found}"
        for verdict in findings.verdicts
    )
    decays = markdown(
        ["problem", "batch", "learning rate", "T", "mean squared norm", "bound", "exponent of T"],
        [
            [
                *(decay.problem, str(decay.batch_size or "all"), f"{decay.rate:.3g}"),
                *(str(decay.steps[-1]), f"{decay.measured[-1]:.2e}", f"{decay.bounds[-1]:.2e}"),
                f"{decay.slope:.2f}",
            ]
            for decay in findings.decays
        ],
    )
    accuracies = markdown(
        [
            *("problem", "sketch", "rank", "error", "learning rate"),
            *("mean squared norm", "bound", "loss left"),
        ],
        [
            [
                *(one.problem, one.sketch, str(one.rank), f"{one.error:.2e}"),
                f"{one.rate:.3g}{' for all' if one.common else ''}",
                *(f"{value:.2e}" for value in (one.measured, one.bound, one.excess)),
            ]
            for one in findings.accuracies
        ],
    )
    return "\n\n".join([verdicts, decays, accuracies]) + "\n"
