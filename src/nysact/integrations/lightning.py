"""Lightning's ``Trainer``."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nysact.integrations.attach import metrics, unwrap
from nysact.optim.optimizer import PreconditionedOptimizer


class NysActCallback(Callback):
    """Logs diagnostics.

    Example:
        >>> trainer = Trainer(callbacks=[NysActCallback(every=100)])

    Args:
        every: Steps between logs of ``diagnostics(flat=True)`` to the
            ``Trainer``'s loggers.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._logged = 0  # the last step that was logged; an accumulated batch is no step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self._every or step == self._logged:
            return
        self._logged = step
        for optimizer in _ours(trainer) if trainer.is_global_zero else ():
            for logger in trainer.loggers:
                logger.log_metrics(metrics(optimizer), step=step)


def _ours(trainer: Trainer) -> Iterator[PreconditionedOptimizer]:
    """Those of a Trainer's optimizers that precondition."""
    for optimizer in trainer.optimizers:
        try:
            yield unwrap(optimizer)
        except TypeError:
            continue
