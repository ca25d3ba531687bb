"""NysMuon is the dense formula where the rank is full, and Muon where the damping is endless."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact import NysMuon

from ..oracles import error, randn
from .dense import SUBJECTS, DenseMuon, trace_power

EVERY_STEP = {"rank": 99, "cov_interval": 1, "inv_interval": 1, "stat_decay": 0.0, "subsample": 1}
every_subject = pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
FORMS = {
    "defaults": ({}, {}),
    "heavy ball": ({"nesterov": False}, {"nesterov": False}),
    "decay": ({"weight_decay": 0.3}, {"weight_decay": 0.3}),
    "original": ({"adjust_lr_fn": "original"}, {"original": True}),
}


def backward(model, inputs, step):
    model.zero_grad()
    outputs = model(inputs)
    (outputs * randn(*outputs.shape, seed=step + 100)).sum().backward()


@every_subject
@pytest.mark.parametrize(("options", "form"), FORMS.values(), ids=FORMS)
def test_with_full_rank_each_step_is_the_dense_formula(subject, options, form):
    model = subject.model()
    optimizer = NysMuon(model, lr=0.1, momentum=0.8, **EVERY_STEP, **options)
    dense = DenseMuon(0.1, 0.8, **form)
    for step in range(4):
        inputs = subject.inputs(step)
        backward(model, inputs, step)
        weight, bias = subject.weight(model), subject.bias(model)
        gradient = subject.matrices(model, weight.grad)
        joint = torch.cat([gradient, bias.grad.reshape(*gradient.shape[:2], 1)], dim=2)
        inverse = trace_power(subject.covariance(model, inputs), 1.0, subject.power(model))
        before = subject.matrices(model, weight.detach().clone())
        expected = dense.step(before, (joint @ inverse)[..., :-1])
        optimizer.step()
        assert error(weight.detach(), subject.from_matrices(model, expected)) < 1e-10


@every_subject
def test_with_endless_damping_each_step_is_that_of_muon(subject):
    model = subject.model()
    endless = {"damping": 1e12, "damping_scale": "absolute"}
    optimizer = NysMuon(model, lr=0.1, momentum=0.8, weight_decay=0.2, **EVERY_STEP, **endless)
    dense = DenseMuon(0.1, 0.8, weight_decay=0.2)
    weight = subject.weight(model)
    copies = [nn.Parameter(m.clone()) for m in subject.matrices(model, weight.detach())]
    muon = torch.optim.Muon(
        copies, lr=0.1, momentum=0.8, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(4):
        backward(model, subject.inputs(step), step)
        gradient = subject.matrices(model, weight.grad)
        expected = dense.step(subject.matrices(model, weight.detach().clone()), gradient)
        for copy, mine in zip(copies, gradient, strict=True):
            copy.grad = mine.clone()
        optimizer.step()
        muon.step()
        found = subject.matrices(model, weight.detach())
        assert error(found, expected) < 1e-9
        # torch orthogonalises in bfloat16, which has three digits.
        assert error(found, torch.stack([copy.detach() for copy in copies])) < 0.02


class Classifier(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm(6)
        self.hidden = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)
        self.to(dtype)

    def forward(self, tokens):
        return self.head(torch.tanh(self.hidden(self.norm(self.embedding(tokens)))))


def test_what_muon_leaves_out_takes_the_steps_of_adamw():
    model, plain = Classifier(), Classifier()
    # Without eps AdamW does not see the scale of gradients, which endless damping makes small.
    group = {"params": model.parameters(), "eps": 0.0}
    endless = {"damping": 1e12, "damping_scale": "absolute"}
    optimizer = NysMuon(
        model,
        [group],
        adamw_lr=0.03,
        adamw_betas=(0.8, 0.95),
        adamw_weight_decay=0.1,
        **EVERY_STEP,
        **endless,
    )
    rest = [param for name, param in plain.named_parameters() if name != "hidden.weight"]
    adamw = torch.optim.AdamW(rest, lr=0.03, betas=(0.8, 0.95), weight_decay=0.1, eps=0.0)
    for step in range(5):
        # Every token occurs: without eps a gradient of zero has no step.
        tokens = torch.cat([torch.arange(7), torch.tensor([step, 6])])
        for each in (model, plain):
            each.zero_grad()
            F.cross_entropy(each(tokens), tokens % 3).backward()
        optimizer.step()
        adamw.step()
        for name, param in plain.named_parameters():
            mine = model.get_parameter(name)
            if name == "hidden.weight":
                param.data.copy_(mine)
            else:
                assert error(mine.detach(), param.detach()) < 1e-7, name


@pytest.mark.parametrize("scale", [1e-4, 1e6])
def test_the_step_does_not_depend_on_the_scale_of_the_inputs(scale):
    moves = []
    for factor in (1.0, scale):
        torch.manual_seed(0)
        # The covariance of a layer with a bias holds the constant 1, which is not scaled.
        model = nn.Linear(5, 4, bias=False).double()
        optimizer = NysMuon(model, **EVERY_STEP)
        before = model.weight.detach().clone()
        inputs = randn(8, 5)
        (model(factor * inputs) * randn(8, 4, seed=1)).sum().backward()
        optimizer.step()
        moves.append(model.weight.detach() - before)
    assert error(moves[1], moves[0]) < 1e-9
