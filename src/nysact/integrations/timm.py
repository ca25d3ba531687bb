"""timm's registry of optimizers."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from timm.optim._optim_factory import OptimInfo, default_registry  # timm exports no registry
from torch import nn

from nysact.optim import FOOF, KFAC, SKFAC, Eva, NysAct, NysAdamW, NysMuon
from nysact.optim.optimizer import PreconditionedOptimizer

_FACES = (NysAct, NysMuon, NysAdamW, FOOF, KFAC, Eva, SKFAC)


def register(model: nn.Module | None = None) -> None:
    """Let ``timm.optim.create_optimizer_v2`` build the optimizers by their lower-case names.

    timm hands an optimizer parameters alone, so it takes the model from here::

        register(model)
        optimizer = create_optimizer_v2(model, opt="nysact", lr=0.1, layer_decay=0.75)

    Args:
        model: The model to be trained. Without it, pass it with each call:
            ``create_optimizer_v2(model, opt="nysact", model=model)``.
    """
    known = default_registry._optimizers
    for face in _FACES:
        known.pop(face.__name__.lower(), None)  # timm warns where a name is registered again
        default_registry.register(_info(face, model))


def _info(face: type[PreconditionedOptimizer], model: nn.Module | None) -> OptimInfo:
    """An entry of timm's registry."""
    options = face._options
    registered = None if model is None else weakref.ref(model)
    return OptimInfo(
        name=face.__name__.lower(),
        opt_class=partial(_build, face, registered),  # type: ignore[arg-type]
        description=(face.__doc__ or "").splitlines()[0],
        # Where timm's default of 0.9 is ours: NysMuon's momentum goes by its own.
        has_momentum="momentum" in options and options["momentum"].default == 0.9,
        has_betas="betas" in options,
        has_eps="eps" in options,
        second_order=False,
    )


def _build(
    face: Callable[..., PreconditionedOptimizer],
    registered: weakref.ref[nn.Module] | None,
    params: Any,
    model: nn.Module | None = None,
    **options: Any,
) -> PreconditionedOptimizer:
    """What timm calls with parameters or groups."""
    if model is None and registered is not None:
        model = registered()
    if model is None:
        raise ValueError(
            "timm passes the optimizer no model: call nysact.integrations.timm.register(model) "
            'with the model to be trained, or create_optimizer_v2(model, opt="nysact", '
            "model=model)"
        )
    return face(model, params, **options)
