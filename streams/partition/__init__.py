"""One partition's life: absorb, close, publish, flush, restore."""
