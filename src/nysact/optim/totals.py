"""Statistics of all steps so far, which fade with age and add up over processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nysact.curvature import Curvature, Shape, Tensors, lift
from nysact.optim.layer import Layer


class Totals:
    """Sums over the rows of all steps, and the number of the rows.

    They fade alike, data or none, so that they are linear in the data: their ratio is the mean
    with weights that fall with age, and those of several processes add up.

    Args:
        layers: The stack's layers.
        curvature: The approximation.
        shape: Sizes of the covariance.
        dtype: Dtype of the totals.
        reduced: Whether other processes see a part of each batch.

    Attributes:
        tensors: Name to total, the number of the rows as ``"mass"``: of the data of all processes
            up to the last reduction, the same on each of them.
        own: The same of what this process has seen since; empty if there are no others.
        ahead: Whether there are statistics that were not reduced yet.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        curvature: Curvature,
        shape: Shape,
        dtype: torch.dtype,
        *,
        reduced: bool,
    ) -> None:
        self._group = layers[0].group
        self._curvature = curvature
        sizes: dict[str, tuple[int, ...]] = {**curvature.statistics(shape), "mass": ()}
        self.tensors = {
            name: torch.zeros(len(layers), shape.groups, *size, dtype=dtype)
            for name, size in sizes.items()
        }
        self.own = {n: torch.zeros_like(t) for n, t in self.tensors.items()} if reduced else {}
        self.ahead = False
        self._faded = 1.0
        self._present: Tensor | None = None

    @property
    def mass(self) -> Tensor:
        """Number of the rows, ``(layers, groups)``."""
        return self.tensors["mass"]

    @property
    def statistics(self) -> Tensors:
        """The sums over them."""
        return {name: total for name, total in self.tensors.items() if name != "mass"}

    def keep(self, index: int) -> Tensors:
        """Give a layer's totals, faded as far as the next reduction would let them by now.

        Args:
            index: The layer's place.

        Returns:
            Name to tensor, with what was not reduced yet as ``"own ..."``.
        """
        faded = {name: total[index] * self._faded for name, total in self.tensors.items()}
        return faded | {f"own {name}": total[index] for name, total in self.own.items()}

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move and cast the totals."""
        self.tensors = {name: total.to(device, dtype) for name, total in self.tensors.items()}
        self.own = {name: total.to(device, dtype) for name, total in self.own.items()}

    # --- data --------------------------------------------------------------------------------

    def add(self, totals: Tensors, usable: Tensor) -> None:
        """Add the totals of one step.

        Args:
            totals: Name to total.
            usable: Boolean ``(layers, groups)``: where it is false there is nothing to add.
        """
        decay = self._group["stat_decay"]
        running = self.own or self.tensors
        for name, total in totals.items():
            running[name].lerp_(torch.where(lift(usable, total), total, 0), 1 - decay)
        if self.own:
            self._faded, self.ahead = self._faded * decay, True

    def clear(self) -> None:
        """Start anew with all layers."""
        for total in (*self.tensors.values(), *self.own.values()):
            total.zero_()

    def restart(self, layers: Tensor) -> None:
        """Start anew with the layers of a mask, nothing being left to reduce."""
        for total in self.tensors.values():
            total.masked_fill_(lift(layers, total), 0)

    def means(self) -> Tensors:
        """Divide the sums by what they are sums over."""
        return self._curvature.means(self.statistics, self.mass)

    def grounded(self) -> Tensor:
        """Tell which layers have data, not faded so far that its ratio would lose its digits."""
        limits = torch.finfo(self.mass.dtype)
        grounded = (self.mass > limits.tiny / limits.eps).all(-1)
        # A step that no process took part in brings no factors.
        return grounded if self._present is None else grounded & (self._present > 0)

    # --- several processes -------------------------------------------------------------------

    def fade(self) -> None:
        """Let totals fade by a step with statistics that this process takes no part in."""
        for total in self.own.values():
            total.mul_(self._group["stat_decay"])
        self._faded *= self._group["stat_decay"]

    def contribution(self, place: tuple[int, int], *, present: bool) -> list[Tensor]:
        """Give what this process adds to the reduced totals.

        Args:
            place: Place of this process among all, and their number.
            present: Whether it takes part in the step.

        Returns:
            Tensors that the sums over processes are to be put into, for :meth:`take_in`.
        """
        self.own = self._curvature.portion(self.own, *place)
        self._present = self.mass.new_full((1,), float(present))
        return [*self.own.values(), self._present]

    def take_in(self) -> None:
        """Add the sums over processes to the totals, and start this process's anew."""
        for name, total in self.tensors.items():
            total.mul_(self._faded).add_(self.own[name])
            self.own[name].zero_()
        self._faded, self.ahead = 1.0, False
