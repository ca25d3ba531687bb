import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from nysact.experiments.config import Config
from nysact.experiments.data.loaders import Share, device_batches
from nysact.experiments.errors import ExperimentError
from nysact.experiments.losses import cross_entropy
from nysact.experiments.run.evaluation import evaluate
from nysact.experiments.run.problem import Problem, load_problem
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.configs import config
from tests.experiments.run.kills import assert_same, run_with_kills

SCORES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 4, 1, 1, 2, 3])


class Table(nn.Module):
    """Gives the scores of the sample whose number it reads."""

    def forward(self, numbers):
        assert not self.training
        assert not torch.is_grad_enabled()
        return SCORES[numbers]


@pytest.mark.parametrize("batch_size", [1, 4, 6])
def test_every_sample_counts_once_whatever_the_batches(batch_size):
    model = Table()
    batches = device_batches(torch.arange(6), LABELS, batch_size, Share())
    problem = Problem(train=None, test=batches, loss=cross_entropy())
    found = evaluate(model, problem, Accelerator(cpu=True))
    correct = (SCORES.argmax(1) == LABELS).sum() / 6 * 100
    assert found == pytest.approx(
        {"test_loss": float(F.cross_entropy(SCORES, LABELS)), "test_accuracy": float(correct)}
    )
    assert model.training


def test_label_smoothing_is_left_out_of_the_evaluation():
    for name, options in (("digits", {"train_size": 64}), ("text", {"test_windows": 2})):
        problem = load_problem(
            Config.checked(
                {
                    **config().model_dump(),
                    "data": {"name": name, **options},
                    "label_smoothing": 0.1,
                }
            ),
            torch.device("cpu"),
            Share(),
        )
        assert problem.evaluation_loss(SCORES, LABELS) == F.cross_entropy(SCORES, LABELS)
        assert problem.loss(SCORES, LABELS) == cross_entropy(0.1)(SCORES, LABELS)


def test_test_loss_is_that_of_the_evaluation():
    batches = device_batches(torch.arange(6), LABELS, 4, Share())
    problem = Problem(None, batches, cross_entropy(0.1), None, cross_entropy())
    found = evaluate(Table(), problem, Accelerator(cpu=True))
    assert found["test_loss"] == pytest.approx(float(F.cross_entropy(SCORES, LABELS)))


def test_validation_batches_are_evaluated_beside_the_test_batches():
    test = device_batches(torch.arange(6), LABELS, 4, Share())
    validation = device_batches(torch.arange(3), LABELS[:3], 4, Share())
    found = evaluate(
        Table(), Problem(None, test, cross_entropy(), validation), Accelerator(cpu=True)
    )
    assert list(found) == ["test_loss", "test_accuracy", "validation_loss", "validation_accuracy"]
    correct = (SCORES.argmax(1) == LABELS)[:3].sum() / 3 * 100
    assert found["validation_loss"] == pytest.approx(float(F.cross_entropy(SCORES[:3], LABELS[:3])))
    assert found["validation_accuracy"] == pytest.approx(float(correct))


def test_held_out_samples_do_not_change_the_training(tmp_path):
    (before,) = load_runs(run(config(), tmp_path / "a"))
    (after,) = load_runs(run(config().override(["data.validation_size=100"]), tmp_path / "b"))
    names = ("validation_loss", "validation_accuracy")
    for line, longer in zip(before.metrics, after.metrics, strict=True):
        assert {name: longer[name] for name in longer if name not in names} == line
        assert all(name in longer for name in names)
    losses = [line["validation_loss"] for line in after.metrics]
    assert after.result["metrics"]["best"]["validation_loss"] == min(losses)


def test_class_that_the_model_lacks_is_an_error_with_mixing_too(tmp_path):
    options = ["model.options.classes=9", "data.mixup=0.5"]
    with pytest.raises(ExperimentError, match=r"options\.classes is 9, but digits has a target 9"):
        run(config().override(options), tmp_path)


UNUSED = {
    "data.augmentation=trivial-augment": r"set data\.loader=standard, or data\.augmentation=none",
    "data.workers=2": r"data\.workers=2: .* or data\.workers=0",
    "data.interpolation=bicubic": r"data\.interpolation='bicubic': .* set data\.augmentation, or",
}


@pytest.mark.parametrize(("assignment", "message"), UNUSED.items(), ids=UNUSED)
def test_setting_that_would_be_ignored_is_an_error(tmp_path, assignment, message):
    with pytest.raises(ExperimentError, match=message):
        run(config().override([assignment]), tmp_path)


LOADERS = {
    "device": ["data.random_erasing=0.5"],
    "standard": [
        *("data.loader=standard", "data.augmentation=trivial-augment", "data.crop=1"),
        *("data.random_erasing=0.5", "data.erase_with=noise"),
    ],
}


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS)
def test_augmented_run_goes_on_exactly_where_it_was_killed(tmp_path, options):
    found = config().override(
        [*options, "data.mixup=0.2", "data.cutmix=1.0", "data.repeats=4", "label_smoothing=0.1"]
    )
    undisturbed = run(found, tmp_path / "a")
    assert_same(undisturbed, run_with_kills(found, tmp_path / "b", [3], checkpoint_seconds=0))
