"""Modules that can't be preconditioned are named with the reason and get the plain update."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import plain, values

LENGTH, SIZE = 4, 6


class Scale(nn.Module):
    """A module with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((SIZE,), 2.0))

    def forward(self, x):
        return self.gain * x


class Recurrent(nn.Module):
    """The outputs of a recurrent layer without its state."""

    def __init__(self, kind):
        super().__init__()
        self.inner = kind(SIZE, SIZE, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.inner(x)[0]


class Embedded(nn.Module):
    """Tokens in place of the numbers of the input."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Embedding(9, SIZE)

    def forward(self, x):
        return self.inner((x[..., 0].abs() * 10).long() % 9)


class Projected(nn.Module):
    """A bilinear layer fed twice."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Bilinear(SIZE, SIZE, SIZE)

    def forward(self, x):
        return self.inner(x, x)


def linear():
    return nn.Linear(SIZE, SIZE)


UNSUPPORTED = {
    "RNN": lambda: Recurrent(nn.RNN),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "Embedding": Embedded,
    "Bilinear": Projected,
    "LayerNorm": lambda: nn.LayerNorm(SIZE),
    "RMSNorm": lambda: nn.RMSNorm(SIZE),
    "GroupNorm": lambda: nn.GroupNorm(2, LENGTH),
    "BatchNorm1d": lambda: nn.BatchNorm1d(LENGTH),
    "PReLU": nn.PReLU,
    "Scale": Scale,
}
PARAMETRISED = {
    "weight_norm": lambda: parametrizations.weight_norm(linear()),
    "spectral_norm": lambda: parametrizations.spectral_norm(linear()),
    "orthogonal": lambda: parametrizations.orthogonal(linear()),
    "old weight_norm": lambda: old_weight_norm(linear()),
    "old spectral_norm": lambda: old_spectral_norm(linear()),
    "pruned": lambda: prune.l1_unstructured(linear(), "weight", 0.5),
}
REASONS = {
    **{name: f"no adapter is registered for {name}" for name in UNSUPPORTED},
    **dict.fromkeys(PARAMETRISED, "its weight is not a parameter (parametrised or absent)"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", REASONS)
def test_it_is_named_with_the_reason_and_gets_the_plain_update(name):
    torch.manual_seed(0)
    module = {**UNSUPPORTED, **PARAMETRISED}[name]()
    model = nn.Sequential(module, nn.Linear(SIZE, 2)).double()
    optimizer = plain(model)
    assert list(optimizer.layers) == ["1"]
    own = {n: why for n, why in optimizer.skipped.items() if "parametrizations" not in n}
    assert set(own) in ({"0"}, {"0.inner"})
    assert set(own.values()) == {REASONS[name]}

    before = values(model)
    model(randn(3, LENGTH, SIZE)).square().sum().backward()
    optimizer.step()
    params = dict(model[0].named_parameters())
    assert params
    for key, param in params.items():
        assert param.grad.any()
        assert error(before[f"0.{key}"] - param.detach(), 0.1 * param.grad) < 1e-10


def test_a_layer_is_served_again_when_its_pruning_is_made_permanent():
    model = prune.l1_unstructured(linear(), "weight", 0.5)
    prune.remove(model, "weight")
    assert list(plain(model).layers) == [""]


class LoRA(nn.Module):
    """A frozen linear layer with a trained update of low rank."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Linear(base.in_features, rank, bias=False)
        self.B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.B(self.A(x))


def test_the_two_layers_of_lora_are_preconditioned_and_the_frozen_one_is_no_business_of_ours():
    torch.manual_seed(0)
    model = LoRA(linear()).double()
    optimizer, before, inputs = plain(model, rank=100), values(model), randn(9, SIZE)
    assert list(optimizer.layers) == ["A", "B"]
    assert not optimizer.skipped
    hidden = model.A(inputs).detach()
    expected = {
        name: damped_inverse(covariance(rows(layer, x))[0], 1.0)
        for name, layer, x in (("A", model.A, inputs), ("B", model.B, hidden))
    }
    optimizer.zero_grad()
    model(inputs).square().sum().backward()
    optimizer.step()
    assert torch.equal(before["base.weight"], model.base.weight)
    for name, inverse in expected.items():
        weight = model.get_parameter(f"{name}.weight")
        assert (
            error(before[f"{name}.weight"] - weight.detach(), 0.1 * weight.grad @ inverse) < 1e-12
        )


def test_lora_learns_from_an_update_of_zero():
    model = LoRA(linear()).double()
    nn.init.zeros_(model.B.weight)
    optimizer = plain(model)
    for seed in range(3):
        optimizer.zero_grad()
        model(randn(9, SIZE, seed=seed)).square().sum().backward()
        optimizer.step()
    assert model.B.weight.detach().norm() > 0
    assert {info["refresh_age"] for info in optimizer.diagnostics().values()} == {0}
