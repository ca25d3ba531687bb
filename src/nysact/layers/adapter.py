"""The interface of a layer adapter: all that the rest of the library knows of a layer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from nysact.layers.linear_map import DenseMap, LinearMap


@dataclass(frozen=True)
class Geometry:
    """A weight seen as one matrix a group."""

    groups: int  #: Number of groups, each with a covariance of its own.
    out_features: int  #: Rows of a group's matrix.
    in_features: int  #: Columns of a group's matrix: the fan-in.


class Call(NamedTuple):
    """The positional and keyword arguments of one call of a module's forward."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def argument(self, index: int, name: str) -> Any:
        """Return an argument by its index or its name, ``None`` if it wasn't passed."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name)


class LayerAdapter(ABC):
    """Tells the engine how one kind of layer is linear in its weight.

    An adapter keeps no state and gets the module with each call. To precondition your own kind of
    layer, decorate a subclass with :func:`nysact.register`.
    """

    weight_name: str = "weight"  #: The weight among the module's parameters.
    bias_name: str | None = "bias"  #: The bias among them; it may be absent or ``None``.
    suffix: str = ""  #: Ends the layer's name, where a module has several layers.
    uncalled: tuple[str, ...] = ()  #: Submodules whose parameters are used without calling them.
    #: Whether :meth:`output_rows` can read the gradient of the weight's own output; two-sided
    #: curvatures skip other layers.
    shows_output: bool = False
    convolves: bool = False  #: Whether the weight slides over its inputs.
    uses_call: bool = True  #: Whether :meth:`linear_map` reads more of a call than its inputs.
    output_dim: int = 0  #: Dimension of the weight that counts outputs, along which it is sharded.

    @classmethod
    def parts(cls, module: nn.Module) -> "Sequence[LayerAdapter]":
        """Create one adapter for each of the module's weights that has inputs of its own."""
        return (cls(),)

    @abstractmethod
    def geometry(self, module: nn.Module) -> Geometry:
        """Describe the module's weight as matrices, without the bias."""

    @abstractmethod
    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """Find the tensors of a call that the weight multiplies.

        Args:
            module: The layer.
            call: The arguments of its forward.

        Returns:
            Tensors whose first dimension counts samples; empty if the call has no such input.
        """

    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """Estimate the rows per sample, at least 1, to decide how many samples suffice."""
        return max(1, math.prod(inputs[0].shape[1:-1]))

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> LinearMap:
        """Build the linear map that some samples induce on the weight.

        Args:
            module: The layer.
            call: The arguments of its forward.
            inputs: Some samples of :meth:`inputs`, in the statistics' dtype.
            bias: Whether rows end in a constant 1 for the bias.

        Returns:
            The map; by default the rows are the inputs themselves, one tensor per group.
        """
        return DenseMap(inputs, bias=bias)

    def output_rows(self, module: nn.Module, gradient: Tensor) -> Tensor:
        """Lay out an output's gradient like the map's rows: ``(groups, rows, out_features)``."""
        raise NotImplementedError(f"{type(self).__name__} can't read outputs of {module}")

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        """Lay out a tensor of the weight's shape as ``(groups, out_features, in_features)``."""
        return weight.reshape(geometry.groups, geometry.out_features, geometry.in_features)

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        """Undo :meth:`to_matrix`: return a tensor of the weight's ``shape``."""
        return matrix.reshape(shape)
