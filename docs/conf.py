"""Sphinx configuration."""

import re
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError

project = "nysact"
author = "The nysact authors"
copyright = "2026, The nysact authors"
release = installed_version("nysact")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    # Ships MathJax with the pages, so that formulas need no network.
    "sphinx-mathjax-offline",
]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
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
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("build-finished", require_offline, priority=900)  # after all copying
