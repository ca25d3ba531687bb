"""Linear and convolutional layers as matrices, written out: input rows, gradients, updates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MatrixLayer = nn.Linear | nn.Conv2d


def matrix_layers(model: nn.Module) -> list[MatrixLayer]:
    """Find the trainable linear layers, and convolutions without groups that pad with zeros."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and all(p.requires_grad for p in layer_params(module))
        and (isinstance(module, nn.Linear) or has_plain_patches(module))
    ]


def has_plain_patches(module: nn.Conv2d) -> bool:
    """Whether ``F.unfold`` gives a convolution's patches."""
    zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return zeros and module.groups == 1


def layer_params(module: MatrixLayer) -> list[Tensor]:
    """List the weight and, where there is one, the bias."""
    return [module.weight] if module.bias is None else [module.weight, module.bias]


def input_rows(module: MatrixLayer, inputs: Tensor) -> Tensor:
    """Write out what each output position reads, with a 1 for the bias: (n, positions, d)."""
    if isinstance(module, nn.Linear):
        rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    else:
        assert not isinstance(module.padding, str)
        size, padding = module.kernel_size, module.padding
        rows = F.unfold(inputs, size, module.dilation, padding, module.stride).transpose(1, 2)
    return rows if module.bias is None else F.pad(rows, (0, 1), value=1.0)


def output_rows(module: MatrixLayer, outputs: Tensor) -> Tensor:
    """Lay out a layer's outputs, or their gradients, as (n, positions, out)."""
    if isinstance(module, nn.Conv2d):
        return outputs.flatten(2).transpose(1, 2)
    return outputs.reshape(len(outputs), -1, outputs.shape[-1])


def to_matrix(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Lay out a weight-shaped and a bias-shaped tensor as one matrix (out, d)."""
    matrix = weight.flatten(1)
    return matrix if bias is None else torch.cat([matrix, bias.unsqueeze(1)], dim=1)


def from_matrix(matrix: Tensor, module: MatrixLayer) -> list[Tensor]:
    """Undo :func:`to_matrix`: give a tensor for each of :func:`layer_params`."""
    if module.bias is None:
        return [matrix.view_as(module.weight)]
    return [matrix[:, :-1].reshape(module.weight.shape), matrix[:, -1]]
