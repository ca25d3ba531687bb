"""The example that the README runs."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "several_processes.py"


def example():
    spec = importlib.util.spec_from_file_location("several_processes", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_example(*args, **options):
    return example().fit(*args, **options)


def test_what_the_example_imports_exists():
    assert callable(example().load_digits)


@pytest.mark.slow
def test_the_example_learns_and_goes_on_under_another_wrapper(two, tmp_path):
    first, _ = two(run_example, 2, folder=tmp_path)
    second, _ = two(run_example, 3, shard=True, folder=tmp_path)
    straight, _ = two(run_example, 3)
    assert first > 80
    assert second == pytest.approx(straight, abs=0.5)


def test_the_readme_shows_its_command():
    command = "torchrun --nproc-per-node 2 examples/several_processes.py"
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in EXAMPLE.read_text(encoding="utf-8")
