"""Muon and Newton-Muon, with AdamW for the rest."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from nysact import FOOF
from nysact.experiments.baselines.optimizer import trainable
from nysact.optim.family import FOOFOptions
from nysact.optim.nysmuon import MUON_DEFAULTS
from nysact.optim.settings import MuonOptions


class MuonWithAdamW(Optimizer):
    """Muon on hidden weights seen as matrices, AdamW on all other parameters.

    From Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), by
    ``torch.optim.Muon``, which takes matrices alone. As its author does, a convolution's weight is
    flattened to ``(out, in * kernel)``, and the first and the last weight, embeddings, biases and
    norms go to AdamW. The weights of transformers' ``Conv1D``, which are linear layers written
    ``(in, out)``, are transposed. ``param_groups`` are Muon's and AdamW's own, so that a schedule
    reaches both; Muon's hold the matrices, which are copies of the weights.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        adamw_lr: float = 1e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_weight_decay: float = 0.05,
    ) -> None:
        self._params = trainable(model)
        self._hidden = hidden_weights(model)
        self._matrices = [
            nn.Parameter(as_matrix(weight.detach(), turned).clone())
            for weight, turned in self._hidden
        ]
        hidden = {id(weight) for weight, _ in self._hidden}
        others = [param for param in self._params if id(param) not in hidden]
        self._parts: list[Optimizer] = [
            AdamW(others, adamw_lr, adamw_betas, weight_decay=adamw_weight_decay)
        ]
        if self._matrices:
            self._parts.insert(0, Muon(self._matrices, lr, weight_decay, momentum))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of the model's parameters, to ``None`` or to zeros."""
        for param in self._params:
            if param.grad is not None and not set_to_none:
                param.grad.zero_()
            else:
                param.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step, and return the closure's loss or ``None``."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for (weight, turned), matrix in zip(self._hidden, self._matrices, strict=True):
            matrix.copy_(as_matrix(weight, turned))
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, turned)
        for part in self._parts:
            part.step()
            self.state.update(part.state)
        for (weight, turned), matrix in zip(self._hidden, self._matrices, strict=True):
            weight.copy_(matrix.T if turned else matrix.view(weight.shape))
            matrix.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Give the states of both optimizers, a list under ``"parts"``."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
            self.state.update(part.state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def as_matrix(weight: Tensor, turned: bool) -> Tensor:
    """Lay a weight out as ``(out, in * kernel)``; it is turned if it is ``(in, out)``."""
    return weight.T.contiguous() if turned else weight.flatten(1)


def hidden_weights(model: nn.Module) -> list[tuple[Tensor, bool]]:
    """Choose the weights for Muon, each with whether it is ``(in, out)``."""
    # The first and the last are left out; an embedding that comes first is the first.
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding
    found: list[Any] = [m for m in model.modules() if isinstance(m, kinds) or is_turned(m)]
    return [
        (module.weight, is_turned(module))
        for module in found[1:-1]
        if module.weight.requires_grad and not isinstance(module, nn.Embedding)
    ]


def is_turned(module: nn.Module) -> bool:
    """Whether a module is a ``Conv1D`` of transformers, which need not be installed."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


class NewtonMuonOptions(FOOFOptions, MuonOptions, total=False):
    """Options of :class:`NewtonMuon`."""


class NewtonMuon(FOOF, options=NewtonMuonOptions, defaults={**MUON_DEFAULTS, "damping": 0.2}):
    """Muon on gradients multiplied by ``(A + damping tr(A)/d I)^-1``, AdamW on the rest.

    From Du and Su, arXiv 2604.01472: what :class:`nysact.NysMuon` approximates at rank r, with
    the same parameters given to Muon.
    """
