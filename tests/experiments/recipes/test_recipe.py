import pytest

from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes import find_runs, load, names

RECIPE = """
title = "A recipe"
report = { kind = "table" }
seeds = [3, 4]

[run]
model = { name = "digits" }
data = { name = "digits" }
optimizer = { name = "nysact", options = { rank = 7 } }
epochs = 2

[columns.short]
[columns.long]
epochs = 5
rows.b.optimizer.options = { damping = 9.0 }

[rows.a]
optimizer = { name = "sgd", options = {} }
[rows.b]
optimizer = { options = { lr = 0.5 } }

[[sweeps]]
name = "optimizer.options.damping"
values = [1.0, 2.0]
rows = ["b"]

[paper.b]
short = "1±2"
"""
# The merge is deep: "a" would keep the rank of another optimizer.
RECIPE = RECIPE.replace('"nysact", options = { rank = 7 } }', '"nysact" }\nbatch_size = 7')


@pytest.fixture
def path(tmp_path) -> str:
    file = tmp_path / "mine.toml"
    file.write_text(RECIPE)
    return str(file)


def test_runs_are_all_rows_columns_values_and_seeds(path):
    recipe = load(path)
    found = [
        (c.column, c.row, c.sweep.get("optimizer.options.damping"), c.seed) for c in recipe.runs()
    ]
    assert found == [
        (column, row, value, seed)
        for column in ("short", "long")
        for row, values in (("a", [None]), ("b", [1.0, 2.0]))
        for value in values
        for seed in (3, 4)
    ]
    assert {c.recipe for c in recipe.runs()} == {"mine"}
    assert len({c.run_id() for c in recipe.runs()}) == 12


def test_cell_changes_row_changes_column_changes_what_all_have(path):
    runs = {(c.column, c.row): c for c in load(path).runs([0])}
    assert runs["short", "a"].epochs == 2
    assert runs["long", "a"].epochs == 5
    assert runs["long", "b"].optimizer.options["lr"] == 0.5
    assert {c.batch_size for c in runs.values()} == {7}
    assert runs["long", "b"].optimizer.options["damping"] == 2.0, "the last value of the sweep"


def test_overrides_change_all_runs_but_not_what_is_varied(path):
    runs = find_runs(load(path), seeds=[0], overrides=["epochs=1", "optimizer.options.lr=3"])
    assert {(c.epochs, c.optimizer.options["lr"]) for c in runs} == {(1, 3)}
    of_b = find_runs(load(path), rows=["b"], overrides=["optimizer.options.damping=7"])
    assert {c.optimizer.options["damping"] for c in of_b} == {1.0, 2.0}


def test_some_runs_can_be_picked(path):
    found = list(find_runs(load(path), rows=["b"], columns=["long"], seeds=[8]))
    assert {(c.row, c.column, c.seed) for c in found} == {("b", "long", 8)}
    with pytest.raises(ExperimentError, match="mine has no row 'c': the nearest is"):
        list(find_runs(load(path), rows=["c"]))
    with pytest.raises(ExperimentError, match="mine has no column 'shor': the nearest is 'short'"):
        list(find_runs(load(path), columns=["shor"]))


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ExperimentError, match="no recipe 'fashion-tabel2': the nearest is 'fash"):
        load("fashion-tabel2")


BAD_FILES = {
    "titel = 3": "there is no setting 'titel': the nearest is 'title'",
    "title = 3": "title=3: expected a valid string",
    "title =": "not a TOML file",
    'title = ""\n[[sweeps]]\nname = "x"\nvalues = []': "sweeps.0.values=[]",
    'title = ""\nseeds = []': "seeds=[]",
    'title = ""\n[columns.a]': "expected a section of each",
    'title = ""\nsource = "fashion-table2"\n[rows.SGD]': "rows: a recipe with source=",
    'title = ""\nsource = "table3"': "shows the runs of 'table2-cifar10'",
    'title = ""\nsource = "fashion-table2"\ncolumns = ["LeNet5"]': "the nearest is 'LeNet-5'",
    'title = ""\nsource = "fashion-tabel2"': "the nearest is 'fashion-table2'",
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.items(), ids=range(len(BAD_FILES)))
def test_bad_file_is_an_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ExperimentError) as error:
        load(str(path))
    assert message in str(error.value)
    assert "bad.toml" in str(error.value)


REPORT = 'report = { kind = "table" }'
# What stands in RECIPE, what is put in its place, and what the error says.
BAD_NAMES = [
    (REPORT, 'report = { kind = "tabel" }', "'tabel': the nearest is 'table'"),
    (REPORT, 'report = { knd = "table" }', "'report.knd': the nearest is 'report.kind'"),
    (REPORT, 'report = { metric = "accuracy" }', "'accuracy': the nearest is 'test_accuracy'"),
    (REPORT, 'report = { at = "fnal" }', "report.at='fnal': expected 'final' or 'best'"),
    (REPORT, 'report = { reference = "aa" }', "report.reference is 'aa': the nearest is 'a'"),
    (REPORT, 'report = { target = "90% of aa" }', "'aa': the nearest is 'a'"),
    (REPORT, 'report = { target = "soon" }', "target 'soon': expected a number"),
    (REPORT, 'report = { kind = "settings" }', "report.names: expected settings"),
    ('rows = ["b"]', 'rows = ["bb"]', "there is no row 'bb': the nearest is 'b'"),
    ("rows.b.optimizer", "rows.bb.optimizer", "columns.long.rows: there is no row 'bb'"),
    ("[paper.b]", "[paper.bb]", "paper: there is no row 'bb': the nearest is 'b'"),
    ("short = ", "shor = ", "paper.b: there is no column 'shor': the nearest is 'short'"),
    ("rows.b.optimizer.options", "rows.b", "row b, column long: there is no setting 'damping'"),
    ("rows.b.optimizer.options = { damping = 9.0 }", "rows.b = 3", "columns.long.rows.b=3: expe"),
    ("epochs = 5", "seed = 5", "columns.long.seed: each run is given its own"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), BAD_NAMES)
def test_every_unknown_name_is_an_error_that_names_the_nearest(tmp_path, right, wrong, message):
    assert RECIPE.count(right) == 1
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.replace(right, wrong))
    with pytest.raises(ExperimentError) as error:
        load(str(path)).runs()
    assert message in str(error.value)
    assert "bad" in str(error.value)


def test_file_that_is_not_there_is_an_error():
    with pytest.raises(ExperimentError, match=r"nowhere\.toml: cannot be read"):
        load("nowhere.toml")


def test_a_setting_that_some_rows_lack_names_the_rows_that_have_it(path):
    overrides = ["optimizer.options.stat_decay=0.5"]
    with pytest.raises(ExperimentError, match=r"^a: .*to change the rows that take it: --row 'b'$"):
        find_runs(load(path), overrides=overrides)
    with pytest.raises(ExperimentError) as error:
        find_runs(load(path), rows=["a"], overrides=overrides)
    assert "--row" not in str(error.value)
    found = find_runs(load(path), rows=["b"], overrides=overrides)
    assert {config.optimizer.options["stat_decay"] for config in found} == {0.5}


def test_a_misspelt_setting_is_nearest_to_that_of_any_row(path):
    with pytest.raises(ExperimentError, match=r"nearest is 'optimizer\.options\.stat_decay'"):
        find_runs(load(path), overrides=["optimizer.options.stat_dacey=0.5"])


def test_a_source_may_be_a_file(path, tmp_path):
    shown = tmp_path / "shown.toml"
    shown.write_text(f'title = "Shown"\nsource = "{path}"\ncolumns = ["long"]')
    recipe = load(str(shown))
    assert (recipe.source, recipe.columns) == ("mine", ["long"])
    assert {config.recipe for config in recipe.runs()} == {"mine"}


@pytest.mark.parametrize("name", names())
def test_recipe_is_right(name):
    recipe = load(name)
    assert recipe.title
    assert recipe.report.kind
    if recipe.source == name:
        # The other seeds differ in the seed alone.
        runs = recipe.runs(recipe.seeds[:1])
        assert {c.recipe for c in runs} == {name}
        assert len({c.run_id() for c in runs}) == len(runs) > 0
