"""Muon for the hidden layers' weights, AdamW for the rest."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Muon on hidden weights seen as matrices, AdamW on all other parameters.

    From Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), by
    ``torch.optim.Muon``, which takes matrices alone. As its author does, a convolution's weight is
    flattened to ``(out, in * kernel)``, and the first and the last weight, embeddings, biases and
    norms go to AdamW. The weights of transformers' ``Conv1D``, which are linear layers written
    ``(in, out)``, are transposed. ``param_groups`` are Muon's and AdamW's own, so that a schedule
    reaches both; Muon's hold the matrices, which are copies of the weights.

    Args:
        model: The model.
        lr: Learning rate of Muon.
        momentum: Momentum of Muon.
        weight_decay: Decoupled weight decay of Muon.
        adamw_lr: Learning rate of AdamW.
        adamw_betas: Decays of AdamW.
        adamw_weight_decay: Weight decay of AdamW.
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
        hidden = hidden_weights(model)
        turned = transposed_weights(model)
        self._turned = [any(p is weight for weight in turned) for p in hidden]
        self._matrices = [
            (p, nn.Parameter(as_matrix(p.detach(), flag).clone()))
            for p, flag in zip(hidden, self._turned, strict=True)
        ]
        self._params = [p for p in model.parameters() if p.requires_grad]
        others = [p for p in self._params if not any(p is weight for weight in hidden)]
        matrices = [matrix for _, matrix in self._matrices]
        self._parts: list[Optimizer] = [
            AdamW(others, adamw_lr, adamw_betas, weight_decay=adamw_weight_decay)
        ]
        if matrices:
            self._parts.insert(0, Muon(matrices, lr, weight_decay, momentum))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients of the model's parameters.

        Args:
            set_to_none: Whether they become ``None`` and not zeros.
        """
        for param in self._params:
            if param.grad is not None and not set_to_none:
                param.grad.zero_()
            else:
                param.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            The closure's loss, or ``None``.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for (weight, matrix), turned in zip(self._matrices, self._turned, strict=True):
            matrix.copy_(as_matrix(weight, turned))
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, turned)
        for part in self._parts:
            part.step()
            self.state.update(part.state)
        for (weight, matrix), turned in zip(self._matrices, self._turned, strict=True):
            weight.copy_(matrix.T if turned else matrix.view(weight.shape))
            matrix.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Give the state of both.

        Returns:
            ``"parts"``: a list of their state dictionaries.
        """
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state_dict: What :meth:`state_dict` returned.
        """
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
            self.state.update(part.state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def as_matrix(weight: Tensor, turned: bool) -> Tensor:
    """Lay a weight out as ``(out, in * kernel)``; it is turned if it is ``(in, out)``."""
    return weight.T.contiguous() if turned else weight.flatten(1)


def hidden_weights(model: nn.Module) -> list[Tensor]:
    """Choose the parameters for Muon.

    Args:
        model: The model.

    Returns:
        The trainable weights of its linear layers and convolutions but the first and the last;
        where an embedding comes first, it is the first.
    """
    weights: list[tuple[Any, bool]] = [
        (module.weight, isinstance(module, nn.Embedding))
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding)
        or is_transformers_conv1d(module)
    ]
    return [weight for weight, embeds in weights[1:-1] if weight.requires_grad and not embeds]


def transposed_weights(model: nn.Module) -> list[Tensor]:
    """List the weights that are ``(in, out)``."""
    modules: list[Any] = [module for module in model.modules() if is_transformers_conv1d(module)]
    return [module.weight for module in modules]


def is_transformers_conv1d(module: Any) -> bool:
    """Tell whether a module is a ``Conv1D`` of transformers, which need not be installed."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")
