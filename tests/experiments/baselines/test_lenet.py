"""Every optimizer, with its default settings, trains LeNet-5 on Fashion-MNIST."""

from pathlib import Path

import pytest
import torch

from nysact.experiments.baselines import BASELINES
from nysact.experiments.baselines.registry import in_words
from nysact.experiments.data.fashion_mnist import (
    DEBIAN_FOLDER,
    cache_folder,
    files_in,
    load_fashion_mnist,
)
from nysact.experiments.demo.comparison import Entry, Plan, compare
from nysact.experiments.demo.contenders import contender
from nysact.experiments.models import lenet5

# Accuracy in percent that each reaches: docs/optimizers.md has the mean and the spread.
REACHES = {
    "sgd": 68,
    "adam": 67,
    "adamw": 67,
    "muon": 77,
    "adahessian": 75,
    "shampoo": 78,
    "soap": 77,
    "sketchysgd": 67,
    "ggt": 77,
    "mfac": 65,
    "kbfgs": 79,
    "foof": 76,
    "kfac": 79,
    "eva": 75,
    "skfac": 79,
    "released-foof": 65,
    "released-kfac": 77,
    "released-eva": 75,
    "released-columns": 73,
    "released-gaussian": 70,
    "nysact-columns": 76,
    "nysact-gaussian": 76,
    "nysact": 76,
}
DOCS = Path(__file__).parents[3] / "docs" / "optimizers.md"


@pytest.fixture(scope="module")
def data():
    if files_in(DEBIAN_FOLDER) is None and files_in(cache_folder()) is None:
        pytest.skip("Fashion-MNIST is not installed")
    return load_fashion_mnist().with_train_size(10_000)


def test_a_goal_is_stated_for_every_optimizer():
    assert set(REACHES) == set(BASELINES)


@pytest.mark.parametrize("name", BASELINES)
def test_the_documents_have_its_settings(name):
    entry = BASELINES[name]
    settings = in_words(entry.defaults)
    assert f"| `{name}` | {entry.title} | {settings} | {entry.source} |" in DOCS.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_reaches_its_accuracy(name, data):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = Plan([Entry(contender(name), BASELINES[name].defaults["lr"])], lenet5, 2, 128, [0])
        (summary,) = compare(plan, data)
    finally:
        torch.set_num_threads(threads)
    assert summary.accuracies[0][-1] >= REACHES[name]
