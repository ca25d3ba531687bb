"""Entry of the ``nysact`` command, which also runs where the extra is not installed."""

import sys

# Top-level modules of the extra "experiments".
EXTRA = {
    "accelerate",
    "filelock",
    "matplotlib",
    "numpy",
    "pydantic",
    "pytorch_optimizer",
    "rich",
    "sklearn",
    "tensorboard",
    "timm",
    "torchvision",
    "transformers",
    "typer",
}


def main() -> None:
    """Run the command, or say what to install if a package of the extra is missing.

    Raises:
        ModuleNotFoundError: If a module is missing that the extra would not bring.
    """
    try:
        from nysact.experiments.commands import app

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        sys.exit(
            f"nysact: the package {missing} is missing, which the command line needs; "
            'install it with: pip install "nysact[experiments]"'
        )
