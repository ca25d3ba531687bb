"""Tables of settings, beside those of the paper."""

import pytest

from nysact.experiments.errors import ExperimentError
from nysact.experiments.recipes import load, names
from nysact.experiments.report.provenance import settings_table
from nysact.experiments.report.report import sections_of

from .stored import cells

OF_SETTINGS = [name for name in names() if not load(name).needs_runs]


# Eva's decay and interval are those of its code, in which 0.95 is the share of the new vectors.
ON_PURPOSE = {
    "table7-cifar": {("Eva", "0.05", "0.95"), ("Eva", "5", "50")},
    "table7-imagenet": {("Eva", "0.05", "0.95"), ("Eva", "5", "50 / 5")},
}


@pytest.mark.parametrize("name", OF_SETTINGS)
def test_our_settings_are_the_papers(name):
    """A cell that differs from the paper on purpose is to be listed here, with the reason."""
    table = settings_table(load(name))
    papers = [cell for cell in table.frame.to_numpy().flat if cell.paper]
    assert len(papers) == sum(len(row) for row in load(name).paper.values())
    noted = {
        (row, cell.text, cell.paper)
        for row, of_row in table.frame.iterrows()
        for cell in of_row
        if cell.note
    }
    assert noted == ON_PURPOSE.get(name, set())


def test_values_that_are_not_the_same_in_all_columns_stand_side_by_side():
    found = cells(settings_table(load("table7-imagenet")), "NysAct-S")
    assert (found["r"].text, found["r"].paper) == ("50 / 20", "50 / 20")
    assert found["lr"].text == "0.5"
    assert cells(settings_table(load("table7-imagenet")), "SGD")["r"].text == "–"


RECIPE = """
title = "Mine"
source = "table2-cifar10"
report = { kind = "settings", names = ["optimizer.options.lr"] }
[paper.SGD]
"optimizer.options.lr" = "0.2"
"""


def test_a_value_that_is_not_the_papers_says_so(tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    found = cells(settings_table(load(str(tmp_path / "mine.toml"))), "SGD")["lr"]
    assert (found.text, found.note, found.paper) == ("0.1", "differs", "0.2")


def test_a_setting_that_no_run_has_is_an_error(tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE.replace("options.lr", "options.lrr"))
    with pytest.raises(ExperimentError, match=r"mine: .*'optimizer.options.lrr': the nearest is"):
        settings_table(load(str(tmp_path / "mine.toml")))


def test_nothing_needs_to_be_run_for_it():
    (section,) = sections_of([], [load("table8")])
    assert list(section.tables) == ["settings"]
    assert not section.figures
