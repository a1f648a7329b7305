"""Files of runs and model versions: their names, where they lie, and the stores that keep them."""
