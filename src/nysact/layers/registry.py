"""The registry of layer adapters: which adapter serves which layer."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from nysact.layers.adapter import LayerAdapter
from nysact.torch_private import own_parameter

# Layer types of packages that nysact doesn't import are registered by their full name.
_ADAPTERS: dict[type[nn.Module] | str, type[LayerAdapter]] = {}

_Adapter = TypeVar("_Adapter", bound=type[LayerAdapter])


def register(*layer_types: type[nn.Module] | str) -> Callable[[_Adapter], _Adapter]:
    """Register a layer adapter for layer types, their subclasses included.

    A subclass that overrides ``forward`` may no longer be linear in its weight and needs an adapter
    of its own.

    Args:
        *layer_types: Subclasses of ``nn.Module``, or full names such as ``"package.module.Class"``
            of types that aren't imported. A later registration replaces an earlier one.

    Returns:
        A class decorator that returns the adapter unchanged.

    Raises:
        TypeError: If a layer type isn't a module's class, or the decorated class isn't an adapter.
    """
    for layer_type in layer_types:
        is_layer = isinstance(layer_type, type) and issubclass(layer_type, nn.Module)
        if not (is_layer or isinstance(layer_type, str)):
            raise TypeError(
                f"register takes subclasses of nn.Module or their full names, got {layer_type!r}"
            )

    def decorate(adapter: _Adapter) -> _Adapter:
        if not (isinstance(adapter, type) and issubclass(adapter, LayerAdapter)):
            raise TypeError(
                f"register decorates a subclass of nysact.LayerAdapter, got {adapter!r}"
            )
        _ADAPTERS.update(dict.fromkeys(layer_types, adapter))
        return adapter

    return decorate


def find_adapters(module: nn.Module) -> list[LayerAdapter] | str:
    """Return one adapter per weight, or the reason why the module can't be preconditioned."""
    kind = type(module)
    base = next(filter(_registered, kind.__mro__), object)
    registered = _registered(base)
    if registered is None:
        return f"no adapter is registered for {kind.__name__}"
    if "forward" in vars(module) and not hasattr(module, "_hf_hook"):
        # Hooks of accelerate, which set that attribute, only move what the forward reads.
        return "its forward was replaced on the instance: give it a class and register an adapter"
    if kind.forward is not base.forward:  # type: ignore[attr-defined]
        return f"{kind.__name__} overrides the forward of {base.__name__}: register an adapter"
    adapters = registered.parts(module)
    for adapter in adapters:
        weight = own_parameter(module, adapter.weight_name)
        if weight is None:
            return f"its {adapter.weight_name} is not a parameter (parametrised or absent)"
        if not weight.is_floating_point():
            return f"its {adapter.weight_name} is of dtype {weight.dtype}, expected a real float"
    return list(adapters)


def _registered(kind: type) -> type[LayerAdapter] | None:
    """The adapter of a class, of its full name, or of the decorator that made its forward."""
    names = [kind, f"{kind.__module__}.{kind.__qualname__}", _decorator(vars(kind).get("forward"))]
    return next((_ADAPTERS[name] for name in names if name in _ADAPTERS), None)


def _decorator(forward: Any) -> str:
    """Full name of the function that defines a forward, wherever the forward ends up."""
    code = getattr(forward, "__code__", None)
    outer = code.co_qualname.partition(".<locals>")[0] if code else ""
    return f"{forward.__globals__['__name__']}.{outer}" if outer else ""
