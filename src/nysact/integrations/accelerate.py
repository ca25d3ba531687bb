"""Accelerate."""

from typing import Any

from accelerate import Accelerator

from nysact.integrations.attach import is_attached, unwrap
from nysact.optim import Preconditioner


def register(accelerator: Accelerator, optimizer: Any) -> None:
    """Make ``accelerator.save_state`` and ``load_state`` exact; call it on every process.

    A :class:`nysact.Preconditioner` that is not attached to an optimizer is also registered for
    checkpointing. Call ``save_state`` on all processes, as Accelerate requires::

        model, optimizer = accelerator.prepare(model, NysAct(model, lr=0.1))
        register(accelerator, optimizer)

    Args:
        accelerator: The ``Accelerator`` that saves.
        optimizer: An optimizer of nysact, before or after ``prepare``, or an optimizer that a
            preconditioner is attached to.
    """
    ours = unwrap(optimizer)
    if isinstance(ours, Preconditioner) and not is_attached(ours):
        accelerator.register_for_checkpointing(ours)
    accelerator.register_save_state_pre_hook(lambda *_: ours.consolidate())
