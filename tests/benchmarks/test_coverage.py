"""The table of what is preconditioned: its counts, and that each layer it counts is observed."""

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import transformers
from benchmarks.coverage import LANGUAGE, VISION, coverage, models, table
from torch import nn

from nysact import NysAct

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
SMALL = {
    "GPT2LMHeadModel": {"vocab_size": 64, "n_embd": 32, "n_layer": 1, "n_head": 2},
    "BertForMaskedLM": {name: LLAMA[name] for name in LLAMA if name != "head_dim"},
    "T5ForConditionalGeneration": {
        "vocab_size": 64,
        "d_model": 32,
        "d_ff": 48,
        "num_layers": 1,
        "decoder_start_token_id": 0,
    },
    "LlamaForCausalLM": LLAMA,
    "MixtralForCausalLM": {**LLAMA, "num_local_experts": 4},
    "Qwen3MoeForCausalLM": {
        **LLAMA,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
    "GptOssForCausalLM": {**LLAMA, "num_local_experts": 4},
}


def test_every_parameter_is_counted_once():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Embedding(9, 3), nn.Linear(3, 9))
    model[3].weight = model[2].weight
    found = coverage(model)
    assert found.parameters == 12 + 4 + 8 + 27 + 9
    assert found.preconditioned == 12 + 4
    assert found.left_out["BatchNorm1d"] == 8
    # The tied weight is the embedding's; the bias beside it is left out with it.
    assert (found.left_out["Embedding"], found.left_out["Linear"]) == (27, 9)


@pytest.mark.parametrize("title", ["NFNet-L0, weights standardised", "Mixtral-8x7B"])
def test_nearly_all_of_a_normalisation_free_network_and_of_a_mixture_is_preconditioned(title):
    with torch.device("meta"):
        found = coverage(models()[title][1]())
    assert found.preconditioned / found.parameters > 0.99


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_command_prints():
    assert table() in PAGE.read_text()


def check_observed(model, run):
    optimizer = NysAct(model, rank=1, subsample=1)
    skipped = dict(optimizer.skipped)
    run(model).backward()
    optimizer.step()
    assert optimizer.skipped == skipped
    ages = {name: each["refresh_age"] for name, each in optimizer.diagnostics().items()}
    assert set(ages.values()) == {0}, ages


@pytest.mark.slow
@pytest.mark.parametrize("name", VISION.values())
def test_each_layer_of_a_vision_model_is_observed(name):
    model = timm.create_model(name, num_classes=10, drop_path_rate=0.0)
    images = torch.randn(2, *model.default_cfg["input_size"])
    check_observed(model, lambda model: model(images).square().sum())


@pytest.mark.slow
def test_each_layer_of_torchvisions_transformer_is_observed():
    model = torchvision.models.vit_b_16(num_classes=10, image_size=32)
    images = torch.randn(2, 3, 32, 32)
    check_observed(model, lambda model: model(images).square().sum())


@pytest.mark.parametrize("name", LANGUAGE.values())
def test_each_layer_of_a_language_model_is_observed(name):
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**SMALL[name]))
    tokens = torch.randint(1, 64, (2, 16))
    check_observed(model, lambda model: model(input_ids=tokens, labels=tokens).loss)


def test_the_page_names_the_command():
    assert re.search(r"`make coverage`", PAGE.read_text())
