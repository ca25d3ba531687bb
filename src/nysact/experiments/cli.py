"""Entry of the ``nysact`` command, which also runs where the extra is not installed."""

import sys

# Each extra, and the top-level modules that it brings.
EXTRAS = {
    "experiments": "accelerate filelock jinja2 matplotlib numpy omegaconf optuna pandas pydantic "
    "pytorch_optimizer rich sklearn submitit tensorboard timm torchvision transformers typer",
}


def main() -> None:
    """Run the command, or say what to install if a package of an extra is missing."""
    try:
        from nysact.experiments.commands import app

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((name for name, brings in EXTRAS.items() if missing in brings.split()), None)
        if extra is None:
            raise
        sys.exit(
            f"nysact: this command needs the package {missing}, which is not installed; "
            f'install it with: pip install "nysact[{extra}]"'
        )
