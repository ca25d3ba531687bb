"""How a benchmark says what it measured: a Markdown table and a JSON file."""

import json
from pathlib import Path
from typing import Any

import torch

from nysact.experiments.formatting import markdown

__all__ = ["markdown", "write_json"]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the results, with the versions and threads they were measured with."""
    setting = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**setting, **content}, indent=2) + "\n")
    print(f"\nwritten to {path}")
