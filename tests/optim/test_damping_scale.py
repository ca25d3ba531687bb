"""Damping relative to the trace: its formula, and steps that no scale of the inputs changes."""

import pytest
import torch
from torch import nn

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import PLAIN, backward, inverse_of, plain
from .family.dense import LAYERS, step_of, two_sided

TRACE = {"damping_scale": "trace", "damping": 0.3}
FACES = [NysAct, FOOF, KFAC, Eva, SKFAC]


def mean_eigenvalues(matrix):
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1)


@pytest.mark.parametrize("name", LAYERS)
def test_the_damping_is_a_multiple_of_each_groups_mean_eigenvalue(name):
    observed, product, _ = step_of(FOOF, name, **TRACE, subsample=1)
    A = observed.input_covariance()
    dampings = 0.3 * mean_eigenvalues(A)
    inverse = torch.stack([damped_inverse(*each) for each in zip(A, dampings, strict=True)])
    assert error(product, observed.gradient @ inverse) < 1e-10


@pytest.mark.parametrize("tail", [False, True])
def test_a_sketch_is_damped_by_the_trace_of_the_covariance_itself(tail):
    """Not by that of the approximation, which misses a part of it."""
    inverses = []
    inputs = randn(20, 8)
    for relative in (False, True):
        module = nn.Linear(8, 2).double()
        mean = float(mean_eigenvalues(covariance(rows(module, inputs))))
        options = TRACE if relative else {"damping": 0.3 * mean}
        optimizer = plain(module, rank=3, tail=tail, **options)
        backward(module, inputs)
        optimizer.step()
        inverses.append(optimizer.inverse(""))
        if relative:
            assert optimizer.diagnostics()[""]["damping"].item() == pytest.approx(0.3 * mean)
    assert error(inverses[1], inverses[0]) < 1e-10


@pytest.mark.parametrize("name", LAYERS)
def test_two_sided_damping_is_a_multiple_of_the_product_of_both_means(name):
    observed, product, _ = step_of(KFAC, name, **TRACE, kl_clip=None, subsample=1)
    A, B = observed.input_covariance(), observed.output_covariance()
    dampings = 0.3 * mean_eigenvalues(A) * mean_eigenvalues(B)
    parts = zip(observed.gradient, A, B, dampings, strict=True)
    expected = [two_sided(g[None], a[None], b[None], float(damping)) for g, a, b, damping in parts]
    assert error(product, torch.cat(expected)) < 1e-10


def moved(face, scale, **options):
    """The step of a layer whose inputs are ``scale`` times the same, with the same outputs."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False).double()
    before = layer.weight.detach().clone()
    clip = {} if face in (NysAct, FOOF) else {"kl_clip": None}
    ours = {name: v for name, v in PLAIN.items() if face is not SKFAC or name != "subsample"}
    optimizer = face(layer, **{**ours, **clip, **options})
    backward(layer, scale * randn(12, 6))
    optimizer.step()
    return before - layer.weight.detach()


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_the_step_of_a_layers_outputs_does_not_depend_on_the_scale_of_its_inputs(face):
    first, scaled = (moved(face, scale, **TRACE) for scale in (1.0, 16.0))
    # The outputs move by the inputs times the step.
    assert error(16 * scaled, first) < 1e-10
    assert error(16 * moved(face, 16.0, damping=0.3), moved(face, 1.0, damping=0.3)) > 0.1


def test_dead_inputs_are_damped_by_the_number_itself():
    module = nn.Linear(4, 2, bias=False).double()
    optimizer = plain(module, rank=2, **TRACE)
    backward(module, torch.zeros(5, 4).double())
    optimizer.step()
    assert error(inverse_of(optimizer, module)[0], torch.eye(4).double() / 0.3) < 1e-12
