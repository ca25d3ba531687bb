"""A run in training: a model, an optimizer, a schedule, and all that a checkpoint must hold."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nysact.experiments.baselines import Needs, find, needs_of, training_step
from nysact.experiments.baselines.released import ReleasedOptimizer
from nysact.experiments.clock import StepClock
from nysact.experiments.config import Config
from nysact.experiments.data.loaders import Batch
from nysact.experiments.errors import ExperimentError
from nysact.experiments.randomness import random_state, set_random_state
from nysact.experiments.run.covariances import Observer
from nysact.experiments.run.evaluation import evaluate
from nysact.experiments.run.problem import Problem, check_fit

# So often the losses are looked at, and several processes agree on a checkpoint; in between the
# host need not wait for the device. A fixed number of steps, so that results do not depend on time;
# that of NysAct's refreshes, after which the processes have little to add up.
CHECK_STEPS = 50

MakeModel = Callable[[], nn.Module]
MakeOptimizer = Callable[[nn.Module], Optimizer]


class DivergedError(Exception):
    """The training cannot go on: the loss or a factorisation has no finite value."""


class Training:
    """A run in training: ``step_number`` of ``steps`` are done."""

    def __init__(
        self,
        config: Config,
        build: MakeModel,
        problem: Problem,
        accelerator: Accelerator,
        make_optimizer: MakeOptimizer | None = None,
    ) -> None:
        self.config = config
        self.problem = problem
        self.accelerator = accelerator
        if accelerator.device.type == "cuda":
            # The peak of an earlier run of this process is not that of this one.
            torch.cuda.reset_peak_memory_stats(accelerator.device)
        # Training convolutions is faster in this layout, on a CPU by a third.
        model = build().to(accelerator.device).to(memory_format=torch.channels_last)
        # Before the optimizer, so that one that observes the model knows of other processes.
        self.model = accelerator.prepare_model(model)
        optimizer = (make_optimizer or self._named_optimizer)(self.model)
        self._check_processes(optimizer)
        self.steps = config.steps or (config.epochs or 0) * len(problem.train)
        factor = partial(
            config.schedule.factor, steps=self.steps, steps_an_epoch=len(problem.train)
        )
        self.schedule = LambdaLR(optimizer, factor)
        if accelerator.scaler is not None:
            # It scales losses of fp16, and keeps to itself what a step with a closure returns.
            optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.optimizer = optimizer
        self.step_number = 0
        self.clock = StepClock(accelerator.device)
        self._losses: list[Tensor] = []
        self.observer = self._make_observer(build)

    def _named_optimizer(self, model: nn.Module) -> Optimizer:
        """Make the optimizer that the configuration names."""
        chosen = self.config.optimizer
        return find(chosen.name).build_for_run(
            model, chosen.options, self.config.seed, decay_vectors=chosen.decay_vectors
        )

    def _make_observer(self, build: MakeModel) -> Observer | None:
        """Make what looks at the layers' covariances, if they are to be recorded."""
        record = self.config.record
        if not (record.covariance_norms or record.covariances):
            return None
        observer = Observer(build, self.problem.loss, next(iter(self.problem.test)))
        observer.check(record.covariances)
        return observer

    def _check_processes(self, optimizer: Optimizer) -> None:
        """Refuse several processes, or fp16, for an optimizer that cannot handle them."""
        alone = needs_of(optimizer) is not Needs.GRADIENT
        several = self.accelerator.num_processes > 1
        # The released code's statistics are each process's own, so that its replicas drift apart.
        row = self.config.row
        if several and (alone or isinstance(optimizer, ReleasedOptimizer)):
            raise ExperimentError(f"{row} cannot be trained by several processes: start one")
        if alone and self.config.precision == "fp16":
            raise ExperimentError(f"{row} cannot be trained in fp16: set precision=bf16 or fp32")

    def batches(self) -> Iterator[Batch]:
        """Go through the batches that are left, epoch after epoch."""
        while self.step_number < self.steps:
            epoch, start = divmod(self.step_number, len(self.problem.train))
            for inputs, targets in self.problem.train.epoch(epoch, start):
                if self.step_number == self.steps:
                    return
                if self.step_number == 0:
                    check_fit(self.config, inputs, targets)
                yield inputs, targets

    def step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Take one step on a batch, and give the loss before it."""
        # It does loss.backward(), optimizer.step() and optimizer.zero_grad(), and whatever else an
        # optimizer may need: see nysact.experiments.baselines.optimizer.
        try:
            with self.clock.step():
                loss = training_step(
                    self.model,
                    self.optimizer,
                    self.problem.loss,
                    inputs,
                    targets,
                    self.accelerator.backward,
                )
        except RuntimeError as error:
            if not is_divergence(error):
                raise
            raise DivergedError(f"step {self.step_number + 1}: {error}") from error
        self.schedule.step()
        self.step_number += 1
        self._losses.append(loss)
        return loss

    @property
    def is_evaluation_due(self) -> bool:
        """Whether an epoch or interval, or the run, ends with the last step."""
        interval = self.config.evaluation_interval or len(self.problem.train)
        return self.step_number % interval == 0 or self.step_number == self.steps

    @property
    def is_check_due(self) -> bool:
        """Whether it is time to look at the losses: see :data:`CHECK_STEPS`."""
        return self.step_number % CHECK_STEPS == 0

    def first_failure(self) -> int | None:
        """The first step since the last evaluation whose loss is not finite in any process."""
        # All processes must ask together.
        finite = torch.stack(self._losses).isfinite()
        steps = torch.where(finite.all(), len(finite), finite.int().argmin())
        if self.accelerator.num_processes > 1:
            steps = self.accelerator.gather(steps.reshape(1)).min()
        before = self.step_number - len(finite)
        return None if int(steps) == len(finite) else before + int(steps) + 1

    def agree(self, wish: bool) -> bool:
        """Give all processes the main one's answer to a question; they must ask together."""
        answer = torch.tensor(int(wish), device=self.accelerator.device)
        return bool(broadcast(answer))

    def evaluate(self) -> dict[str, Any]:
        """Measure the model, and the training since the last evaluation."""
        train_loss = torch.stack(self._losses).mean()
        self._losses.clear()
        if self.accelerator.num_processes > 1:
            train_loss = self.accelerator.reduce(train_loss, "mean")
        measured = evaluate(self.model, self.problem, self.accelerator)
        epoch = self.step_number / len(self.problem.train)
        record: dict[str, Any] = {"step": self.step_number, "epoch": epoch}
        record |= {"train_loss": float(train_loss), **measured}
        if self.observer and self.config.record.covariance_norms:
            record["covariance_norms"] = self.observer.norms(self.bare_model)
        return record

    @property
    def bare_model(self) -> nn.Module:
        """The model without what several processes wrap around it."""
        model: nn.Module = self.accelerator.unwrap_model(self.model)
        return model

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The covariances that are to be recorded, by name."""
        record = self.config.record
        if self.observer is None or not record.covariances:
            return {}
        found = self.observer.approximations(self.bare_model, record.covariances, record.rank)
        return {name: matrix.numpy() for name, matrix in found.items()}

    def consolidate(self) -> None:
        """Add up the statistics of each process's optimizer; all processes must ask together.

        It rounds, so that it must not happen at moments that depend on time.
        """
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        if hasattr(optimizer, "consolidate"):
            optimizer.consolidate()

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on; all processes must ask for it together."""
        scaler = self.accelerator.scaler
        # What each process has seen since the last refresh belongs to the state too.
        self.consolidate()
        losses = torch.stack(self._losses) if self._losses else torch.zeros(0)
        return {
            "step": self.step_number,
            "model": self.bare_model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "random": gather_object([random_state(self.accelerator.device)]),
            # A row for each process.
            "losses": torch.stack(gather_object([losses.cpu()])),
            "seconds": torch.tensor(self.clock.seconds(), dtype=torch.float64),
            "starts": list(self.clock.starts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where a checkpoint was made, by as many processes."""
        count, index = self.accelerator.num_processes, self.accelerator.process_index
        if len(state["random"]) != count:
            raise ExperimentError(
                f"the checkpoint was made by {len(state['random'])} processes, and this run has "
                f"{count}: start as many as before"
            )
        self.step_number = state["step"]
        self.bare_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        set_random_state(state["random"][index], self.accelerator.device)
        losses = state["losses"].reshape(count, -1)[index]
        self._losses = list(losses.to(self.accelerator.device))
        self.clock.restore(state["seconds"].tolist(), state["starts"])


def is_divergence(error: RuntimeError) -> bool:
    """Tell a factorisation that failed from other errors, such as memory that ran out."""
    failed = isinstance(error, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
    return failed or "max_failures" in str(error)
