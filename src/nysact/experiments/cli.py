"""Entry of the ``nysact`` command, which also runs where the extra is not installed."""

import sys

# The extra that brings each top-level module.
EXTRAS = {
    **dict.fromkeys(
        (
            *("accelerate", "filelock", "jinja2", "matplotlib", "numpy", "optuna"),
            *("pydantic", "pytorch_optimizer", "rich", "sklearn", "submitit"),
            *("tensorboard", "timm", "torchvision", "transformers", "typer"),
        ),
        "experiments",
    ),
}


def main() -> None:
    """Run the command, or say what to install if a package of an extra is missing.

    Raises:
        ModuleNotFoundError: If a module is missing that no extra would bring.
    """
    try:
        from nysact.experiments.commands import app

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        sys.exit(
            f"nysact: the package {missing} is missing, which this command needs; "
            f'install it with: pip install "nysact[{EXTRAS[missing]}]"'
        )
