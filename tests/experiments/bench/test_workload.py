import pytest
import torch

from nysact.experiments.baselines import find
from nysact.experiments.bench.workload import ON_ACCELERATOR, ON_CPU, Training, default_scale
from nysact.experiments.errors import ExperimentError
from nysact.experiments.models import MODELS

from .subjects import CPU, workload


def test_every_model_has_a_scale_for_the_cpu_and_all_options_are_its_own():
    assert set(ON_CPU) <= set(MODELS)
    assert set(ON_ACCELERATOR) <= set(MODELS)
    for name, entry in MODELS.items():
        for device in (CPU, torch.device("cuda")):
            entry.options(default_scale(name, device).options)


def test_model_and_batch_are_the_same_each_time_and_follow_the_seed():
    first, again, other = workload(), workload(), workload(seed=1)
    assert torch.equal(first.build()[1].weight, again.build()[1].weight)
    assert not torch.equal(first.build()[1].weight, other.build()[1].weight)
    assert all(map(torch.equal, first.batch(), again.batch()))
    assert not torch.equal(first.batch()[0], other.batch()[0])


def test_batches_of_images_and_tokens():
    images, labels = workload(model="lenet5", options={"image_size": 28}).batch()
    assert images.shape == (4, 1, 28, 28)
    assert labels.shape == (4,)
    tokens, targets = workload(model="gpt", options={"context": 5, "vocabulary": 7}).batch()
    assert tokens.shape == targets.shape == (4, 5)
    assert tokens.dtype == torch.int64
    assert not torch.equal(tokens, targets)


def test_channels_last():
    subject = workload(model="resnet20", options={}, channels_last=True)
    assert subject.batch()[0].is_contiguous(memory_format=torch.channels_last)
    weight = subject.build().stage1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_the_forward_and_the_loss_is_float32(precision, dtype):
    subject = workload(precision=precision)
    model, seen = subject.build(), []
    model[-1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    training = Training(subject, model, find("sgd").build(model))
    training.step()
    assert seen == [dtype]
    assert training.loss.dtype == torch.float32
    assert all(param.dtype == torch.float32 for param in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp8"}, "precision fp8: expected one of fp32, bf16"),
        ({"channels_last": True}, "mlp reads no images"),
        ({"model": "gpt3"}, "no model 'gpt3': the nearest is 'gpt'"),
        ({"options": {"height": 3}}, "no option 'height'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_built(changes, message):
    with pytest.raises(ExperimentError, match=message):
        workload(**changes)
