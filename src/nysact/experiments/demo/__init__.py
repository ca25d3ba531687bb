"""The demo: a recipe of three optimizers, with a table and a picture of the curves."""
