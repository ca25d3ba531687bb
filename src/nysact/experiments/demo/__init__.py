"""The demo: a few optimizers, trained in turns, with a table and a picture at the end."""
