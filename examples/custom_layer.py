"""Precondition your own layer: a linear layer whose weight is one matrix a block."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nysact import Call, DenseMap, Geometry, LayerAdapter, NysAct, register


# layer:begin
class BlockLinear(nn.Module):
    """Splits its input into blocks and maps each with a matrix and a bias of its own.

    Args:
        blocks: Number of blocks.
        in_features: Inputs of a block.
        out_features: Outputs of a block.
    """

    def __init__(self, blocks: int, in_features: int, out_features: int) -> None:
        super().__init__()
        scale = in_features**-0.5
        self.weight = nn.Parameter(torch.randn(blocks, in_features, out_features) * scale)
        self.bias = nn.Parameter(torch.zeros(blocks, out_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., blocks * in_features)`` to ``(..., blocks * out_features)``."""
        blocks = inputs.unflatten(-1, self.weight.shape[:2])
        outputs = torch.einsum("...bi,bio->...bo", blocks, self.weight) + self.bias
        return outputs.flatten(-2)


# layer:end


# adapter:begin
@register(BlockLinear)
class BlockLinearAdapter(LayerAdapter):
    """How a :class:`BlockLinear` is linear in its weight."""

    def geometry(self, module: nn.Module) -> Geometry:
        """Describe the weight: a group is a set of outputs that read the same inputs."""
        blocks, in_features, out_features = module.weight.shape
        return Geometry(groups=blocks, out_features=out_features, in_features=in_features)

    def inputs(self, module: nn.Module, call: Call) -> tuple[Tensor, ...]:
        """Find the input in a call of ``forward``; the first dimension must count samples."""
        inputs = call.argument(0, "inputs")
        return (inputs.unsqueeze(0) if inputs.ndim == 1 else inputs,)

    def positions(self, module: nn.Module, inputs: Sequence[Tensor]) -> int:
        """Count the rows of a sample."""
        return math.prod(inputs[0].shape[1:-1])

    def linear_map(
        self, module: nn.Module, call: Call, inputs: Sequence[Tensor], *, bias: bool
    ) -> DenseMap:
        """Give the rows that each group reads: here the inputs of its block as they are."""
        blocks = inputs[0].unflatten(-1, module.weight.shape[:2])
        return DenseMap(blocks.unbind(-2), bias=bias)

    def to_matrix(self, geometry: Geometry, weight: Tensor) -> Tensor:
        """Lay out a gradient as (groups, outputs, inputs)."""
        return weight.mT

    def from_matrix(self, geometry: Geometry, matrix: Tensor, shape: Sequence[int]) -> Tensor:
        """Lay it out as the weight is stored."""
        return matrix.mT


# adapter:end


def train(steps: int = 30) -> list[float]:
    """Fit the mean square of an input by a small network with a block layer.

    Args:
        steps: Number of steps.

    Returns:
        The loss at each step.
    """
    torch.manual_seed(0)
    model = nn.Sequential(BlockLinear(4, 8, 16), nn.ReLU(), nn.Linear(64, 1))
    optimizer = NysAct(model, lr=0.1)
    print("preconditioned:", ", ".join(optimizer.layers))
    inputs = torch.randn(256, 32)
    targets = inputs.square().mean(1, keepdim=True)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    losses = train()
    print(f"loss: {losses[0]:.3f} -> {losses[-1]:.3f}")
