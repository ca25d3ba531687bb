"""The processes of a model that is wrapped after its optimizer is built, as frameworks do."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from nysact.distributed import find_processes, processes_pending
from nysact.torch_private import disable_dynamo, hide_hooks, register_hidden_hook


class ProcessSearch:
    """Looks for the processes at the first forward in a wrapper, before a layer is called."""

    def __init__(self, model: nn.Module, found: Callable[[], None]) -> None:
        self._model = weakref.ref(model)
        self._found = weakref.WeakMethod(found)
        hook = SearchHook(weakref.WeakMethod(self.look))
        hide_hooks(model.modules(), "forward_pre")
        handles = [register_hidden_hook(each, hook, "forward_pre") for each in model.modules()]
        self._remove = weakref.finalize(self, _remove, handles)
        self._remove.atexit = False

    def look(self) -> None:
        """End the search if the model's wrappers tell the processes now."""
        model = self._model()
        if model is not None and not processes_pending(model, None):
            self._end()

    def finish(self) -> None:
        """End the search before a step, or raise if no wrapper was seen."""
        model = self._model()
        if model is not None:
            find_processes(model, None)
        self._end()

    def _end(self) -> None:
        found = self._found()
        self._remove()
        if found is not None:
            found()


class SearchHook:
    """Looks for the processes before a module is called."""

    def __init__(self, look: weakref.WeakMethod[Callable[[], None]]) -> None:
        self._look = look

    @disable_dynamo
    def __call__(self, *_: Any) -> None:
        look = self._look()
        if look is not None:
            look()


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
