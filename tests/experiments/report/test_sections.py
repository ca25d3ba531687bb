"""What is shown of which runs."""

import pytest

from nysact.experiments.metrics import parse_target
from nysact.experiments.recipes import find_runs, load, names
from nysact.experiments.recipes.recipe_file import KINDS as RECIPE_KINDS
from nysact.experiments.report.report import KINDS, kind_of, recipe_section, sections_of
from nysact.experiments.run.store import load_runs

from .stored import cells, results_of, write_config, write_run

LR, DAMPING = "optimizer.options.lr", "optimizer.options.damping"


def kind(root):
    return kind_of(results_of(root))


def test_kind_of_unknown_runs_is_what_there_is_to_show(tmp_path):
    write_run(tmp_path / "a", "SGD")
    assert kind(tmp_path / "a") == "table"
    for value in range(10):
        write_run(tmp_path / "b", "SGD", sweep={LR: value})
        write_run(tmp_path / "b", "SGD", sweep={DAMPING: value})
    assert kind(tmp_path / "b") == "sensitivity"
    write_run(tmp_path / "b", "SGD", sweep={LR: 11})
    assert kind(tmp_path / "b") == "search"
    write_run(tmp_path / "c", "SGD", sweep={LR: 1, DAMPING: 1})
    assert kind(tmp_path / "c") == "search"
    write_run(tmp_path / "d", "SGD", norms=[{"0": 1.0}] * 3)
    assert kind(tmp_path / "d") == "norms"


def test_kinds_that_recipes_may_name_are_those_that_can_be_shown():
    assert sorted(KINDS) == sorted(RECIPE_KINDS)


@pytest.mark.parametrize("name", names())
def test_every_recipe_says_how_it_is_shown(name):
    recipe = load(name)
    section = recipe_section(None, recipe)
    assert section.kind in KINDS
    assert section.paper == recipe.paper


def test_another_target_than_the_recipes_has_no_numbers_of_the_paper():
    recipe = load("table5")
    assert recipe_section(None, recipe, parse_target("90% of SGD")).paper == recipe.paper
    assert recipe_section(None, recipe, parse_target("72")).paper == {}


TWINS = [name for name in names() if name.startswith("fashion-")]
# The fast tests show one twin of each kind.
FIRST = {load(name).report.kind: name for name in reversed(TWINS)}.values()


@pytest.mark.parametrize(
    "name",
    [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in TWINS],
)
def test_every_twin_has_a_table_or_a_figure_of_its_runs(tmp_path, name):
    """One run of each kind, with whatever its recipe records."""
    recipe = load(name)
    settings = {(c.row, tuple(c.sweep.items())): c for c in recipe.runs([0])}
    for config in settings.values():
        norms = [{"0": 1.0}] * 3 if config.record.covariance_norms else ()
        write_config(tmp_path, config, norms=norms)
    (section,) = sections_of(load_runs(tmp_path), [recipe])
    if recipe.report.kind == "heatmap":
        return
    assert section.tables or section.figures


def test_a_recipe_shows_the_runs_of_its_source_and_those_of_no_recipe_follow(tmp_path):
    recipes = [load(name) for name in ("table2-cifar10", "table3")]
    for config in find_runs(recipes[0], ["SGD", "KFAC"], ["ResNet-32, 100 epochs"], [0]):
        write_config(tmp_path, config)
    write_run(tmp_path, "SGD", recipe="unknown")
    sections = sections_of(load_runs(tmp_path), recipes)
    assert [s.results.name for s in sections] == ["table2-cifar10", "table3", "unknown"]
    assert list(sections[1].tables) == ["costs"]
    found = cells(sections[1].tables["costs"], "KFAC")
    assert found["ResNet-32, 100 epochs: time"].paper == "2.29"


def test_where_there_is_a_validation_set_runs_of_no_recipe_are_compared_by_it(tmp_path):
    path = write_run(tmp_path, "SGD", 0)
    (section,) = sections_of(load_runs(tmp_path))
    assert section.metric.name == "test_accuracy"
    lines = (path / "metrics.jsonl").read_text()
    added = lines.replace('"test_accuracy"', '"validation_accuracy": 1.0, "test_accuracy"')
    (path / "metrics.jsonl").write_text(added)
    (section,) = sections_of(load_runs(tmp_path))
    assert section.metric.name == "validation_accuracy"


def test_units_of_a_section_are_those_of_its_metric(tmp_path):
    path = write_run(tmp_path, "SGD")
    lines = (path / "metrics.jsonl").read_text().replace("test_accuracy", "bits_per_byte")
    (path / "metrics.jsonl").write_text(lines)
    (section,) = sections_of(load_runs(tmp_path))
    assert "bits-per-byte" in section.tables
    assert section.metric.higher is False


def test_tables_name_the_runs_of_another_device_or_version(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "SGD", seed)
    (section,) = sections_of(load_runs(tmp_path))
    assert "environment" not in " ".join(section.tables["test-accuracy"].notes)
    write_run(tmp_path, "NysAct", 7, environment={"packages": {"torch": "2.14.0"}})
    (section,) = sections_of(load_runs(tmp_path))
    assert section.tables["test-accuracy"].notes[-1] == (
        "Not all runs are of one environment: NysAct, LeNet-5, 3 epochs, seed 7 on a CPU with "
        "torch 2.14.0; the others on a CPU with torch 2.15.0."
    )


def test_figures_without_a_table_warn_of_another_device(tmp_path):
    for row, device in (("SGD", "a CPU"), ("NysAct", "a GPU")):
        norms = [{"conv": 1.0}] * 3
        write_run(tmp_path, row, norms=norms, environment={"device_name": device})
    (section,) = sections_of(load_runs(tmp_path))
    assert not section.tables
    (warning,) = section.warnings
    assert "NysAct, LeNet-5, 3 epochs, seed 0 on a GPU" in warning or "on a CPU" in warning


def test_a_run_that_went_on_elsewhere_is_of_both_places(tmp_path):
    resumed = [{"device_name": "a GPU", "packages": {"torch": "2.15.0"}}]
    write_run(tmp_path, "SGD", environment={"resumed": resumed})
    (section,) = sections_of(load_runs(tmp_path))
    assert "on a GPU with torch 2.15.0" in section.tables["test-accuracy"].notes[-1]
