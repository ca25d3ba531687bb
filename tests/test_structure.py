"""The structure check fails on each fault that it is there for."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

spec = importlib.util.spec_from_file_location("structure", ROOT / "tools" / "structure.py")
structure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(structure)

ROOMS = ("experiments", "optim", "updates", "engine", "curvature", "layers", "distributed")
ALLOWED = {
    "experiments/run.py": "import nysact\nfrom nysact.optim import face",
    "optim/face.py": "import nysact.updates.sgd\nimport nysact.engine.layer",
    "updates/sgd.py": "import nysact.engine.layer",
    "engine/layer.py": "from nysact.curvature import exact\nfrom nysact.distributed import shards",
    "curvature/exact.py": "from nysact.layers.linear_map import __name__",
    "layers/linear_map.py": "",
    "layers/registry.py": "import nysact.layers.linear_map",
    "distributed/shards.py": "import torch",
}
FORBIDDEN = {
    "optim/face.py": "nysact.experiments.run",
    "updates/sgd.py": "nysact.optim.face",
    "engine/layer.py": "nysact.updates.sgd",
    "curvature/exact.py": "nysact.layers.registry",
    "layers/registry.py": "nysact.curvature.exact",
    "layers/linear_map.py": "nysact.distributed.shards",
    "distributed/shards.py": "nysact.engine.layer",
}


def check_imports(folder, files):
    for room in ROOMS:
        (folder / "nysact" / room).mkdir(parents=True)
        (folder / "nysact" / room / "__init__.py").touch()
    (folder / "nysact" / "__init__.py").touch()
    for name, text in files.items():
        (folder / "nysact" / name).write_text(text)
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, ROOT / "pyproject.toml", "--no-cache"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_contracts_allow_imports_of_lower_packages(tmp_path):
    result = check_imports(tmp_path, ALLOWED)
    assert result.returncode == 0, result.stdout


def test_contracts_name_each_upward_import_even_for_types_alone(tmp_path):
    line = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {}"
    result = check_imports(
        tmp_path, ALLOWED | {name: line.format(module) for name, module in FORBIDDEN.items()}
    )
    assert result.returncode == 1
    for name, module in FORBIDDEN.items():
        importer = "nysact." + name.removesuffix(".py").replace("/", ".")
        assert f"{importer} -> {module} (l.3)" in result.stdout, result.stdout


@pytest.mark.parametrize(
    ("line", "circles"),
    [
        ("", 0),
        ("import circle_{0}.first", 1),
        ("import circle_{0}", 1),
        ("def late():\n    import circle_{0}.first", 1),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import circle_{0}.first", 1),
    ],
)
def test_circles(line, circles, tmp_path, monkeypatch, request):
    name = f"circle_{abs(hash(line))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(f"import {name}.second")
    (tmp_path / name / "first.py").write_text(f"import {name}.second")
    (tmp_path / name / "second.py").write_text(line.format(name.removeprefix("circle_")))
    monkeypatch.syspath_prepend(tmp_path)
    assert len(structure.import_circles(name)) == circles


def body(lines):
    return "".join(f"    step_{n} = compute_{n}(a, b)\n" for n in range(lines))


@pytest.mark.parametrize("lines", [7, 8])
def test_copies_between_files_and_within_one(lines, tmp_path):
    first, second, twice = (tmp_path / f"{name}.py" for name in ("first", "second", "twice"))
    first.write_text("def one(a, b):\n" + body(lines))
    second.write_text("class Two:\n    def two(b, a):\n" + body(lines).replace("    ", "        "))
    own = body(lines).replace("compute", "derive")
    twice.write_text(f"def three(a, b):\n{own}\n\ndef four(b, a):\n{own}")
    found = structure.copies([first, second, twice])
    assert len(found) == (2 if lines == 8 else 0)
    if found:
        assert "first.py" in found[0]
        assert "second.py" in found[0]
        assert "twice.py:three:1" in found[1]
        assert "twice.py:four" in found[1]


def test_signatures_imports_and_docstrings_may_repeat(tmp_path):
    arguments = "".join(f"    option_{n}: int = {n},\n" for n in range(12))
    text = f"from a import (\n{arguments.replace(': int = ', ' as a')})\n".replace("option", "x")
    words = "".join(f"    Word {n} of many.\n" for n in range(12))
    for name in ("first", "second"):
        function = (
            f'def {name}(\n{arguments}):\n    """Do.\n\n{words}    """\n    return "{name}"\n'
        )
        (tmp_path / f"{name}.py").write_text(text + function)
    assert structure.copies(sorted(tmp_path.glob("*.py"))) == []


def test_long_files_are_named(tmp_path):
    short, long = tmp_path / "short.py", tmp_path / "long.py"
    short.write_text("x = 1\n" * 400)
    long.write_text("x = 1\n" * 401)
    (message,) = structure.long_files([short, long])
    assert message.startswith(f"{long}: 401 lines, expected at most 400")


def test_statements_of_nested_functions_count_once():
    function = ast.parse(
        "def f():\n    '''Do.'''\n    if a:\n        b()\n    def g():\n        c()\n    return g"
    ).body[0]
    assert structure.statements(function) == 4  # if, b(), def, return


@pytest.mark.parametrize(
    ("lengths", "faults"),
    [([4] * 20, 0), ([5] * 20, 1), ([1] * 17 + [13] * 3, 1), ([5] * 17 + [13] * 3, 2)],
)
def test_function_lengths_have_a_budget(lengths, faults):
    assert len(structure.long_functions("library", lengths)) == faults
