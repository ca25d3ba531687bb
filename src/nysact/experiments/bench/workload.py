"""What the optimizers train while they are timed: a model on one batch of noise."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import record_function

from nysact.experiments import baselines
from nysact.experiments.errors import ExperimentError
from nysact.experiments.losses import cross_entropy
from nysact.experiments.models import build_model, find_model
from nysact.experiments.randomness import seeded_model

PRECISIONS = ("fp32", "bf16")
# Labels for the profiler, beside those of torch.optim and of the library.
STEP, EVALUATE = "bench.step", "bench.forward and backward"


@dataclass(frozen=True)
class Scale:
    """How much a model is given to do unless the user chooses."""

    batch_size: int
    cycles: int  # of the optimizers' costly steps
    options: Mapping[str, Any] = field(default_factory=dict)  # of the model


# On a CPU small enough that five optimizers take some minutes on two cores.
ON_CPU: Mapping[str, Scale] = {
    "digits": Scale(128, 4),
    "lenet5": Scale(128, 4),
    "resnet20": Scale(128, 2),
    "resnet32": Scale(128, 2),
    "resnet110": Scale(128, 1),
    "densenet121-cifar": Scale(32, 1),
    "resnet50": Scale(4, 1, {"image_size": 176}),
    "deit-s": Scale(8, 1),
    "vit": Scale(128, 2),
    "gpt2-small": Scale(1, 1, {"context": 128}),
    "gpt": Scale(4, 1),
    "mlp": Scale(128, 4),
}
# The paper's images and batches, of ImageNet a quarter of its 1,024 images.
ON_ACCELERATOR: Mapping[str, Scale] = {
    "resnet50": Scale(256, 2, {"image_size": 176}),
    "deit-s": Scale(256, 2),
    "gpt2-small": Scale(8, 2),
    "gpt": Scale(64, 4),
}


def default_scale(model: str, device: torch.device) -> Scale:
    """Return the scale at which a model is timed unless the user chooses."""
    return (ON_CPU if device.type == "cpu" else ON_ACCELERATOR).get(model, Scale(128, 4))


@dataclass(frozen=True)
class Workload:
    """A model and a batch, the same for every optimizer."""

    model: str
    options: Mapping[str, Any]  # of the model
    batch_size: int
    device: torch.device
    precision: str = "fp32"  # or "bf16" for autocast
    channels_last: bool = False
    seed: int = 0  # of the weights and the batch

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ExperimentError(
                f"precision {self.precision}: expected one of {', '.join(PRECISIONS)}"
            )
        if self.channels_last and find_model(self.model).inputs != "images":
            raise ExperimentError(
                f"channels_last: {self.model} reads no images; leave --channels-last out"
            )
        self.sample_shape()

    def sample_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return find_model(self.model).sample_shape(**self.options)

    def describe(self) -> str:
        """Name the model, its batch and where it trains."""
        shape = " x ".join(map(str, self.sample_shape()))
        batch = f"batch {self.batch_size} of {shape}"
        return f"{self.model}, {batch}, {self.device}, {self.precision}"

    def build(self) -> nn.Module:
        """Make the model, the same each time."""
        model = seeded_model(lambda: build_model(self.model, **self.options), self.seed)
        return cast("nn.Module", self._placed(model))

    def _placed(self, part: Any) -> Any:
        layout = {"memory_format": torch.channels_last} if self.channels_last else {}
        return part.to(self.device, **layout)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Make inputs and targets, the same each time."""
        entry = find_model(self.model)
        generator = torch.Generator().manual_seed(self.seed)
        classes, shape = entry.classes(**self.options), (self.batch_size, *self.sample_shape())
        if entry.inputs == "tokens":
            inputs, targets = torch.randint(classes, (2, *shape), generator=generator)
        else:
            inputs = torch.randn(shape, generator=generator)
            targets = torch.randint(classes, shape[:1], generator=generator)
        return self._placed(inputs), targets.to(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Make the context in which forwards and losses are computed."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


class Training:
    """A model in training with an optimizer; ``loss`` is that before the last step."""

    def __init__(self, workload: Workload, model: nn.Module, optimizer: Optimizer) -> None:
        self.workload, self.model, self.optimizer = workload, model, optimizer
        self.inputs, self.targets = workload.batch()
        self.loss: Tensor | None = None

    @record_function(STEP)
    def step(self) -> None:
        """Take one step on the batch."""
        self.loss = baselines.training_step(
            self._forward, self.optimizer, self._loss, self.inputs, self.targets, self._backward
        )

    @record_function(EVALUATE)
    def _forward(self, inputs: Tensor) -> Any:
        with self.workload.autocast():
            return self.model(inputs)

    @record_function(EVALUATE)
    def _loss(self, outputs: Any, targets: Tensor) -> Tensor:
        with self.workload.autocast():
            return cross_entropy()(outputs, targets)

    @record_function(EVALUATE)
    def _backward(self, loss: Tensor) -> None:
        loss.backward()
