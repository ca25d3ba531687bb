"""Time and memory of a training step with any optimizer, against SGD in the same process."""
