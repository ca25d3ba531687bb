"""PyTorch's attention and transformers end to end: masks, what is left out, and the fast path."""

import pytest
import torch
from torch import nn

from nysact.engine.sampling import spread

from ..oracles import damped_inverse, error, randn
from ..steps import plain, same, state_of, values
from .subjects import attended

EMBED = 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def attention(**options):
    return nn.MultiheadAttention(EMBED, 2, **options).double()


def step(optimizer, outputs):
    outputs.square().sum().backward()
    optimizer.step()


def inverse_after(module, *inputs, **call):
    optimizer = plain(module, rank=100)
    step(optimizer, module(*inputs, **call)[0])
    return optimizer.inverse("")


# --- attention -------------------------------------------------------------------------------

PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {"key_padding_mask": PADDING}),
        ({}, {"attn_mask": torch.ones(4, 5, dtype=torch.bool).triu(1)}),
        ({}, {"need_weights": False}),
        ({}, {"average_attn_weights": False}),
        ({"add_bias_kv": True}, {}),
        ({"add_zero_attn": True}, {}),
        ({"dropout": 0.5}, {}),
    ],
    ids=str,
)
def test_every_position_is_a_row_whatever_attention_makes_of_it(options, call):
    # A masked position is projected like the others: padding has its share in the covariance.
    inputs = randn(2, 4, EMBED), randn(2, 5, EMBED, seed=1), randn(2, 5, EMBED, seed=2)
    actual = inverse_after(attention(batch_first=True, **options), *inputs, **call)
    rows = [torch.cat([x.flatten(0, 1), torch.ones(x[..., 0].numel(), 1)], dim=1) for x in inputs]
    expected = torch.stack([damped_inverse(r.T @ r / len(r), 1.0) for r in rows])
    assert error(actual, expected) < 1e-12


@pytest.mark.parametrize("batch_first", [False, True])
def test_inputs_without_samples_are_a_batch_of_one(batch_first):
    inputs = [randn(length, EMBED, seed=length) for length in (4, 5)]
    inputs = inputs[0], inputs[1], inputs[1]
    module = attention(batch_first=batch_first)
    batch = [x.unsqueeze(0 if batch_first else 1) for x in inputs]
    alone, batched = inverse_after(module, *inputs), inverse_after(module, *batch)
    assert torch.equal(alone, batched)


@pytest.mark.parametrize("by_name", [False, True])
def test_each_blocks_gradient_lies_in_the_span_of_the_rows_of_its_input(by_name):
    module = attention(bias=False)
    inputs = {name: randn(3, 1, EMBED, seed=i) for i, name in enumerate(["query", "key", "value"])}
    outputs = module(**inputs)[0] if by_name else module(*inputs.values())[0]
    outputs.square().sum().backward()
    for G, tensor in zip(module.in_proj_weight.grad.chunk(3), inputs.values(), strict=True):
        rows = tensor.flatten(0, 1)
        assert error(G @ torch.linalg.pinv(rows) @ rows, G) < 1e-12


def test_parameters_of_attention_that_no_row_reads_get_the_plain_update():
    module = attention(add_bias_kv=True)
    optimizer, before, inputs = plain(module), values(module), randn(4, 2, EMBED)
    step(optimizer, module(inputs, inputs, inputs)[0])
    for name in ("bias_k", "bias_v"):
        param = module.get_parameter(name)
        assert error(before[name] - param.detach(), 0.1 * param.grad) < 1e-12


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {}),
        ({"bias": False}, {"need_weights": False}),
        ({"kdim": EMBED, "vdim": EMBED}, {"key_padding_mask": PADDING}),
        ({"add_bias_kv": True}, {"key_padding_mask": PADDING.double() * -3}),
        ({"add_zero_attn": True}, {"attn_mask": torch.ones(4, 5).bool().triu(1)}),
        ({}, {"attn_mask": randn(4, 5), "key_padding_mask": PADDING.double() * -3}),
        ({}, {"attn_mask": randn(4, 4, 5) > 1}),
        ({"batch_first": True}, {"attn_mask": randn(4, 4, 5), "average_attn_weights": False}),
        ({"dropout": 0.5}, {}),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_the_output_projections_rows_are_what_attention_gives_it(options, call, stride):
    first = options.get("batch_first", False)
    inputs = randn(2, 4, EMBED), randn(2, 5, EMBED, seed=1), randn(2, 5, EMBED, seed=2)
    inputs = [tensor if first else tensor.transpose(0, 1) for tensor in inputs]
    module = attention(**options)
    optimizer = plain(module, rank=100, damping=0.2, subsample=stride)
    before, rows = values(module), attended(module, *inputs, **call)
    outputs, _ = module(*inputs, **call)
    gradient = randn(*outputs.shape, seed=3)
    outputs.backward(gradient)
    optimizer.step()

    weight, dim = module.out_proj.weight, 0 if first else 1
    if not module.dropout:
        # The gradient sums over the same rows.
        summed = gradient.flatten(0, 1).T @ rows.flatten(0, 1)
        assert error(weight.grad, summed) < 1e-12
    start = optimizer.layers["out_proj"].pending.window.start
    chosen = spread(2, 2 // stride, start, torch.device("cpu"))
    block = rows.index_select(dim, chosen).flatten(0, 1)
    if module.out_proj.bias is not None:
        block = torch.cat([block, torch.ones(len(block), 1)], dim=1)
    expected = damped_inverse(block.T @ block / len(block), 0.2)
    assert error(optimizer.inverse("out_proj"), expected) < 1e-10
    grad, moved = weight.grad, before["out_proj.weight"] - weight.detach()
    if module.out_proj.bias is not None:
        grad = torch.cat([grad, module.out_proj.bias.grad.unsqueeze(1)], dim=1)
    assert error(moved, 0.1 * (grad @ expected)[:, :EMBED]) < 1e-10


def test_the_output_projection_is_left_out_by_name():
    optimizer = plain(encoder_layer(), exclude=["*.out_proj"])
    assert "self_attn.out_proj" not in optimizer.layers
    assert optimizer.skipped["self_attn"] == "excluded by the pattern '*.out_proj'"


def test_the_output_projection_alone_may_be_trained():
    module = attention()
    module.in_proj_weight.requires_grad_(False)
    optimizer = plain(module, module.out_proj.parameters())
    assert list(optimizer.layers) == ["out_proj"]


# --- transformers ----------------------------------------------------------------------------

SIZES = {"d_model": EMBED, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0}


def encoder_layer(**options):
    return nn.TransformerEncoderLayer(**SIZES, batch_first=True, **options).double()


def decoder_layer():
    return nn.TransformerDecoderLayer(**SIZES, batch_first=True).double()


def transformer():
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    return nn.Transformer(**SIZES, **layers, batch_first=True).double()


ENCODER = {"self_attn", "self_attn.out_proj", "linear1", "linear2"}
DECODER = {*ENCODER, "multihead_attn", "multihead_attn.out_proj"}


def of(prefix, names):
    return {f"{prefix}.{name}" for name in names}


@pytest.mark.parametrize(
    ("build", "n_inputs", "layers"),
    [
        (encoder_layer, 1, ENCODER),
        (lambda: encoder_layer(norm_first=True, activation="gelu"), 1, ENCODER),
        (decoder_layer, 2, DECODER),
        (
            transformer,
            2,
            of("encoder.layers.0", ENCODER) | of("decoder.layers.0", DECODER),
        ),
    ],
)
def test_projections_are_preconditioned_and_the_rest_is_left_out(build, n_inputs, layers):
    model = build()
    optimizer = plain(model, rank=3)
    assert set(optimizer.layers) == layers
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    assert optimizer.skipped == dict.fromkeys(norms, "no adapter is registered for LayerNorm")
    inputs = [randn(3, 4 + i, EMBED, seed=i) for i in range(n_inputs)]
    step(optimizer, model(*inputs))
    assert {info["refresh_age"] for info in optimizer.diagnostics().values()} == {0}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_layer_is_preconditioned_alike():
    def trained(compiled):
        torch.manual_seed(0)
        model = encoder_layer()
        run = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        optimizer = plain(model, rank=3)
        for seed in range(3):
            optimizer.zero_grad()
            padding = randn(2, 5, seed=seed) > 1
            step(optimizer, run(randn(2, 5, EMBED, seed=seed), src_key_padding_mask=padding))
        return values(model)

    plainly, compiled = trained(False), trained(True)
    assert all(error(compiled[name], value) < 1e-12 for name, value in plainly.items())


# --- the fast path ---------------------------------------------------------------------------

# True where a sequence of five has padding: with it the encoder packs its input for the fast path.
MASKS = [None, torch.arange(5) >= torch.tensor([[5], [3], [2]])]


def encoder():
    return nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=True)


def infer(model, mask, mode=torch.no_grad):
    with mode():
        return model(randn(3, 5, EMBED), src_key_padding_mask=mask)


every_mask = pytest.mark.parametrize("mask", MASKS, ids=["whole", "padded"])
every_mode = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
# What the fast path says of the packed input.
pack = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


@pack
@every_mask
@every_mode
def test_evaluation_gives_the_outputs_that_it_gives_without_hooks(mask, mode):
    model = encoder().eval()
    without = infer(model, mask, mode)
    plain(model)
    assert error(infer(model, mask, mode), without) < 1e-12


@pack
@every_mask
@every_mode
def test_evaluation_changes_no_statistic(mask, mode):
    states = []
    for evaluates in (False, True):
        torch.manual_seed(0)
        model = encoder()
        optimizer = plain(model, rank=3)
        for seed in (1, 2):
            optimizer.zero_grad()
            outputs = model.train()(randn(3, 5, EMBED, seed=seed))
            if evaluates:
                infer(model.eval(), mask, mode)
            step(optimizer, outputs)
        states.append(state_of(optimizer))
    assert same(*states)


def test_hooks_keep_the_encoder_layer_off_its_fast_path_until_they_are_removed(monkeypatch):
    calls = []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(
        torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fast(*a)
    )
    model = encoder().eval()
    optimizer = plain(model)
    infer(model, None)
    assert not calls
    optimizer.remove_hooks()
    infer(model, None)
    assert len(calls) == 2


def test_fine_tuning_in_eval_mode_takes_statistics():
    model = encoder().eval()
    optimizer = plain(model, rank=3)
    step(optimizer, model(randn(3, 5, EMBED), src_key_padding_mask=MASKS[1]))
    assert {info["refresh_age"] for info in optimizer.diagnostics().values()} == {0}
