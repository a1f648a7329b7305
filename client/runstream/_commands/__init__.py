"""Commands, one module a group; `runstream._cli` lists them and imports the one that is called."""
