"""``nysact bench`` and ``nysact growth``: time and memory of a training step."""
