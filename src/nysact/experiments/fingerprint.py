"""A fingerprint of Python objects: of what they hold and do, not of where they lie in memory.

Functions and classes of one's own count by their compiled code, in which comments and places do
not matter, with their defaults, the variables that they close over and the globals that they read;
those of installed packages count by their names. An array counts by its content, a model by its
classes, attributes and weights. Another version of Python compiles to other code.
"""

import dis
import hashlib
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

# What writes itself out in full.
PLAIN: tuple[type, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, type(...), range, slice),
    *(Enum, PurePath, torch.dtype, torch.device),
)
READS = ("LOAD_GLOBAL", "LOAD_NAME")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# What every module of torch has; its hooks are under numbers that depend on what was hooked before.
STANDARD = set(vars(nn.Module()))
PACKAGES = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]


def fingerprint(*values: Any) -> str:
    """Sum up objects.

    Args:
        *values: The objects.

    Returns:
        A hash, the same in another process for objects that are made and act alike.
    """
    found = Fingerprint()
    for value in values:
        found.add(value)
    return found.digest.hexdigest()[:16]


class Fingerprint:
    """A hash that objects are added to, each once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        # Objects with their numbers; kept, lest another one take the place of one in memory.
        self._seen: dict[int, tuple[int, Any]] = {}
        self._kinds: list[tuple[Any, Callable[[Any], None]]] = [
            (partial, lambda value: self._all((value.func, value.args, value.keywords))),
            (FunctionType, self._function),
            (MethodType, lambda value: self._all((value.__self__, value.__func__))),
            (type, self._class),
            (nn.Module, self._module),
            (Mapping, lambda value: self._all(value.items())),
            (list, self._all),
            (ModuleType, lambda value: self._note(value.__name__)),
            (object, self._object),
        ]

    def add(self, value: Any) -> None:
        """Add an object.

        Args:
            value: The object.
        """
        if isinstance(value, PLAIN):
            self._note(type(value).__name__, repr(value))
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif hasattr(value, "__array_interface__") and not isinstance(value, type):
            self._array(numpy.asarray(value))
        elif isinstance(value, tuple):
            # Equal constants may or may not be one object.
            self._all(value)
        elif isinstance(value, set | frozenset):
            self._note("set", *sorted(map(fingerprint, value)))
        elif id(value) in self._seen:
            self._note("again", str(self._seen[id(value)][0]))
        else:
            self._seen[id(value)] = len(self._seen), value
            next(act for kind, act in self._kinds if isinstance(value, kind))(value)

    def _note(self, *texts: str) -> None:
        for text in texts:
            content = text.encode()
            self.digest.update(f"{len(content)} ".encode() + content)

    def _all(self, values: Iterable[Any]) -> None:
        values = list(values)
        self._note("list", str(len(values)))
        for value in values:
            self.add(value)

    def _tensor(self, value: Tensor) -> None:
        self._note(str(value.dtype), str(tuple(value.shape)), str(value.requires_grad))
        flat = value.detach().as_subclass(Tensor).cpu().reshape(-1).contiguous()
        self.digest.update(flat.view(torch.uint8).numpy().data)

    def _array(self, value: Any) -> None:
        if value.dtype.hasobject:
            self._all(value.reshape(-1).tolist())
        else:
            self._note(str(value.dtype), str(value.shape))
            self.digest.update(numpy.ascontiguousarray(value).tobytes())

    def _function(self, value: FunctionType) -> None:
        self._note(value.__qualname__.rpartition(".")[2])
        if is_installed(value.__module__):
            self._note(value.__module__)
            return
        self._all((value.__defaults__, value.__kwdefaults__))
        self._code(value.__code__, value.__globals__)
        for cell in value.__closure__ or ():
            self.add(content_of(cell))

    def _code(self, code: CodeType, names: Mapping[str, Any]) -> None:
        """Add compiled code, with the globals that it reads."""
        self.digest.update(code.co_code)
        self._note(*code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant, names)
            else:
                self.add(constant)
        reads = {each.argval for each in dis.get_instructions(code) if each.opname in READS}
        for name in sorted(reads):
            value = names.get(name)
            self.add(value)
            if isinstance(value, ModuleType) and not is_installed(value.__name__):
                self._all(getattr(value, each) for each in code.co_names if hasattr(value, each))

    def _class(self, value: type) -> None:
        self._note(value.__qualname__)
        if is_installed(value.__module__):
            self._note(value.__module__)
            return
        self._all(value.__bases__)
        for name, member in sorted(vars(value).items()):
            self._member(name, member)

    def _member(self, name: str, member: Any) -> None:
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if isinstance(member, property):
            member = (member.fget, member.fset)
        if isinstance(member, FunctionType) or not name.startswith("__"):
            self._note(name)
            self.add(member)

    def _module(self, value: nn.Module) -> None:
        self.add(type(value))
        for name, attribute in sorted(vars(value).items()):
            self._note(name)
            weights = name in ("_parameters", "_buffers", "_modules")
            hooks = name in STANDARD and isinstance(attribute, Mapping) and not weights
            self.add(list(attribute.values()) if hooks else attribute)

    def _object(self, value: Any) -> None:
        if hasattr(value, "__qualname__"):
            self._note(str(getattr(value, "__module__", "")), value.__qualname__)
            # Such as what functools.lru_cache has wrapped.
            self.add(getattr(value, "__wrapped__", None))
            return
        self.add(type(value))
        if hasattr(value, "__dict__"):
            self._all(sorted(vars(value).items()))
        else:
            self._note(ADDRESS.sub("", repr(value)))


def is_installed(module: str | None) -> bool:
    """Tell whether a module is Python's, an installed package's or built in, and not one's own."""
    if module == "__main__" or (module is not None and module not in sys.modules):
        return False
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return file is None or any(Path(file).is_relative_to(folder) for folder in PACKAGES)


def content_of(cell: Any) -> Any:
    """Give what a closure's variable holds, ``None`` if it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
