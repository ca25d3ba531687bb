"""The ``Trainer`` of transformers."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nysact.integrations.attach import attach, metrics, unwrap
from nysact.optim import Preconditioner
from nysact.optim.optimizer import PreconditionedOptimizer

Build = Callable[..., Optimizer]


def factory(
    optimizer: Build, preconditioner: Mapping[str, Any] | None = None, **options: Any
) -> tuple[Callable[[], Build], dict[str, Any]]:
    """Describe an optimizer to a ``Trainer``, which builds it when it trains.

    As by default in the ``Trainer``, biases and norms have no weight decay. The learning rate and
    the weight decay are those given here, not those of the ``TrainingArguments``::

        Trainer(..., optimizer_cls_and_kwargs=factory(NysAct, lr=0.1))
        Trainer(..., optimizer_cls_and_kwargs=factory(AdamW, lr=1e-3, preconditioner={}))

    Args:
        optimizer: A class of nysact or of any other library.
        preconditioner: Options of a :class:`nysact.Preconditioner` to be attached to an optimizer
            of another library; ``{}`` for its defaults.
        **options: Options of the optimizer.

    Returns:
        What ``optimizer_cls_and_kwargs`` of the ``Trainer`` takes.
    """

    def build(model: nn.Module, **options: Any) -> Optimizer:
        ours = isinstance(optimizer, type) and issubclass(optimizer, PreconditionedOptimizer)
        groups = _groups(model)
        built = optimizer(model, groups, **options) if ours else optimizer(groups, **options)
        if preconditioner is not None:
            attach(Preconditioner(model, **preconditioner), built)
        return built

    return lambda: build, options


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters with and without weight decay."""
    params = [param for param in model.parameters() if param.requires_grad]
    decayed = [param for param in params if param.ndim > 1]
    others = [param for param in params if param.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class NysActCallback(TrainerCallback):
    """Makes a ``Trainer``'s checkpoints exact on several processes, and logs diagnostics.

    Example:
        >>> trainer.add_callback(NysActCallback(trainer, every=100))

    Args:
        trainer: The ``Trainer`` that logs.
        every: Steps between logs of ``diagnostics(flat=True)``; ``None`` for
            no logs.
    """

    def __init__(self, trainer: Trainer, every: int | None = None) -> None:
        self._trainer = trainer
        self._every = every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._every and state.global_step % self._every == 0:
            self._trainer.log(metrics(kwargs["optimizer"]))
        self._before_save(control.should_save, kwargs["optimizer"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._before_save(control.should_save, kwargs["optimizer"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Whether the model is the best yet, and is saved, is decided right after this.
        self._before_save(args.save_strategy == "best", kwargs["optimizer"])

    def _before_save(self, saves: bool, optimizer: Any) -> None:
        """Add up the statistics of all processes: only one of them saves."""
        if saves:
            unwrap(optimizer).consolidate()
