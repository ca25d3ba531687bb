"""NysMuon and NysAdamW: preconditioned gradients into Muon and AdamW."""

from typing import Any, Unpack

from torch import nn

from nysact.optim.nysact import NysActOptions, NystromOptimizer
from nysact.optim.settings import AdamWOptions, MuonOptions

# Chosen by trainings of LeNet-5, a ResNet-20, a ViT, an autoencoder and a GPT.
_GENTLE = {"damping_scale": "trace", "power": "auto", "memory": "long"}
MUON_DEFAULTS = {
    **_GENTLE,
    "damping": 1.0,
    "update": "muon",
    "lr": 0.02,
    "momentum": 0.95,
    "nesterov": True,
    "weight_decay": 0.0,
}


class NysMuonOptions(NysActOptions, MuonOptions, total=False):
    """Options of :class:`nysact.NysMuon`."""


class NysMuon(NystromOptimizer, options=NysMuonOptions, defaults=MUON_DEFAULTS):
    """Muon on preconditioned gradients, with AdamW for everything that is not a hidden matrix.

    The gradient G of a hidden matrix or convolution is multiplied by a Nystrom approximation of
    ``(A + damping tr(A)/d I)^-p``, A the covariance of the layer's inputs; momentum averages it,
    Newton-Schulz iterations orthogonalise it, and the step is scaled as in ``torch.optim.Muon``
    (Jordan et al., 2024). With the exact inverse and p = 1 this is Newton-Muon (Du and Su, arXiv
    2604.01472); at rank r its state is ``3 d r`` numbers a matrix beside the momentum, not
    ``4 d^2``. Embeddings and what is tied to them, a last linear layer (the head), a patch
    embedding, norms, biases and all other parameters get AdamW, on preconditioned gradients where
    their layer has some: one optimizer trains the whole model. :attr:`updates` says which update
    each parameter gets and why; a group with ``update=`` overrides it.

    Packed projections of query, key and value are orthogonalised part by part, and each group of
    a grouped convolution by itself.

    Example:
        >>> optimizer = NysMuon(model, lr=0.02)
        >>> loss_function(model(inputs), targets).backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[NysMuonOptions]
    ) -> None:
        super().__init__(model, params, **options)


class NysAdamWOptions(NysActOptions, AdamWOptions, total=False):
    """Options of :class:`nysact.NysAdamW`."""


class NysAdamW(
    NystromOptimizer,
    options=NysAdamWOptions,
    defaults={**_GENTLE, "damping": 0.5, "update": "adamw", "lr": 1e-3, "weight_decay": 1e-2},
):
    """AdamW on preconditioned gradients.

    The gradient of every layer that is linear in its weight is multiplied by a Nystrom
    approximation of ``(A + damping tr(A)/d I)^-p``, A the covariance of the layer's inputs, and
    fed to AdamW (Loshchilov and Hutter, ICLR 2019). Replace
    ``torch.optim.AdamW(model.parameters(), lr=1e-3)`` by ``NysAdamW(model, lr=1e-3)``.

    Example:
        >>> optimizer = NysAdamW(model, lr=1e-3)
        >>> loss_function(model(inputs), targets).backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[NysAdamWOptions]
    ) -> None:
        super().__init__(model, params, **options)
