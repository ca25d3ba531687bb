"""The convergence theorem of the paper's section 5, checked by experiment: see docs/theory.md."""
