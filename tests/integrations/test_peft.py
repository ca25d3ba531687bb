"""Low-rank adapters of peft."""

import pytest
import torch

from nysact import NysAct, NysAdamW

from ..loops.training import SETTINGS, assert_same
from ..oracles import damped_inverse, error, randn
from ..steps import PLAIN

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

# peft asks transformers by an old name, and for the file of a model that has none.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.filterwarnings("ignore:Could not find a config file"),
]


def adapted(seed=0, **options):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    lora = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **options
    )
    return peft.get_peft_model(model, lora)


def train(model, optimizer, steps):
    for step in steps:
        tokens = torch.randint(0, 16, (4, 8), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_are_preconditioned_and_the_rest_is_left_alone(dora):
    model = adapted(use_dora=dora)
    before = {name: param.clone() for name, param in model.named_parameters()}
    optimizer = NysAct(model, **SETTINGS)
    train(model, optimizer, range(6))
    assert len(optimizer.layers) == 8  # two matrices, of two projections, of two blocks
    assert all("lora_A" in name or "lora_B" in name for name in optimizer.layers)
    for name, param in model.named_parameters():
        assert torch.equal(param, before[name]) != param.requires_grad, name
    ages = [each["refresh_age"] for each in optimizer.diagnostics().values()]
    assert ages == [1] * 8


@pytest.mark.parametrize("face", [NysAct, NysAdamW])
def test_adapters_and_optimizer_resume_bit_for_bit(face, tmp_path):
    options = {**SETTINGS, "lr": 0.01}
    model = adapted()
    straight = face(model, **options)
    train(model, straight, range(5))
    model.save_pretrained(tmp_path)
    torch.save(straight.state_dict(), tmp_path / "optimizer.pt")
    train(model, straight, range(5, 9))
    base = adapted().unload()
    resumed = peft.PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    optimizer = face(resumed, **options)
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    train(resumed, optimizer, range(5, 9))
    assert_same(optimizer, straight)


def gpt2(**options):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    lora = peft.LoraConfig(r=3, target_modules=["c_attn"], fan_in_fan_out=True, **options)
    model = peft.get_peft_model(transformers.GPT2LMHeadModel(config), lora).double()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:  # an update of zero would give the gradient of lora_A nothing
                param.copy_(randn(*param.shape))
    return model


def calls_of(module):
    """Inputs of each call of a module from now on, and whether its output has a gradient."""
    calls = []
    module.register_forward_hook(
        lambda _, args, output: calls.append((args[0].detach(), output.requires_grad))
    )
    return calls


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("adapter", ["lora_A", "lora_B"])
def test_an_adapters_inverse_is_that_of_the_calls_its_gradient_came_through(dora, adapter):
    model = gpt2(use_dora=dora)
    optimizer = NysAct(model, **PLAIN, rank=100, damping=0.1)
    (name,) = [name for name in optimizer.layers if adapter in name]
    calls = calls_of(model.get_submodule(name))
    train(model, optimizer, [0])
    # DoRA multiplies the two matrices once more, on the identity and detached, for its norm.
    assert len(calls) == 1 + dora
    inputs = [inputs for inputs, _ in calls]
    counted = max(inputs, key=lambda each: each.shape[:-1].numel())
    assert counted.shape[:-1] == (4, 8)
    rows = counted.flatten(0, -2)
    expected = damped_inverse(rows.T @ rows / len(rows), 0.1)
    assert error(optimizer.inverse(name), expected) < 1e-10
