"""The small twins and the language model take steps, each with its own settings."""

import pytest

from nysact.experiments.recipes import find_runs, load, names
from nysact.experiments.run import problem
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_run
from tests.experiments.data.idx_files import accept_any_content, write_fashion_mnist

TWINS = [name for name in names() if name.startswith("fashion-") and load(name).source == name]
SHORT = ("steps=2", "evaluation_interval=2", "batch_size=16", "data.test_size=20")
TINY_TEXT = ("steps=1", "evaluation_interval=1", "batch_size=2", "data.test_windows=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fashion")
    write_fashion_mnist(path, train=32)
    with pytest.MonkeyPatch.context() as monkeypatch:
        accept_any_content(monkeypatch)
        yield path
    problem.load_images.cache_clear()


LAST, OTHERS = slice(-1, None), pytest.param(slice(-1), marks=pytest.mark.slow)
rows = pytest.mark.parametrize("rows", [LAST, OTHERS], ids=["last row", "other rows"])


@rows
@pytest.mark.parametrize("name", TWINS)
def test_every_row_of_a_twin_trains(name, rows, folder, tmp_path):
    recipe = load(name)
    overrides = (*SHORT, "data.train_size=32", f"data.folder={folder}")
    found = find_runs(recipe, recipe.rows[rows], [recipe.columns[-1]], [0], overrides)
    for config in {config.row: config for config in reversed(found)}.values():
        stored = load_run(run(config, tmp_path))
        assert "failure" not in stored.result
        if name == "fashion-figure1":
            assert (stored.path / "arrays.npz").is_file()
        assert ("covariance_norms" in stored.metrics[-1]) == (name == "fashion-figure2")


@rows
def test_every_row_of_the_language_model_trains(rows, tmp_path):
    recipe = load("language-model")
    for config in find_runs(recipe, recipe.rows[rows], overrides=TINY_TEXT):
        assert load_run(run(config, tmp_path)).metrics[-1]["bits_per_byte"] < 9
