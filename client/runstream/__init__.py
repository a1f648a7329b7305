"""Track experiments: the client of runstream. Importing it has no side effects and costs little."""
