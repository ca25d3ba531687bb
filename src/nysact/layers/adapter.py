"""The geometry of one kind of layer: all that the rest of the library knows of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from nysact.layers.linear_map import LinearMap


@dataclass(frozen=True)
class Geometry:
    """A weight seen as one matrix a group.

    Attributes:
        groups: Number of groups, each with a covariance of its own.
        out_features: Rows of a group's matrix, the outputs it computes.
        in_features: Columns of a group's matrix, the inputs an output reads (fan-in).
    """

    groups: int
    out_features: int
    in_features: int


class Call(NamedTuple):
    """The arguments of one call of a module's forward.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def argument(self, index: int, name: str) -> Any:
        """Find an argument by its place or its name.

        Args:
            index: Its place among the positional arguments.
            name: Its name.

        Returns:
            The argument, or ``None`` where the call has none.
        """
        return self.args[index] if len(self.args) > index else self.kwargs.get(name)


class LayerAdapter(ABC):
    """Tells the engine how one kind of layer is linear in its weight.

    An adapter keeps no state and is handed the module at each call. Subclass it and put
    :func:`nysact.register` on the subclass to precondition a layer kind of your own.

    Attributes:
        weight_name: Name of the weight among the module's parameters.
        bias_name: Name of the bias among the module's parameters; it may be absent or ``None``.
        suffix: What the name of the layer has behind the module's, where a module has several.
        uncalled: Submodules whose parameters the module uses without calling them.
        shows_output: Whether the module's output is the weight's own, so that
            :meth:`output_rows` can read its gradient. Two-sided curvatures leave others out.
        output_dim: Dimension of the weight that counts outputs, along which it may be spread over
            processes: 0, or 1 where the weight is stored inputs first.
    """

    weight_name: str = "weight"
    bias_name: str | None = "bias"
    suffix: str = ""
    uncalled: tuple[str, ...] = ()
    shows_output: bool = False
    output_dim: int = 0

    @classmethod
    def parts(cls, module: nn.Module) -> Sequence[LayerAdapter]:
        """Make the adapters of a module, one for each weight with inputs of its own.

        Args:
            module: A layer of the adapter's kind.

        Returns:
            The adapters, by default one.
        """
        del module
        return (cls(),)

    @abstractmethod
    def geometry(self, module: nn.Module) -> Geometry:
        """Describe the module's weight as matrices.

        Args:
            module: The layer.

        Returns:
            Its geometry, the bias not counted.
        """

    @abstractmethod
    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """Pick the tensors that the weight multiplies from a call of the module.

        Args:
            module: The layer.
            call: The arguments of its forward.

        Returns:
            Tensors whose first dimension counts samples; none if the call has no such input.
        """

    @abstractmethod
    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """Estimate the rows that one sample contributes, to decide how many samples suffice.

        Args:
            module: The layer.
            inputs: What :meth:`inputs` returned.

        Returns:
            Rows a sample, at least 1.
        """

    @abstractmethod
    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> LinearMap:
        """Build the linear map that some samples induce on the weight.

        Args:
            module: The layer.
            call: The arguments of its forward.
            inputs: What :meth:`inputs` returned, in the statistic's dtype, perhaps with fewer
                samples.
            bias: Whether rows end in a constant 1 for the bias.

        Returns:
            The map.
        """

    def output_rows(self, module: nn.Module, gradient: Tensor) -> Tensor:
        """Lay out the gradient of the module's output as rows, one a row of the linear map.

        Args:
            module: The layer.
            gradient: Gradient of the output of one call.

        Returns:
            ``(groups, rows, out_features)``.

        Raises:
            NotImplementedError: Where the adapter doesn't say that it :attr:`shows_output`.
        """
        raise NotImplementedError(f"{type(self).__name__} can't read outputs of {module}")

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        """Lay out a tensor of the weight's shape as matrices.

        Args:
            geometry: The layer's geometry.
            weight: In the weight's shape: its gradient, say.

        Returns:
            ``(groups, out_features, in_features)``, a view where the layout allows.
        """
        return weight.reshape(geometry.groups, geometry.out_features, geometry.in_features)

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        """Undo :meth:`to_matrix`.

        Args:
            geometry: The layer's geometry.
            matrix: ``(groups, out_features, in_features)``.
            shape: The weight's shape.

        Returns:
            A tensor of the weight's shape.
        """
        del geometry
        return matrix.reshape(shape)
