"""Every optimizer, with its default settings, trains LeNet-5 on Fashion-MNIST."""

from pathlib import Path

import pytest

from nysact.experiments.baselines import BASELINES
from nysact.experiments.data.small_images import DEBIAN_FOLDER, cache_folder, files_in
from nysact.experiments.formatting import describe_settings as in_words
from nysact.experiments.recipes import find_runs, load
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_run

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
    "newton-muon": 76,
    "nysmuon": 76,
    "nysadamw": 70,
}
DOCS = Path(__file__).parents[3] / "docs" / "optimizers.md"


def test_a_goal_is_stated_for_every_optimizer():
    assert set(REACHES) == set(BASELINES)


@pytest.mark.parametrize("name", BASELINES)
def test_the_documents_have_its_settings(name):
    entry = BASELINES[name]
    settings = in_words(entry.defaults)
    assert f"| `{name}` | {entry.title} | {settings} | {entry.source} |" in DOCS.read_text()


def test_the_recipe_has_every_optimizer():
    rows = {config.row: config.optimizer.name for config in load("fashion-optimizers").runs([0])}
    assert rows == {entry.title: name for name, entry in BASELINES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_reaches_its_accuracy(name, tmp_path):
    if files_in(DEBIAN_FOLDER) is None and files_in(cache_folder()) is None:
        pytest.skip("Fashion-MNIST is not installed")
    (config,) = find_runs(load("fashion-optimizers"), [BASELINES[name].title], seeds=[0])
    stored = load_run(run(config, tmp_path, cpu=True))
    assert stored.metrics[-1]["test_accuracy"] >= REACHES[name]
