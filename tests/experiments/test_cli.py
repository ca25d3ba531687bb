import sys
from importlib.metadata import version

import pytest

from nysact.experiments import cli


def output_of(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["nysact", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_lists_the_commands(monkeypatch, capsys):
    text = output_of(monkeypatch, capsys, "--help")
    for command in ("demo", "bench", "train", "recipes", "report", "reproduce", "sweep"):
        assert f" {command} " in text


def test_version_is_that_of_the_package(monkeypatch, capsys):
    assert output_of(monkeypatch, capsys, "--version") == f"nysact {version('nysact')}\n"


@pytest.mark.parametrize("command", ["demo", "train", "recipes", "report", "reproduce", "sweep"])
def test_help_of_a_command_names_no_internals(monkeypatch, capsys, command):
    text = output_of(monkeypatch, capsys, command, "--help")
    assert not any(word in text for word in ("Raises", "Args:", "Returns", ":class:"))


@pytest.mark.parametrize("module", ["typer", "rich.console"])
def test_command_without_the_extra_says_what_to_install(monkeypatch, module):
    monkeypatch.delitem(sys.modules, "nysact.experiments.commands", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert module.partition(".")[0] in stop.value.code
    assert 'pip install "nysact[experiments]"' in stop.value.code


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nysact.experiments.commands", None)
    with pytest.raises(ModuleNotFoundError, match="nysact"):
        cli.main()
