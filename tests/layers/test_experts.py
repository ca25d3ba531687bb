"""The experts of transformers' mixtures: one covariance an expert, of the tokens sent to it."""

import pytest
import torch
from torch import nn
from transformers import (
    AriaTextConfig,
    GptOssConfig,
    MixtralConfig,
    NemotronHConfig,
    Qwen3MoeConfig,
)
from transformers.models.aria.modeling_aria import AriaExperts
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from nysact import FOOF, KFAC

from ..oracles import damped_inverse, error, randn
from ..steps import PLAIN, plain, values

EXPERTS, HIDDEN, INNER, TOKENS, CHOICES = 4, 8, 12, 24, 2
SIZES = {"hidden_size": HIDDEN, "intermediate_size": INNER}
KINDS = {
    "Mixtral": lambda: MixtralExperts(MixtralConfig(num_local_experts=EXPERTS, **SIZES)),
    "Qwen3": lambda: Qwen3MoeExperts(
        Qwen3MoeConfig(num_experts=EXPERTS, moe_intermediate_size=INNER, **SIZES)
    ),
    "no gate": lambda: NemotronHExperts(
        NemotronHConfig(n_routed_experts=EXPERTS, moe_intermediate_size=INNER, **SIZES)
    ),
    "transposed": lambda: AriaExperts(
        AriaTextConfig(moe_num_experts=EXPERTS, num_attention_heads=2, **SIZES)
    ),
    "transposed, biases": lambda: GptOssExperts(GptOssConfig(num_local_experts=EXPERTS, **SIZES)),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def experts(kind, implementation="eager"):
    module = KINDS[kind]().double()
    module.config._experts_implementation = implementation
    for seed, param in enumerate(module.parameters()):
        param.data = randn(*param.shape, seed=seed)
    return module


def batch(seed=0, among=EXPERTS):
    """Tokens, the experts that each is sent to, and their weights."""
    choices = randn(TOKENS, among, seed=seed).argsort(1)[:, :CHOICES]
    return randn(TOKENS, HIDDEN, seed=seed + 1), choices, randn(TOKENS, CHOICES, seed=seed + 2)


def names(module):
    return "gate_up_proj" if hasattr(module, "gate_up_proj") else "up_proj", "down_proj"


def matrices(module, tensor):
    return tensor.mT if module.is_transposed else tensor


@torch.no_grad()
def rows(module, tokens, choices, expert):
    """What the two weights of an expert multiply, a token at a time, and the tokens' places."""
    first, _ = names(module)
    weight = matrices(module, getattr(module, first))[expert]
    bias = getattr(module, f"{first}_bias")[expert] if module.has_bias else 0
    places = (choices == expert).nonzero().tolist()
    inputs = torch.stack([tokens[token] for token, _ in places])
    hidden = []
    for row in inputs:
        inner = weight @ row + bias
        hidden.append(module._apply_gate(inner) if module.has_gate else module.act_fn(inner))
    ones = torch.ones(len(places), 1 if module.has_bias else 0).double()
    joined = [torch.cat([block, ones], 1) for block in (inputs, torch.stack(hidden))]
    return joined, places


def joint(module, name, value):
    """A weight, or its gradient, with the column of the bias: (experts, out, d)."""
    matrix = matrices(module, value(getattr(module, name)))
    if not module.has_bias:
        return matrix.clone()
    return torch.cat([matrix, value(getattr(module, f"{name}_bias")).unsqueeze(-1)], dim=-1)


@kinds
@pytest.mark.parametrize("implementation", ["eager", "batched_mm"])
def test_each_expert_moves_by_its_gradient_times_its_own_inverse(kind, implementation):
    module, (tokens, choices, weights) = experts(kind, implementation), batch()
    optimizer = plain(module, rank=100, damping=0.3)
    assert list(optimizer.layers) == list(names(module))
    assert not optimizer.skipped
    before = [joint(module, name, torch.Tensor.detach) for name in names(module)]
    written = [rows(module, tokens, choices, expert) for expert in range(EXPERTS)]

    outputs = module(tokens, choices, weights)
    gradient = randn(*outputs.shape, seed=9)
    outputs.backward(gradient)
    optimizer.step()
    for index, name in enumerate(names(module)):
        grad = joint(module, name, lambda param: param.grad)
        moved = before[index] - joint(module, name, torch.Tensor.detach)
        for expert, (blocks, places) in enumerate(written):
            block = blocks[index]
            expected = damped_inverse(block.T @ block / len(block), 0.3)
            assert error(optimizer.inverse(name)[expert], expected) < 1e-10
            assert error(moved[expert], 0.1 * grad[expert] @ expected) < 1e-10
            if name == "down_proj":
                # The rows are those that the gradient sums over.
                of_rows = torch.stack([weights[t, c] * gradient[t] for t, c in places])
                assert error(grad[expert], of_rows.T @ block) < 1e-10


def test_the_grouped_product_is_observed_like_a_loop():
    """It has no float64."""

    def trained(implementation):
        module = experts("Mixtral", implementation).float()
        optimizer = plain(module, rank=100, damping=0.3)
        step(module, optimizer, [t.float() if t.is_floating_point() else t for t in batch()])
        return values(module)

    grouped = trained("grouped_mm")
    for name, value in trained("eager").items():
        assert error(grouped[name], value) < 1e-5


def covariance_of(optimizer, name, damping=0.3):
    inverse = optimizer.inverse(name)
    return torch.linalg.inv(inverse) - damping * torch.eye(inverse.shape[-1]).double()


def step(module, optimizer, inputs):
    optimizer.zero_grad()
    module(*inputs).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("build", [plain, lambda *args, rank, **o: FOOF(*args, **PLAIN | o)])
def test_an_expert_without_tokens_borrows_those_of_the_others(build):
    module, inputs = experts("Mixtral"), batch(among=EXPERTS - 1)
    optimizer = build(module, rank=100, damping=0.3)
    written = [rows(module, *inputs[:2], expert)[0] for expert in range(EXPERTS - 1)]
    step(module, optimizer, inputs)
    for index, name in enumerate(names(module)):
        covariance = covariance_of(optimizer, name)
        for expert, blocks in enumerate(written):
            block = blocks[index]
            assert error(covariance[expert], block.T @ block / len(block)) < 1e-9
        borrowed = torch.cat([blocks[index] for blocks in written])[::EXPERTS]
        assert error(covariance[-1], borrowed.T @ borrowed / len(borrowed)) < 1e-9


def test_its_own_tokens_outweigh_what_it_borrowed():
    module = experts("Mixtral")
    # The running average of an exact covariance continues across windows.
    optimizer = FOOF(module, **PLAIN | {"lr": 0.0}, damping=0.3)
    for seed in range(3):
        step(module, optimizer, batch(seed, among=EXPERTS - 1))
    inputs = batch(7)
    block = rows(module, *inputs[:2], EXPERTS - 1)[0][0]
    step(module, optimizer, inputs)
    step(module, optimizer, batch(8, among=EXPERTS - 1))
    covariance = covariance_of(optimizer, "gate_up_proj")[-1]
    assert error(covariance, block.T @ block / len(block)) < 1e-9


def test_tokens_of_experts_elsewhere_are_left_out():
    """Expert parallelism sends such tokens to a number beyond the last expert."""
    module, (tokens, choices, weights) = experts("Mixtral"), batch()
    optimizer = plain(module, rank=100, damping=0.3)
    choices[::3, 0] = EXPERTS
    block = rows(module, tokens, choices, 0)[0][0]
    step(module, optimizer, (tokens, choices, weights))
    assert error(covariance_of(optimizer, "gate_up_proj")[0], block.T @ block / len(block)) < 1e-9


@pytest.mark.parametrize("implementation", ["eager", "batched_mm"])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_model_is_preconditioned_alike(implementation):
    def trained(compiled):
        model = nn.Module()
        model.experts = experts("Mixtral", implementation)
        model.forward = lambda *inputs: model.experts(*inputs)
        # A loop over experts breaks the graph by itself.
        whole = implementation != "eager"
        run = torch.compile(model, backend="eager", fullgraph=whole) if compiled else model
        optimizer = plain(model, rank=2, damping=0.3)
        for seed in range(3):
            step(run, optimizer, batch(seed))
        assert not optimizer.skipped
        return values(model)

    plainly, compiled = trained(False), trained(True)
    assert all(error(compiled[name], value) < 1e-12 for name, value in plainly.items())


def test_two_sided_curvatures_skip_experts():
    model = nn.Sequential(experts("Mixtral"), nn.Linear(2, 2).double())
    assert KFAC(model).skipped == {"0": "the gradient of its output can't be observed"}
