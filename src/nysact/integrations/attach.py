"""One optimizer of a preconditioner and the optimizer that it serves, as frameworks expect."""

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer

from nysact.optim import Preconditioner
from nysact.optim.optimizer import PreconditionedOptimizer

_KEY = "preconditioner"  # in the state dict of the optimizer that is served
# Where Accelerate, Lightning and timm's Lookahead keep the optimizer that they wrap.
_WRAPPED = ("optimizer", "_optimizer", "_base_optimizer")
_attached: MutableMapping[Optimizer, Preconditioner] = WeakKeyDictionary()


def attach(preconditioner: Preconditioner, optimizer: Optimizer) -> None:
    """Let every step of an optimizer begin with the step of a preconditioner.

    The optimizer's state dict then holds the state of both, so that a framework that owns the
    loop steps, saves and loads them together. Don't call ``preconditioner.step()`` yourself::

        preconditioner = Preconditioner(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        attach(preconditioner, optimizer)

    Args:
        preconditioner: A :class:`nysact.Preconditioner` of the same model.
        optimizer: Any optimizer, also one that a framework has wrapped.

    Raises:
        TypeError: If the first argument is not a :class:`nysact.Preconditioner`.
        ValueError: If the optimizer has a preconditioner already.
    """
    inner = _innermost(optimizer)
    if not isinstance(preconditioner, Preconditioner):
        raise TypeError(
            f"preconditioner is a {type(preconditioner).__name__}, expected a "
            "nysact.Preconditioner: the other optimizers of nysact do the whole step by themselves"
        )
    if inner in _attached or isinstance(inner, PreconditionedOptimizer):
        raise ValueError(
            f"this {type(inner).__name__} preconditions its gradients already: attach one "
            "preconditioner to an optimizer"
        )
    _attached[inner] = preconditioner
    # What Lightning calls on all processes before one of them saves.
    inner.consolidate_state_dict = preconditioner.consolidate_state_dict
    inner.register_step_pre_hook(partial(_before_step, preconditioner))
    inner.register_state_dict_post_hook(partial(_add_state, preconditioner))
    inner.register_load_state_dict_pre_hook(partial(_take_state, preconditioner))


def unwrap(optimizer: Any) -> PreconditionedOptimizer:
    """Find the nysact optimizer in what a framework has made of it.

    Args:
        optimizer: An optimizer of nysact or one with an attached preconditioner, inside the
            wrappers of Accelerate, Lightning, the ``Trainer`` of transformers or timm.

    Returns:
        The optimizer of nysact, or the attached :class:`nysact.Preconditioner`.

    Raises:
        TypeError: If there is none.
    """
    inner = _innermost(optimizer)
    found = _attached.get(inner, inner)
    if not isinstance(found, PreconditionedOptimizer):
        raise TypeError(
            f"{type(inner).__name__} is not an optimizer of nysact and has no preconditioner: "
            "call nysact.integrations.attach(preconditioner, optimizer) first"
        )
    return found


def metrics(optimizer: Any) -> dict[str, float]:
    """The diagnostics of an optimizer as loggers take them, under one heading."""
    values = unwrap(optimizer).diagnostics(flat=True)
    return {f"nysact/{name}": value for name, value in values.items()}


def is_attached(preconditioner: Preconditioner) -> bool:
    """Whether an optimizer steps, saves and loads the preconditioner."""
    return any(each is preconditioner for each in _attached.values())


def _innermost(optimizer: Any) -> Any:
    """An optimizer without the wrappers of frameworks."""
    while not isinstance(optimizer, PreconditionedOptimizer):
        wrapped = [getattr(optimizer, name, None) for name in _WRAPPED]
        inner = next((each for each in wrapped if isinstance(each, Optimizer)), None)
        if inner is None:
            break
        optimizer = inner
    return optimizer


def _before_step(
    preconditioner: Preconditioner, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Precondition the gradients, after the closure if there is one: Lightning passes one."""
    optimizer, *rest = args
    closure = kwargs.get("closure", rest[0] if rest else None)
    if closure is None:
        preconditioner.step()
        return None
    return (optimizer,), {**kwargs, "closure": partial(_evaluate, closure, preconditioner)}


def _evaluate(closure: Callable[[], Any], preconditioner: Preconditioner) -> Any:
    loss = closure()
    preconditioner.step()
    return loss


def _add_state(preconditioner: Preconditioner, _: Optimizer, state: dict[str, Any]) -> None:
    state[_KEY] = preconditioner.state_dict()


def _take_state(preconditioner: Preconditioner, _: Optimizer, state: Mapping[str, Any]) -> None:
    if _KEY not in state:
        raise KeyError(
            "the state dict has no state of the attached preconditioner: it was saved before "
            "attach(), so load it before attach() too; with torch.distributed.checkpoint, save "
            "and load the preconditioner beside the optimizer"
        )
    preconditioner.load_state_dict(state[_KEY])
