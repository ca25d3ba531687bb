"""Where samples come from, and the batches that are made of them."""
