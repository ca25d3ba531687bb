"""Checks of the convergence theorem (section 5 of the paper): see docs/theory.md."""
