import torch
from torch import nn
from torch.optim import AdamW, Muon

from nysact.experiments.baselines.muon import MuonWithAdamW, hidden_weights
from nysact.experiments.models import build_model
from tests.experiments.baselines.problems import gradients, network


def hidden(model):
    return [weight for weight, _ in hidden_weights(model)]


def test_muon_takes_hidden_weights_but_not_the_first_and_last():
    model = network().model
    assert [id(p) for p in hidden(model)] == [id(model[3].weight), id(model[5].weight)]


def test_frozen_weights_are_left_out():
    model = network().model
    model[3].weight.requires_grad_(False)
    assert [id(p) for p in hidden(model)] == [id(model[5].weight)]


def test_steps_are_those_of_the_two_optimizers_on_flattened_weights():
    problem, reference = network(), network()
    optimizer = MuonWithAdamW(problem.model, lr=0.02, weight_decay=0.1)
    weights = hidden(reference.model)
    matrices = [nn.Parameter(p.detach().flatten(1).clone()) for p in weights]
    others = [p for p in reference.model.parameters() if all(p is not h for h in weights)]
    muon = Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.1)
    adamw = AdamW(others, lr=1e-3, weight_decay=0.05)
    for _ in range(3):
        for found, known in ((problem, None), (reference, weights)):
            for param, grad in zip(found.model.parameters(), gradients(found), strict=True):
                param.grad = grad
            if known is None:
                optimizer.step()
        for weight, matrix in zip(weights, matrices, strict=True):
            matrix.grad = weight.grad.flatten(1)
        muon.step()
        adamw.step()
        with torch.no_grad():
            for weight, matrix in zip(weights, matrices, strict=True):
                weight.copy_(matrix.view(weight.shape))
    for a, b in zip(problem.model.parameters(), reference.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_channels_last_weights_take_the_same_steps():
    plain, other = network(), network()
    other.model.to(memory_format=torch.channels_last)
    found = gradients(plain)
    for problem in (plain, other):
        optimizer = MuonWithAdamW(problem.model)
        for param, grad in zip(problem.model.parameters(), found, strict=True):
            param.grad = grad
        optimizer.step()
    for a, b in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(a, b)


def test_zero_grad_reaches_the_models_own_parameters():
    problem = network()
    optimizer = MuonWithAdamW(problem.model)
    for set_to_none in (False, True):
        for param in problem.model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.zero_grad(set_to_none)
        for param in problem.model.parameters():
            assert (param.grad is None) if set_to_none else (param.grad.abs().max() == 0)


def gpt() -> nn.Module:
    torch.manual_seed(0)
    return build_model("gpt", layers=2, heads=2, width=8, vocabulary=11, context=4)


def test_of_a_gpt_all_weights_of_the_blocks_are_hidden():
    model = gpt()
    expected = [
        param
        for name, param in model.named_parameters()
        if ".h." in name and name.endswith("weight") and param.dim() == 2
    ]
    assert len(expected) == 8
    assert [id(p) for p in hidden(model)] == [id(p) for p in expected]


def test_weights_written_in_by_out_take_the_steps_of_their_transposes():
    conv, linear = gpt().transformer.h[0].mlp.c_fc, nn.Linear(8, 32)
    linear.weight.data = conv.weight.data.T.clone()
    gradient = torch.randn(8, 32)
    updated = []
    for layer, grad in ((conv, gradient), (linear, gradient.T.contiguous())):
        # Between two others, so that it is hidden.
        model = nn.Sequential(nn.Linear(2, 2), layer, nn.Linear(2, 2))
        optimizer = MuonWithAdamW(model)
        layer.weight.grad = grad
        optimizer.step()
        updated.append(layer.weight.detach())
    assert torch.equal(updated[0], updated[1].T)
    assert not torch.equal(updated[1], gpt().transformer.h[0].mlp.c_fc.weight.T)
