"""Sphinx configuration."""

import re
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import typer
from sphinx.errors import ExtensionError
from typer.cli import get_docs_for_click

from nysact.experiments.commands import app as commands

project = "nysact"
author = "The nysact authors"
copyright = "2026, The nysact authors"
release = installed_version("nysact")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    # Ships MathJax with the pages, so that formulas need no network.
    "sphinx-mathjax-offline",
]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_mock_imports = ["lightning"]  # everything else comes with the extra
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"nysact {release}"
html_static_path = ["_static"]


def skip_alias(
    app: Any, what: str, name: str, obj: object, skip: bool, options: Any
) -> bool | None:
    """Skip the fields of a named tuple: its docstring has them already."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def add_commands(app: Any, name: str, source: list[str]) -> None:
    """Add the commands with their options to their page, as typer describes them."""
    if name == "cli":
        command = typer.main.get_command(commands)
        context = typer.Context(command, info_name="nysact")
        shown = get_docs_for_click(obj=command, ctx=context, indent=1, name="nysact")
        source[0] += shown.replace("<list[", "<").replace("]>", ">")


EXTERNAL = re.compile(
    r"""<(?:script|img|iframe)\b[^>]*\bsrc="(?:https?:)?//"""
    r"""|<link\b[^>]*\brel="(?:stylesheet|icon|preload|preconnect)"[^>]*href="(?:https?:)?//"""
    r"""|url\(["']?(?:https?:)?//|@import""",
)


def require_offline(app: Any, exception: Exception | None) -> None:
    """Fail where a page or style sheet loads anything from a network."""
    if exception is None and app.builder.name == "html":
        files = [p for kind in ("*.html", "*.css") for p in Path(app.outdir).rglob(kind)]
        online = [str(p) for p in files if EXTERNAL.search(p.read_text("utf-8"))]
        if online:
            raise ExtensionError(f"these files load from a network: {', '.join(online)}")


def setup(app: Any) -> None:
    app.connect("source-read", add_commands)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("build-finished", require_offline, priority=900)  # after all copying
