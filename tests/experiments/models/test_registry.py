import sys

import pytest
import torch
from torch.nn.functional import mse_loss

from nysact.experiments.errors import ExperimentError
from nysact.experiments.losses import cross_entropy
from nysact.experiments.models import MODELS, build_model, find_model

# Small enough for a test where the default is not.
SMALL = {
    "resnet50": {"image_size": 32},
    "deit-s": {"image_size": 32},
    "gpt2-small": {"context": 8, "layers": 1, "vocabulary": 50},
    "gpt": {"context": 8},
}


def parameters(model) -> int:
    return sum(p.numel() for p in model.parameters())


def batch(name, **options):
    entry = find_model(name)
    shape = (2, *entry.sample_shape(**options))
    if "code" in entry.defaults:
        return (torch.rand(shape),) * 2
    classes = entry.classes(**options)
    if entry.inputs == "tokens":
        return torch.randint(classes, shape), torch.randint(classes, shape)
    return torch.randn(shape), torch.randint(classes, (2,))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_reads_what_its_entry_says_and_gives_a_loss(name):
    options = SMALL.get(name, {})
    model = build_model(name, **options)
    inputs, targets = batch(name, **options)
    measure = mse_loss if targets is inputs else cross_entropy()
    loss = measure(model(inputs), targets)
    assert loss.shape == ()
    loss.backward()
    assert all(param.grad is not None for param in model.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet5", 61_706),
        ("digits", 56_554),
        ("resnet32", 464_154),
        ("resnet110", 1_727_962),
        ("densenet121-cifar", 6_956_298),
        ("resnet50", 25_557_032),
        ("deit-s", 22_050_664),
        # Patches, class token and places, blocks of 12 d² + 13 d, last norm, head.
        ("vit", 49 * 64 + 66 * 64 + 4 * (12 * 64**2 + 13 * 64) + 2 * 64 + 65 * 10),
        # Layers of 1000, 500, 250, 30, 250, 500, 1000 and 784 units.
        ("autoencoder", 2 * (784_000 + 500_000 + 125_000 + 7_500) + 4_314),
        ("mlp", 784 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10),
    ],
)
def test_models_have_their_published_number_of_parameters(name, expected):
    assert parameters(build_model(name)) == expected


def test_gpt2_small_has_its_size():
    with torch.device("meta"):
        assert parameters(build_model("gpt2-small")) == 124_439_808


@pytest.mark.parametrize(
    "name", ["digits", "lenet5", "resnet20", "densenet121-cifar", "deit-s", "vit"]
)
def test_classes_and_channels_shape_the_model(name):
    options = {"classes": 7, "in_channels": 2, **SMALL.get(name, {})}
    inputs, _ = batch(name, **options)
    assert inputs.shape[1] == 2
    assert build_model(name, **options)(inputs).shape == (2, 7)


def test_lenet5_reads_28_pixels_too():
    inputs, _ = batch("lenet5", image_size=28)
    assert inputs.shape == (2, 1, 28, 28)
    assert build_model("lenet5", image_size=28)(inputs).shape == (2, 10)


def test_densenets_first_block_sees_the_images_at_full_size():
    model = build_model("densenet121-cifar", in_channels=1)
    first = model.features.denseblock1
    shapes = []
    first.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    model(torch.zeros(2, 1, 16, 16))
    assert shapes == [(2, 64, 16, 16)]


def test_options_of_a_gpt():
    model = build_model("gpt", layers=2, heads=3, width=12, vocabulary=11, context=5, dropout=0.25)
    config = model.config
    assert (config.n_layer, config.n_head, config.n_embd) == (2, 3, 12)
    assert (config.vocab_size, config.n_positions) == (11, 5)
    assert {config.resid_pdrop, config.embd_pdrop, config.attn_pdrop} == {0.25}
    assert model(torch.zeros(2, 5, dtype=torch.long)).logits.shape == (2, 5, 11)


def test_stochastic_depth_of_deit():
    model = build_model("deit-s", image_size=32, drop_path=0.2)
    rates = [block.drop_path1.drop_prob for block in model.blocks[1:]]
    assert rates == pytest.approx([0.2 * i / 11 for i in range(1, 12)])


def test_options_of_a_vit():
    options = {"image_size": 28, "patch": 7, "width": 24, "depth": 3, "heads": 2, "drop_path": 0.2}
    model = build_model("vit", **options)
    assert model.patch_embed.num_patches == 16
    assert len(model.blocks) == 3
    assert model.blocks[0].attn.num_heads == 2
    assert [b.drop_path1.drop_prob for b in model.blocks[1:]] == pytest.approx([0.1, 0.2])


def test_depth_of_an_mlp():
    assert len(build_model("mlp", depth=1, in_features=3, classes=2)) == 2
    assert parameters(build_model("mlp", depth=2, in_features=3, width=4, classes=2)) == 26


WRONG = {
    "model": ("resnet-32", {}, r"no model 'resnet-32': the nearest is 'resnet32'; expected one of"),
    "option": ("resnet32", {"class": 3}, r"no option 'class': the nearest is 'classes'; exp"),
    "option of another": ("resnet50", {"in_channels": 1}, r"ResNet-50 has no option 'in_channels'"),
    "count": ("gpt", {"layers": 0}, r"layers=0: expected a whole number from 1 up"),
    "kind": ("mlp", {"width": 3.5}, r"width=3.5: expected a whole number"),
    "flag": ("mlp", {"width": True}, r"width=True: expected a whole number"),
    "rate": ("deit-s", {"drop_path": 1.5}, r"drop_path=1.5: expected a number from 0 up, less"),
    "patches": ("deit-s", {"image_size": 70}, r"deit-s: image_size=70: .* multiple of 16"),
    "patch": ("vit", {"image_size": 30}, r"vit: image_size=30: expected a multiple of patch=4"),
    "heads of a vit": ("vit", {"heads": 5}, r"vit: width=64: expected a multiple of heads=5"),
    "heads": ("gpt", {"heads": 5}, r"gpt: width=384: expected a multiple of heads=5"),
    "size": ("lenet5", {"image_size": 30}, r"lenet5: .*30"),
}


@pytest.mark.parametrize(("name", "options", "message"), WRONG.values(), ids=WRONG)
def test_bad_name_or_option_is_an_error_with_a_remedy(name, options, message):
    with pytest.raises(ExperimentError, match=message):
        build_model(name, **options)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("densenet121-cifar", "torchvision"),
        ("resnet50", "torchvision"),
        ("deit-s", "timm"),
        ("vit", "timm"),
        ("gpt2-small", "transformers"),
    ],
)
def test_missing_package_is_named_with_what_to_install(monkeypatch, name, package):
    for module in (package, f"{package}.models", f"{package}.models.vision_transformer"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExperimentError, match=rf"{name} needs .*{package}.* \"nysact\[models\]\""):
        build_model(name)
