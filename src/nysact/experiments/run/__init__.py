"""One run: what it trains on, its loop, its display, its trackers and its folder."""
