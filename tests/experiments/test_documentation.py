"""What docs/experiments.md shows."""

import re
import runpy
from pathlib import Path

from nysact.experiments.recipes import find_runs, load, names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "own_data.py"


def test_own_model_and_data_take_less_than_20_lines(tmp_path, monkeypatch, capsys):
    shown = EXAMPLE.read_text().splitlines()[2:]
    assert "literalinclude} ../examples/own_data.py" in PAGE
    assert len([line for line in shown if line.strip()]) < 20
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE))
    *_, heading, sgd, nysact = capsys.readouterr().out.splitlines()
    assert heading.startswith("optimizer")
    for line, name in ((sgd, "SGD"), (nysact, "NysAct")):
        found = re.match(rf"{name} +([\d.]+) ± ", line)
        assert float(found[1]) > 80


def test_every_recipe_is_named():
    shown = PAGE.replace("`fashion-figure1` to `fashion-figure7`", " ".join(
        f"`fashion-figure{number}`" for number in range(1, 8)
    ))  # fmt: skip
    assert [name for name in names() if f"`{name}`" not in shown] == []


def test_commands_pick_runs_that_there_are():
    for line in re.findall(r"^\$ nysact train (.+?)(?: +#.*)?$", PAGE, re.MULTILINE):
        name, *options = line.split(" --")
        if name == "fashion-table2" and options == ["set optimizer.options.damp=0.1"]:
            continue
        asked = {"row": [], "column": [], "seed": [], "set": []}
        for option in options:
            kind, value = option.split(" ")
            asked[kind].append(value)
        seeds = [int(seed) for seed in asked["seed"]]
        assert list(find_runs(load(name), asked["row"], asked["column"], seeds, asked["set"]))
