"""Runs the command where it is not installed: ``python -m nysact.experiments``."""

from nysact.experiments.cli import main

main()
