"""Changes that users make to the parameter groups between steps."""

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

from torch import Tensor

from nysact.optim.groups import check_options, check_together, known_options
from nysact.optim.settings import Option

# Options that decide which layers are observed, and who updates them.
_STRUCTURAL = ("precondition", "update")


class Watch:
    """The parameter groups as they were last seen; looking again costs little."""

    def __init__(
        self, groups: Sequence[dict[str, Any]] = (), options: Mapping[str, Option] | None = None
    ) -> None:
        self._options = known_options(options or {})
        self._groups = list(groups)
        self._params = [list(group["params"]) for group in groups]
        self._values = [dict(group) for group in groups]

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self._groups[0]["step"])

    def named(self) -> dict[str, Tensor]:
        """Name to parameter."""
        pairs = zip(self._values, self._params, strict=True)
        return {n: p for v, params in pairs for n, p in zip(v["param_names"], params, strict=True)}

    def adopt(self, groups: list[dict[str, Any]]) -> None:
        """Put our own dicts with the new values in place of dicts that are only copies of them."""
        if len(groups) == len(self._groups):
            for index, (ours, theirs) in enumerate(zip(self._groups, groups, strict=True)):
                if ours is not theirs and self._is_copy(index, theirs):
                    values = {**ours, **theirs}
                    ours.clear()
                    ours.update(values)
                    groups[index] = ours

    def is_regrouped(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether there are other groups, other parameters in them, or other layers to observe."""
        return len(groups) != len(self._groups) or not all(
            ours is theirs and self._is_copy(index, theirs)
            for index, (ours, theirs) in enumerate(zip(self._groups, groups, strict=True))
        )

    def _is_copy(self, index: int, group: Mapping[str, Any]) -> bool:
        params, values = self._params[index], self._values[index]
        same = len(group["params"]) == len(params) and all(map(is_, group["params"], params))
        return same and all(group.get(n, values.get(n)) == values.get(n) for n in _STRUCTURAL)

    def check(self) -> None:
        """Check the options that were changed since the last look."""
        for group, values in zip(self._groups, self._values, strict=True):
            changed = [n for n in self._options if group.get(n, self) is not values.get(n, self)]
            if changed:
                check_options(group, {name: self._options[name] for name in changed})
                check_together(group)
                values.update({name: group[name] for name in changed})
