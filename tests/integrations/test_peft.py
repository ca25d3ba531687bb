"""Low-rank adapters of peft."""

import pytest
import torch

from nysact import NysAct, NysAdamW

from ..loops.training import SETTINGS, assert_same

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

# peft still asks transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


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
