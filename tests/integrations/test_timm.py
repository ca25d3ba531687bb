"""timm's factory of optimizers, with what its training script puts around them."""

import pytest
import torch
import torch.nn.functional as F

from nysact import FOOF, NysAct, NysAdamW, NysMuon, Preconditioner
from nysact.integrations import attach, unwrap

from ..loops.training import assert_same

timm = pytest.importorskip("timm")
integration = pytest.importorskip("nysact.integrations.timm")
create = timm.optim.create_optimizer_v2
scheduled = pytest.importorskip("timm.scheduler").create_scheduler_v2
utils = pytest.importorskip("timm.utils")


def vit(seed=0):
    torch.manual_seed(seed)
    return timm.create_model(
        "test_vit", num_classes=4, img_size=32, pretrained=False, drop_path_rate=0.1
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4)


def built(model, **options):
    integration.register(model)
    options = {"opt": "nysact", "lr": 0.05, "weight_decay": 0.01, "layer_decay": 0.5, **options}
    return create(model, **options, cov_interval=2, inv_interval=4)


def with_preconditioner(model):
    optimizer = create(model, opt="adamw", lr=0.003, weight_decay=0.01, layer_decay=0.5)
    attach(Preconditioner(model, cov_interval=2, inv_interval=4), optimizer)
    return optimizer


def train(build, steps, saved=None):
    """The heart of timm's training script: its scheduler, its average of weights."""
    model = vit()
    optimizer = build(model)
    average = utils.ModelEmaV3(model, decay=0.9)
    scheduler, _ = scheduled(
        optimizer, sched="cosine", num_epochs=10, warmup_epochs=2, step_on_epochs=False,
        updates_per_epoch=1,
    )  # fmt: skip
    if saved is not None:
        model.load_state_dict(saved["state_dict"])
        average.module.load_state_dict(saved["state_dict_ema"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.step_update(steps.start)
    for step in steps:
        torch.manual_seed(step)  # of the dropped paths
        optimizer.zero_grad()
        inputs, targets = batch(step)
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        average.update(model, step=step)
        scheduler.step_update(step + 1)
    return model, optimizer, average


@pytest.mark.parametrize("build", [built, with_preconditioner])
def test_a_killed_training_resumes_bit_for_bit(build, tmp_path):
    _, straight, expected = train(build, range(9))
    model, optimizer, average = train(build, range(5))
    saver = utils.CheckpointSaver(
        model, optimizer, model_ema=average, checkpoint_dir=tmp_path, recovery_dir=tmp_path
    )
    saver.save_checkpoint(0)
    saved = torch.load(tmp_path / "last.pth.tar", weights_only=False)
    _, resumed, found = train(build, range(5, 9), saved)
    assert_same(resumed, straight)
    assert_same(unwrap(resumed), unwrap(straight))
    pairs = zip(found.module.parameters(), expected.module.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_layers_decay_and_schedulers_scale_their_rates():
    model = vit()
    optimizer = built(model)
    scheduler, _ = scheduled(
        optimizer, sched="cosine", num_epochs=10, warmup_epochs=0, step_on_epochs=True
    )
    scheduler.step(5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert len(scales) > 3
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.025 * group["lr_scale"])
    named = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    assert named["head.weight"]["lr_scale"] > named["blocks.0.attn.qkv.weight"]["lr_scale"]
    assert named["head.bias"]["weight_decay"] == 0.0
    assert named["head.weight"]["weight_decay"] == 0.01
    assert "blocks.0.attn.qkv" in optimizer.layers


@pytest.mark.parametrize(
    ("opt", "face", "options"),
    [
        ("nysact", NysAct, {"rank": 4}),
        ("NysMuon", NysMuon, {}),
        ("nysadamw", NysAdamW, {"betas": (0.8, 0.9)}),
        ("foof", FOOF, {"momentum": 0.8}),
    ],
)
def test_each_optimizer_has_its_name(opt, face, options):
    model = vit()
    integration.register(model)
    optimizer = create(model, opt=opt, **options)
    assert type(optimizer) is face
    assert {name: optimizer.param_groups[0][name] for name in options} == options
    # timm's default momentum would replace that of NysMuon.
    momentum = face(model).defaults.get("momentum")
    assert optimizer.param_groups[0].get("momentum") == options.get("momentum", momentum)


def test_the_model_may_come_with_the_call():
    integration.register()
    model = vit()
    optimizer = create(model, opt="nysact", model=model)
    assert optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(ValueError, match=r"register\(model\).*model=model"):
        create(model, opt="nysact")
    integration.register(vit())
    with pytest.raises(ValueError, match=r"is gone|register\(model\)"):
        create(model, opt="nysact")
