"""The engine alone, for use with any optimizer."""

from typing import Any, Unpack

from torch import Tensor, nn

from nysact.distributed import set_gradient
from nysact.optim.nysact import NystromOptimizer
from nysact.optim.settings import EngineOptions, NystromOptions


class PreconditionerOptions(NystromOptions, EngineOptions, total=False):
    """Options of :class:`nysact.Preconditioner`."""


class Preconditioner(NystromOptimizer, options=PreconditionerOptions):
    """Preconditions gradients in place, for use with any optimizer.

    Call :meth:`step` between ``backward()`` and the other optimizer's ``step()``; it overwrites
    the ``grad`` of every preconditioned weight and bias and changes no parameter::

        preconditioner = Preconditioner(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ...
        loss.backward()
        preconditioner.step()
        optimizer.step()
        optimizer.zero_grad()

    Under a ``GradScaler`` call ``scaler.unscale_(optimizer)`` before :meth:`step`. Save its
    ``state_dict`` beside the optimizer's; :func:`nysact.integrations.attach` makes one optimizer of
    both, which steps, saves and loads the preconditioner.
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[PreconditionerOptions]
    ) -> None:
        super().__init__(model, params, **options)

    def _update(self, gradients: dict[Tensor, Tensor]) -> None:
        for param, gradient in gradients.items():
            set_gradient(param, gradient)

    def _init_state(self) -> None:
        """There is no state but the factors."""
